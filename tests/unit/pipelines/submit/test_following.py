from datetime import UTC, datetime

import pytest

from components.shared.documents.progress import TrainingProgress
from pipelines.kfp_api.run_view import StepView
from pipelines.submit.following import is_of_an_earlier_try

STEP = StepView("launch_training", "running", datetime(2026, 11, 30, 7, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("at", "is_earlier"),
    [("2026-11-30T06:59:59+00:00", True), ("2026-11-30T07:00:01+00:00", False)],
)
def test_progress_of_an_earlier_try_is_known_by_its_time(at: str, is_earlier: bool) -> None:
    progress = TrainingProgress(
        job="tiny", namespace="team", phase="running", detail="", restarts=3, at=at
    )
    assert is_of_an_earlier_try(progress, STEP) is is_earlier
