"""The program that runs the pipeline on this machine through kfp.local: `python -m
pipelines.local.program SPEC_JSON [UID]`.

With a UID the steps run in their images as that user, else as processes. It is a process of its own
because kfp.local prints, and replaces `print`, in the process that it runs in.
"""

import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from components.shared.processes import end_with_parent, left_by_signal


def main() -> None:
    """Every step of the pipeline ran. Exit code 1 when one failed; the step itself has said why."""
    end_with_parent()
    # kfp.local says that it ignores images, which is what is wanted of it here.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*no effect.*", category=UserWarning)
    from kfp import local

    from pipelines.finetune.pipeline import finetune

    tree = json.loads(Path(sys.argv[1]).read_text())
    # The small artifacts that KFP keeps; what counts is in the run's store.
    in_containers = len(sys.argv) > 2
    if not in_containers:
        _outlive_steps()
    stop = left_by_signal(
        ending="pipeline: its container is being removed",
        left="pipeline: its container may still run; look for it by `docker ps`",
    )
    with (
        stop if in_containers else nullcontext(),
        tempfile.TemporaryDirectory(prefix="hagane-kfp-", ignore_cleanup_errors=True) as folder,
    ):
        artifacts = Path(folder, "artifacts")
        artifacts.mkdir()
        if in_containers:
            steps = _containers(tree, int(sys.argv[2]), artifacts)
        else:
            steps = nullcontext(local.SubprocessRunner(use_venv=False))
        with steps as runner:
            local.init(runner=runner, pipeline_root=str(artifacts))
            _try_once(finetune.pipeline_spec)  # pyright: ignore[reportFunctionMemberAccess] - @dsl.pipeline makes it a component
            own_nothing(finetune.pipeline_spec)  # pyright: ignore[reportFunctionMemberAccess]
            try:
                finetune(spec=tree)
            except RuntimeError as error:
                sys.exit(f"pipeline failed: {error}")


def _try_once(pipeline: Any) -> None:
    """No step is tried again: kfp.local would wait half a minute and more in front of a person, who
    can see what there is to fix."""
    for dag in [pipeline.root.dag, *(component.dag for component in pipeline.components.values())]:
        for task in dag.tasks.values():
            task.ClearField("retry_policy")


def own_nothing(pipeline: Any) -> None:
    """A job in a cluster gets no owner: the id that kfp.local makes up is another at the next
    `hagane run`, which may end the job too."""
    launch = pipeline.components["comp-exit-handler-1"].dag.tasks["launch-training"]
    launch.inputs.parameters["kfp_run"].runtime_value.constant.string_value = ""


@contextmanager
def _containers(tree: dict[str, Any], uid: int, artifacts: Path) -> Iterator[Any]:
    """KFP's runner for containers; none of them is left after the block."""
    from kfp import local
    from kfp.local import docker_task_handler

    from components.shared.job.images import read_images
    from components.shared.job.training_job import FOLDER_VARIABLE
    from components.shared.spec.file import parse_spec
    from pipelines.local.containers import container_settings
    from pipelines.local.training_jobs import training_jobs_served

    settings = container_settings(parse_spec(tree), uid=uid)
    jobs = artifacts / "training-jobs"
    jobs.mkdir()
    for shared in (
        artifacts,
        jobs,
    ):  # whatever uid writes there; the folder around them is this user's alone
        shared.chmod(0o777)
    arguments = settings.run_arguments()
    arguments["environment"] = arguments["environment"] | {FOLDER_VARIABLE: str(jobs)}
    # KFP's command stands in place of the image's entry point, as in a cluster; `env` runs what it
    # is given.
    docker_task_handler.run_docker_container = _run_container
    with training_jobs_served(jobs, settings, read_images().of("train")):
        yield local.DockerRunner(entrypoint=["/usr/bin/env"], **arguments)


def _run_container(
    *, client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any
) -> int:
    """In place of kfp 2.17's own, which has the engine remove a container as it ends, and takes one
    that it then cannot find for one that succeeded: a failed step became a finished one in two of
    two tries (docker_task_handler.py, last lines)."""
    from pipelines.local.containers import run_container

    return run_container(
        client,
        image,
        command,
        arguments | {"volumes": volumes},
        write=lambda text: print(text, end=""),
    )


def _outlive_steps() -> None:
    """SIGTERM, which the whole process group gets, ends the steps; this process reads what they say
    until then.

    When it comes because the parent is gone, the group has not got it yet.
    """
    parent = os.getppid()

    def pass_on(number: int, frame: FrameType | None) -> None:
        signal.signal(
            signal.SIGTERM, lambda *_: None
        )  # not SIG_IGN: the steps' programs would inherit that
        if os.getppid() != parent:
            os.killpg(0, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)


if __name__ == "__main__":
    main()
