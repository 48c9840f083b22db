"""specs/plans/*.yaml, each planned for 5,000 full rows from the model's config alone ->
tests/golden/plans.md."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from components.render_config.choose.rows import row_tokens_of
from components.render_config.planner import (
    NO_DATASET,
    DatasetFacts,
    Machine,
    make_plan,
)
from components.shared.documents.plan import MemoryTerm, Plan
from components.shared.errors import HaganeError, SpecError
from components.shared.spec.file import load_spec
from components.shared.spec.run_spec import RunSpec

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs" / "plans").glob("*.yaml"))
NUM_ROWS = 5_000


def example_spec(file: Path, overrides: Iterable[str] = ()) -> RunSpec:
    """The spec with its paths from the root of the repository, the same in every checkout."""
    text = load_spec(file, overrides).model_dump_json()
    return RunSpec.model_validate_json(text.replace(f"{ROOT}/", ""))


def plan_example(spec: RunSpec) -> Plan:
    config = json.loads((ROOT / spec.model.source / "config.json").read_text())
    num_tokens = NUM_ROWS * row_tokens_of(spec, NO_DATASET, {})
    facts = DatasetFacts(digest="", num_rows=NUM_ROWS, num_tokens=num_tokens, model_revision=None)
    return make_plan(spec, facts, config, machine=Machine())


def planned_examples() -> Iterator[tuple[str, RunSpec, Plan]]:
    """Name, spec and plan of every example that fits its hardware."""
    for file in SPECS:
        spec = example_spec(file)
        try:
            plan = plan_example(spec)
        except SpecError:
            continue  # it does not fit
        yield file.stem, spec, plan


def document() -> str:
    """Verdict, cautions, what decided, memory and options of each plan; the lines of each
    refusal."""
    lines = [
        "# Plans of the example specs",
        "",
        f"For {NUM_ROWS:,} full rows, from config.json alone. Written by `make golden`.",
    ]
    for file in SPECS:
        lines += ["", f"## {file.stem}", ""]
        try:
            lines += _planned(plan_example(example_spec(file)))
        except HaganeError as error:
            lines += [f"- refused: {problem}" for problem in error.problems]
    return "\n".join(lines) + "\n"


def _planned(plan: Plan) -> list[str]:
    lines = [plan.verdict, "", *(f"- caution: {caution}" for caution in plan.cautions)]
    lines += [
        f"- {key}: {plan.reasons[key]}"
        for key in (
            "precision",
            "zero",
            "steps.micro_batch",
            "num_trainable",
            "lora.target_modules",
        )
        if key in plan.reasons
    ]
    if plan.lora is not None:
        lines.append(
            f"- targets: {', '.join((*plan.lora.target_modules, *plan.lora.target_parameters))}"
        )
    lines.append(f"- saves: {', '.join(map(str, plan.steps.save_steps))}")
    lines += [
        "",
        "| option, the plan's or with one row per micro-batch | GPU | node | fits | cost |",
        "|---|---|---|---|---|",
    ]
    for each in plan.memory.options:
        fits = "yes" if each.fits else "no"
        lines.append(
            f"| {each.zero.name} | {_gib(each.gpu_bytes)} | {_gib(each.host_bytes)} | {fits} | "
            f"{each.cost} |"
        )
    lines += ["", "| memory of | GiB | formula |", "|---|---|---|"]
    lines += [
        f"| {where}: {term.name} | {_gib(term.num_bytes)} | {term.formula} |"
        for where, term in _terms(plan)
    ]
    if plan.memory.transient:
        lines += ["", "| node at times, the largest counts | GiB | formula |", "|---|---|---|"]
        lines += [
            f"| {term.name} | {_gib(term.num_bytes)} | {term.formula} |"
            for term in plan.memory.transient
        ]
    return lines


def _terms(plan: Plan) -> list[tuple[str, MemoryTerm]]:
    return [
        *(("GPU", term) for term in plan.memory.gpu),
        *(("node", term) for term in plan.memory.host),
    ]


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f}"
