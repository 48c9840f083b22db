"""The pipeline -> KFP YAML, the same bytes every time, and the version that stands for them."""

import ast
import tempfile
from pathlib import Path

import yaml
from kfp import compiler

from components.shared.job.training_job import write_whole
from pipelines.finetune.compiled import CompiledPipeline
from pipelines.finetune.pipeline import finetune


def compiled_pipeline() -> CompiledPipeline:
    """The pipeline as this code has it, with the images of images/images.yaml or `$HAGANE_IMAGES`."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(finetune, str(raw))  # pyright: ignore[reportArgumentType] - @dsl.pipeline makes it a component
        documents = tuple(yaml.safe_load_all(raw.read_text()))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        command = executor.get("container", {}).get("command", [])
        if any("ephemeral_component" in part for part in command[:-1]):
            command[-1] = _without_comments(command[-1])
    return CompiledPipeline(documents)


def _without_comments(source: str) -> str:
    """A component's source as KFP ships it, without comments and with one spelling of its lines: another comment is no other version."""
    return f"\n{ast.unparse(ast.parse(source))}\n\n"


def compile_pipeline(target: Path) -> str:
    """The pipeline's IR is at `target`. Returns its version."""
    made = compiled_pipeline()
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, made.content.decode())
    return made.version
