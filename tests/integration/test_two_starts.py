"""Two starts of one name with different specs, a few moments of each kind; tests/crash/test_two_starts.py has twenty."""

from pathlib import Path

import pytest

from tests.support.two_starts import KINDS, SECOND, TwoStarts, check


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_the_second_start_of_a_name_with_another_spec_stops_and_stores_nothing(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = TwoStarts(tmp_path, monkeypatch)
    calls = two.num_calls(first, str(tmp_path / "undisturbed"))
    for number, call in enumerate((calls // 4, calls // 2)):
        store = str(tmp_path / f"store-{number}")
        assert check(two.at(call, first=first, second=second, store=store), store) == SECOND


@pytest.mark.parametrize("first", KINDS)
def test_it_does_on_s3(first: str, s3_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = TwoStarts(tmp_path, monkeypatch)
    calls = two.num_calls(first, s3_env.fresh_uri())
    store = s3_env.fresh_uri()
    assert check(two.at(calls // 2, first=first, second="kfp", store=store), store) == SECOND
