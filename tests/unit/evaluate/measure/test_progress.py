import structlog
from structlog.testing import capture_logs

from components.evaluate.measure.progress import Progress


def test_progress_is_told_at_most_once_a_second_and_at_the_end():
    clock = iter([0.0, 0.4, 0.8, 1.2, 1.6])
    with capture_logs() as events:
        progress = Progress(total=4, log=structlog.get_logger(), now=lambda: next(clock))
        for _ in range(4):
            progress.advance()
    assert [(event["done"], event["total"], event["left_s"]) for event in events] == [(3, 4, 0.4), (4, 4, 0.0)]
