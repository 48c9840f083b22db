"""The pipeline -> KFP YAML, the same bytes every time."""

import tempfile
from pathlib import Path

import yaml
from kfp import compiler

from pipelines.finetune import finetune


def compile_pipeline(target: Path) -> None:
    """The pipeline's IR is at `target`. KFP's header comment, whose order of inputs is not stable, is left out."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(finetune, str(raw))  # pyright: ignore[reportArgumentType] - @dsl.pipeline makes it a component
        documents = list(yaml.safe_load_all(raw.read_text()))
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".new-{target.name}")
    beside.write_text(yaml.safe_dump_all(documents, sort_keys=True, width=120))
    beside.rename(target)
