from datetime import UTC, datetime

import pytest

from pipelines.kfp_api.run_view import StepView
from pipelines.submit.following import is_of_an_earlier_try

STEP = StepView("launch_training", "running", datetime(2026, 11, 30, 7, 0, tzinfo=UTC))


@pytest.mark.parametrize(("progress", "is_earlier"), [
    ({"at": "2026-11-30T06:59:59+00:00", "restarts": 3}, True),
    ({"at": "2026-11-30T07:00:01+00:00"}, False),
    ({"phase": "running"}, False),
])  # fmt: skip
def test_progress_of_an_earlier_try_is_known_by_its_time(progress: dict[str, object], is_earlier: bool) -> None:
    assert is_of_an_earlier_try(progress, STEP) is is_earlier
