import threading
from pathlib import Path

import pytest

from components.train.checkpoints.writer import LocalWriter


def test_writes_are_made_in_order_while_the_caller_goes_on(tmp_path: Path) -> None:
    go, done, writer = threading.Event(), [], LocalWriter()
    writer.begin([lambda: (go.wait(10), done.append(1))[1], lambda: done.append(2)], then=lambda: done.append(3), failed=done.append)
    assert done == []
    go.set()
    writer.wait()
    assert done == [1, 2, 3]


def test_the_first_error_ends_the_list_and_is_handed_on(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    done: list[int] = []
    writer = LocalWriter()
    missing = tmp_path / "nowhere" / "file"
    writer.begin([lambda: missing.write_bytes(b"x") and None, lambda: done.append(1)], then=lambda: done.append(2), failed=errors.append)
    writer.wait()
    assert done == []
    assert isinstance(errors[0], FileNotFoundError)


def test_a_step_waits_for_the_writes_but_not_for_what_comes_after_them() -> None:
    go, handed_on, writer = threading.Event(), threading.Event(), LocalWriter()
    ended: list[bool] = []
    writer.begin([lambda: None], then=lambda: (handed_on.set(), ended.append(go.wait(60)), None)[2], failed=lambda _: None)
    assert handed_on.wait(10)
    writer.wait_written()
    assert ended == []
    go.set()
    writer.wait()
    assert ended == [True]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [MemoryError(), ValueError("no uploader")])
@pytest.mark.parametrize("where", ["write", "then"])
def test_no_error_is_silent_wherever_it_happens(where: str, error: Exception) -> None:
    def fail() -> None:
        raise error

    errors: list[BaseException] = []
    writer = LocalWriter()
    writer.begin([fail] if where == "write" else [], then=fail, failed=errors.append)
    writer.wait()
    assert errors == [error]


def test_an_uploader_that_cannot_be_started_is_told() -> None:
    def fail() -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    errors: list[BaseException] = []
    writer = LocalWriter()
    writer.begin([], then=fail, failed=errors.append)
    writer.wait()
    assert isinstance(errors[0], BlockingIOError)
