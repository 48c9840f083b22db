"""The program that runs the pipeline on this machine through kfp.local: `python -m pipelines.local_run SPEC_JSON`.

It is a process of its own because kfp.local prints, and replaces `print`, in the process that it runs in.
"""

import json
import os
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from types import FrameType

from components.shared.processes import end_with_parent


def main() -> None:
    """Every step of the pipeline ran. Exit code 1 when one failed; the step itself has said why."""
    end_with_parent()
    _outlive_steps()
    # kfp.local says that it ignores images, which is what is wanted of it here.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from kfp import local

    from pipelines.finetune import finetune

    spec = json.loads(Path(sys.argv[1]).read_text())
    # The small artifacts that KFP keeps; what counts is in the run's store.
    with tempfile.TemporaryDirectory(prefix="hagane-kfp-") as artifacts:
        local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=artifacts)
        try:
            finetune(spec=spec)
        except RuntimeError as error:
            sys.exit(f"pipeline failed: {error}")


def _outlive_steps() -> None:
    """SIGTERM, which the whole process group gets, ends the steps; this process reads what they say until then.

    When it comes because the parent is gone, the group has not got it yet.
    """
    parent = os.getppid()

    def pass_on(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # not SIG_IGN: the steps' programs would inherit that
        if os.getppid() != parent:
            os.killpg(0, signal.SIGTERM)

    signal.signal(signal.SIGTERM, pass_on)


if __name__ == "__main__":
    main()
