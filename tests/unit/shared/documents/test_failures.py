"""A failure that is written is read again in the pipeline's order, and holds no secret."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.shared.documents.failures import (
    NUM_LOG_LINES,
    StepFailure,
    failure_of,
    read_failures,
    withdraw_failure,
    write_failure,
)
from components.shared.errors import SpecError
from components.shared.store.storage import LocalStore, Store

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "run")


def failure(step: str) -> StepFailure:
    return failure_of(step, SpecError(f"{step}: got 1, must be 2"), [], at=NOW)


def test_failures_are_read_in_the_pipelines_order(store: Store) -> None:
    for step in ("evaluate", "claim_run", "launch_training"):
        write_failure(store, failure(step))
    steps = [each.step for each in read_failures(store)]
    assert steps == ["claim_run", "launch_training", "evaluate"]


def test_a_step_takes_back_its_own_failure_alone(store: Store) -> None:
    for step in ("claim_run", "evaluate"):
        write_failure(store, failure(step))
    withdraw_failure(store, "claim_run")
    withdraw_failure(store, "claim_run")
    assert read_failures(store) == (failure("evaluate"),)


def test_a_run_without_failures_and_a_damaged_one_are_no_error(store: Store) -> None:
    assert read_failures(store) == ()
    store.write_bytes("failures/evaluate.json", b"{half")
    assert read_failures(store) == ()


@pytest.mark.parametrize(
    ("problem", "hint"),
    [
        ("lora.rank: got 0, must be 1 or more", ""),
        ("store: no bucket 'a'; create it", "create it"),
        ("a: found 1, allowed 2. Fix: set it; then run", "set it; then run"),
    ],
)
def test_the_hint_is_what_the_message_proposes(problem: str, hint: str) -> None:
    made = failure_of("evaluate", SpecError(problem), ["event=begun"], at=NOW, kfp_run="1-2")
    assert (made.message, made.hint, made.kfp_run) == (problem, hint, "1-2")
    assert made.log_tail == ("event=begun",)


def test_a_crash_has_the_end_of_its_traceback() -> None:
    made = failure_of("evaluate", KeyError("rows"), [f"line {i}" for i in range(100)], at=NOW)
    assert made.message == "crashed: KeyError: 'rows'"
    assert made.log_tail[-1] == "KeyError: 'rows'"
    assert len(made.log_tail) == NUM_LOG_LINES


def test_no_secret_is_in_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("HAGANE_NOTIFY_URL", "https://hooks.example.com/T000/B000")
    told = "wJalrXUtnFEMI https://hooks.example.com/T000/B000 s3://me:pass@bucket/a?X-Amz-Signature=ab"
    made = failure_of("evaluate", RuntimeError(told), [told], at=NOW)
    for text in (made.message, *made.log_tail):
        assert not any(secret in text for secret in ("wJalr", "B000", "pass@", "Signature=ab"))
