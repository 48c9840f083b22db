"""`hagane reap`: jobs that nobody follows, deleted by the component's program, a line each."""

from collections.abc import Iterator

from components.shared.events import event_of
from pipelines.programs.component_program import output_of

WORDS = {
    "reaped": "deleted job {job} of {run}: {why}",
    "would_reap": "would delete job {job} of {run}: {why}",
    "left_running": "left job {job} of {run} running: {why}",
    "nothing_to_reap": "nothing deleted: {why}",
    "looked_at": "{jobs} jobs of hagane in namespace {namespace}",
}


def reaped(arguments: list[str]) -> Iterator[str]:
    """What became of each job. Raises HaganeError when cluster or store refuse it."""
    for event in map(
        event_of, output_of("components.launch_training.reap", *arguments).splitlines()
    ):
        if event is not None and event["event"] in WORDS:
            yield WORDS[event["event"]].format(**event)
