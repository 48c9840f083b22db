"""Status and end of a run as text for a terminal."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from components.shared.documents.progress import TrainingProgress
from components.shared.documents.report import HeldOutLosses, Report
from components.shared.errors import ObjectDamaged, ObjectMissing
from components.shared.model.registry import ModelFamily
from components.shared.spec.run_spec import RunSpec
from components.shared.store.checkpoints import committed_checkpoints, unreadable_checkpoints
from components.shared.store.layout import CHECKPOINTS, PROGRESS, REPORT, finished_folders
from components.shared.store.manifest import read_manifest
from components.shared.store.published import Version
from components.shared.store.storage import LocalStore, Store
from pipelines.checkpoints.listing import checkpoint_table, damages
from pipelines.screens.console import open_console as open_console
from pipelines.screens.progress import duration


def models_screen(families: Iterable[ModelFamily]) -> RenderableType:
    """The models known by name, one line each, below their architecture and its targets."""
    parts: list[RenderableType] = []
    for family in families:
        targets = ", ".join((*family.targets, *family.parameters))
        if family.merge:
            serving = "  merge the adapter to serve it by vLLM"
        else:
            serving = ""
        if family.remote:
            remote = "  code on the hub: not run by hagane"
        else:
            remote = ""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for no_wrap in (True, True, False):
            table.add_column(no_wrap=no_wrap)
        for model in family.models:
            if model.template == "own":
                template = "own template"
            else:
                template = "no template"
            about = filter(None, (template, model.licence, model.tokenizer, model.note))
            table.add_row(model.name, f"{model.billions:g}B", "; ".join(about))
        parts += [
            Text.assemble(
                (family.model_type, "bold"), f"  {targets}", (f"{serving}{remote}", "dim")
            ),
            table,
            Text(),
        ]
    return Group(*parts)


def compare_screen(found: dict[str, Any]) -> RenderableType:
    """One column a run: what came of it, then what was asked differently."""
    runs = found["runs"]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", *(run["run"] for run in runs)):
        table.add_column(Text(heading), overflow="fold")
    shown = {
        "held-out loss": lambda run: _loss(run["tuned_loss"]),
        "before training": lambda run: _loss(run["base_loss"]),
        "token accuracy": lambda run: (
            "" if run["token_accuracy"] is None else f"{run['token_accuracy']:.1%}"
        ),
        **{metric: partial(_score, metric) for metric in _metrics(runs)},
        "best epoch": lambda run: str(run["best_epoch"] or ""),
        "gate": lambda run: {True: "met", False: "not met", None: ""}[run["gate_met"]],
        "steps": lambda run: f"{run['steps']:,}",
        "training": lambda run: duration(run["seconds"]),
        "tokens/s": lambda run: (
            "" if run["tokens_per_second"] is None else f"{run['tokens_per_second']:,.0f}"
        ),
        "restarts": lambda run: str(run["restarts"]),
    }
    for name, write in shown.items():
        table.add_row(name, *(write(run) for run in runs))
    table.add_row()
    for field in runs[0]["asked"]:
        table.add_row(
            Text(field, style="dim"),
            *(Text(json.dumps(run["asked"][field], ensure_ascii=False)) for run in runs),
        )
    return Group(table, *(Text(f"! {caution}", style="yellow") for caution in found["cautions"]))


def _metrics(runs: list[dict[str, Any]]) -> list[str]:
    """What any of the runs was measured by, beside loss and token accuracy."""
    return list(dict.fromkeys(metric for run in runs for metric in run["scores"]))


def _score(metric: str, run: dict[str, Any]) -> str:
    value = run["scores"].get(metric)
    if value is None:
        return ""
    return f"{value:.3f}"


def _loss(value: Any) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4f}"


def published_screen(versions: list[Version], store_uri: str) -> RenderableType:
    """One line a version."""
    if not versions:
        return Text(
            f"nothing is published in {store_uri}; set publish.name in a spec, or: hagane publish "
            "RUN --name NAME"
        )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("name", "version", "latest", "held-out loss", "run", "published"):
        table.add_column(heading, overflow="fold")
    for each in versions:
        facts = each.manifest.facts
        losses = f"{_loss(facts.get('base_loss'))} -> {_loss(facts.get('tuned_loss'))}"
        if each.is_latest:
            latest = "yes"
        elif each.was_latest:
            latest = ""
        else:
            latest = "never was"
        table.add_row(
            each.name,
            each.label,
            latest,
            losses,
            str(facts.get("run", "")),
            f"{each.written:%Y-%m-%d %H:%M}",
        )
    return table


def status_screen(store: Store, spec: RunSpec) -> RenderableType:
    """Which folders of the run are finished, and its checkpoints."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("folder", "finished", "what it holds"):
        table.add_column(heading)
    for folder in finished_folders(spec.training.method):
        manifest = read_manifest(store, folder)
        if manifest is None:
            facts = ""
        else:
            facts = "  ".join(
                f"{key}={_short(value)}"
                for key, value in manifest.facts.items()
                if value is not None
            )
        table.add_row(folder, "no" if manifest is None else "yes", facts)
    checkpoints = checkpoint_table(store, spec.checkpoints.keep)
    if read_manifest(store, CHECKPOINTS) is not None:
        reported = []
    else:
        reported = _progress(store)
    return Group(
        Text(f"run {spec.name} at {store.uri}", style="bold"),
        *reported,
        Text(),
        table,
        Text(),
        checkpoints,
    )


def _progress(store: Store) -> list[Text]:
    """How far a training in a cluster is, as its launcher last reported; nothing for others."""
    try:
        state = TrainingProgress.model_validate_json(store.read_bytes(PROGRESS))
    except ObjectMissing:
        return []
    line = f"training: {state.phase}"
    if state.detail:
        line += f": {state.detail}"
    if state.done and state.left_s is not None:
        line += (
            f"; step {state.done} of {state.total}, loss {state.loss}, {state.tokens_s} tokens/s, "
            f"{state.left_s:.0f} s left"
        )
    if state.restarts:
        line += f"; started anew {state.restarts} times"
    where = f"job {state.job} in namespace {state.namespace}, reported {state.at}"
    return [Text(f"{line} ({where})")]


def end_screen(report: Report, report_page: Path) -> RenderableType:
    """What a finished run comes to, on less than a page."""
    epochs = Table(box=None, padding=(0, 2, 0, 0))
    held_out = report.held_out_loss
    for heading in (
        "epoch",
        "step",
        "loss",
        *(["held-out loss"] if held_out else []),
        "checkpoint",
    ):
        epochs.add_column(heading)
    for epoch in report.epochs:
        cells = [str(epoch.epoch), str(epoch.step), f"{epoch.loss:.3f}"]
        if held_out is not None:
            loss = epoch.held_out_loss
            cells.append("" if loss is None else f"{loss:.3f}")
        epochs.add_row(*cells, epoch.checkpoint or "not kept")
    where = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    where.add_column()
    where.add_column(overflow="fold")
    where.add_row("run", report.uri)
    export = report.export
    size = f"{export.num_bytes / 1e6:.1f} MB"
    where.add_row(export.folder, f"{export.uri}  ({size}, verified)")
    where.add_row("report", str(report_page))
    parts: list[RenderableType] = [
        where,
        Text(),
        epochs,
        Text(),
        Text(_outcome(held_out, report.seconds)),
    ]
    for answer in report.answers[:1]:
        asked = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        asked.add_row("question", Text(answer.question))
        asked.add_row("base", Text(answer.base, style="dim"))
        asked.add_row("tuned", Text(answer.tuned, style="bold"))
        parts += [Text(), asked]
    return Panel(Group(*parts), title=f"{report.run} is finished", title_align="left")


def _outcome(held_out: HeldOutLosses | None, seconds: float) -> str:
    if held_out is None:
        return (
            "nothing was held out, so no loss says whether it helped; trained for "
            f"{duration(seconds)}"
        )
    return (
        f"held-out loss  {held_out.base:.3f} before -> {held_out.tuned:.3f} after, trained "
        f"for {duration(seconds)}"
    )


def read_report(store: Store) -> Report:
    """report.json of a finished run."""
    return Report.model_validate_json(store.read_bytes(f"{REPORT}/report.json"))


def print_end(console: Console, store: Store) -> None:
    """The end screen of a finished run is on the console."""
    console.print(end_screen(read_report(store), _report_page(store)))


def _report_page(store: Store) -> Path:
    """The report's page on this machine: the run's own, or a copy in the work folder of a run that
    is in S3."""
    if isinstance(store, LocalStore):
        return store.root / REPORT / "report.html"
    from components.shared.step import work_folder  # structlog, which a status need not pay

    page = work_folder(store.uri, "report") / "report.html"
    page.write_bytes(store.read_bytes(f"{REPORT}/report.html"))
    return page


def verify_checkpoints(store: Store, console: Console) -> None:
    """Every file of every committed checkpoint was read and is what its manifest says. Raises
    ObjectDamaged with all that are not."""
    committed = committed_checkpoints(store)
    num_files = sum(len(checkpoint.manifest.files) for checkpoint in committed)
    problems = list(unreadable_checkpoints(store).values())
    with Progress(
        TextColumn("reading"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_interactive,  # elsewhere a bar would be a line of the output
    ) as bar:
        task = bar.add_task("", total=num_files)
        for _, problem in damages(store, committed):
            bar.advance(task)
            problems += [problem] if problem else []
    if problems:
        raise ObjectDamaged(*problems)
    if not committed:
        console.print("no checkpoint is committed yet, so nothing was read")
        return
    num_bytes = sum(checkpoint.num_bytes for checkpoint in committed)
    console.print(
        f"{num_files} files of {len(committed)} checkpoints, {num_bytes:,} bytes: every size and "
        "sha256 is right"
    )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
