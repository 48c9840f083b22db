"""The pipeline -> KFP YAML, the same bytes every time, and the version that stands for them."""

import hashlib
import tempfile
from pathlib import Path

import yaml
from kfp import compiler

from pipelines.finetune import finetune


def compile_pipeline(target: Path) -> str:
    """The pipeline's IR is at `target`. KFP's header comment, whose order of inputs is not stable, is left out.

    Returns its version: 12 hex digits of the sha256 of its bytes, so that another image, step or default is another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(finetune, str(raw))  # pyright: ignore[reportArgumentType] - @dsl.pipeline makes it a component
        documents = list(yaml.safe_load_all(raw.read_text()))
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".new-{target.name}")
    content = yaml.safe_dump_all(documents, sort_keys=True, width=120).encode()
    beside.write_bytes(content)
    beside.rename(target)
    return hashlib.sha256(content).hexdigest()[:12]
