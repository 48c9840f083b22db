"""Does lm_eval, where this program runs, know the tasks that a spec asks for? Asked before a run is
paid for.

python -m components.evaluate.known_tasks --spec SPEC
"""

import argparse
from pathlib import Path

from components.evaluate.measure.tasks import check_tasks
from components.shared.spec.file import load_spec
from components.shared.step import step_log


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m components.evaluate.known_tasks", description=__doc__
    )
    parser.add_argument("--spec", metavar="FILE", type=Path, required=True, help="The run's spec.")
    file = parser.parse_args().spec
    with step_log("evaluate") as log:
        spec = load_spec(file)
        check_tasks(spec.evaluation.lm_eval)
        log.info("known_tasks", tasks=list(spec.evaluation.lm_eval.tasks))


if __name__ == "__main__":
    main()
