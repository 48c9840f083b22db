"""checkpoints/ -> adapter/ (LoRA) or model/ (full): what a run is for, proved to give the trained model's logits."""

from pathlib import Path

from components.shared.kfp_face import hand_over
from components.shared.links import store_link
from components.shared.manifest import Manifest
from components.shared.step import Log, run_argument, step_of_run


def run_step(run: str) -> Manifest:
    """The export is finished: adapter/ or model/, with a model card and the verification's numbers in it.

    Raises:
        StoreError: the training is not finished, or an object is damaged.
        RunFailed: the checkpoint is no sound adapter or model, or does not give the trained model's logits.
    """
    with step_of_run("export_adapter", run) as log:
        return _exported(run, log)


def kfp_step(run: str, *, spec_digest: str = "", manifest_path: str, where_path: str) -> str:
    """`run_step` for KFP, which has its manifest and, as Markdown, where the export is. Returns the manifest's digest."""
    with step_of_run("export_adapter", run, spec_digest=spec_digest) as log:
        manifest = _exported(run, log)
        Path(where_path).write_text(where_it_is(run.rstrip("/"), manifest), encoding="utf-8")
        return hand_over(manifest, run=run, manifest_path=manifest_path)


def _exported(run: str, log: Log) -> Manifest:
    from components.export_adapter.export import export_run  # torch costs 5 s that --help need not pay

    return export_run(run, log)


def where_it_is(run: str, manifest: Manifest) -> str:
    """A Markdown table of the export's files, each a link."""
    folder = f"{run}/{manifest.folder}"
    rows = [f"| {store_link(f'{folder}/{entry.name}')} | {entry.num_bytes:,} | `{entry.sha256[:12]}` |" for entry in manifest.files]
    return "\n".join([f"## `{folder}`", "", "| file | bytes | sha256 |", "|---|---:|---|", *rows, ""])


def main() -> None:
    run_step(run_argument("export_adapter", __doc__, must_be_finished="training"))


if __name__ == "__main__":
    main()
