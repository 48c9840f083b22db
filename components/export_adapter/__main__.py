"""checkpoints/ -> adapter/ (LoRA) or model/ (full): what a run is for, proved to give the trained
model's logits."""

import argparse
from pathlib import Path

from components.export_adapter.step import export_run
from components.shared.errors import SpecError
from components.shared.html.links import store_link
from components.shared.kfp_face import hand_over
from components.shared.printable import shown
from components.shared.spec.results import ExportSpec
from components.shared.step import step_log, step_of_run
from components.shared.store.manifest import Manifest


def run_step(run: str) -> Manifest:
    """The export is finished: adapter/ or model/, with a model card and the verification's numbers
    in it.

    Raises:
        StoreError: the training is not finished, or an object is damaged.
        RunFailed: the checkpoint is no sound adapter or model, or does not give the trained model's
            logits.
    """
    with step_of_run("export_adapter", run) as log:
        return export_run(run, log)


def kfp_step(run: str, *, spec_digest: str = "", manifest_path: str, where_path: str) -> str:
    """`run_step` for KFP, which has its manifest and, as Markdown, where the export is. Returns the
    manifest's digest."""
    with step_of_run("export_adapter", run, spec_digest=spec_digest) as log:
        manifest = export_run(run, log)
        Path(where_path).write_text(where_it_is(run.rstrip("/"), manifest), encoding="utf-8")
        return hand_over(manifest, run=run, manifest_path=manifest_path)


def where_it_is(run: str, manifest: Manifest) -> str:
    """A Markdown table of the export's files, each a link."""
    folder = f"{run}/{manifest.folder}"
    rows = [
        f"| {store_link(f'{folder}/{entry.name}')} | {entry.num_bytes:,} | `{entry.sha256[:12]}` |"
        for entry in manifest.files
    ]
    return "\n".join(
        [f"## `{folder}`", "", "| file | bytes | sha256 |", "|---|---:|---|", *rows, ""]
    )


def folder_step(run: str, out: Path, *, checkpoint: str, merge: str) -> None:
    """The export is in the folder `out`; nothing of the run is changed. Prints its folders."""
    with step_log("export_adapter") as log:
        asked = export_spec(checkpoint, merge)
        from components.export_adapter.to_folder import export_to  # torch and peft, 4 s

        for folder in export_to(run, out, asked, log):
            log.info("exported", folder=str(folder))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.export_adapter", description=__doc__
    )
    parser.add_argument(
        "--run",
        metavar="URI",
        required=True,
        help="the run's folder; its training must be finished",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="export into this new folder instead of the run's own",
    )
    parser.add_argument(
        "--checkpoint", default="last", help="with --out: last, best, or an epoch's number"
    )
    parser.add_argument(
        "--merge",
        choices=("auto", "true", "false"),
        default="auto",
        help="with --out: as export.merge",
    )
    asked = parser.parse_args()
    if asked.out is None:
        run_step(asked.run)
    else:
        folder_step(asked.run, asked.out, checkpoint=asked.checkpoint, merge=asked.merge)


def export_spec(checkpoint: str, merge: str) -> ExportSpec:
    """Raises SpecError for a checkpoint that is none."""
    if checkpoint not in ("last", "best") and not (
        checkpoint.isascii() and checkpoint.isdigit() and 1 <= int(checkpoint) <= 1000
    ):
        raise SpecError(
            f"--checkpoint: got {shown(checkpoint)}, must be last, best or the number of an epoch"
        )
    merges = {"auto": "auto", "true": True, "false": False}[merge]
    return ExportSpec.model_validate(
        {"checkpoint": int(checkpoint) if checkpoint.isdigit() else checkpoint, "merge": merges}
    )


if __name__ == "__main__":
    main()
