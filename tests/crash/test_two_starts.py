"""The second start comes at twenty moments of the first, from its first call of the store to its last: with another spec, one stops and
stores nothing; with the same, one stops, or finds finished what the other did. `-rP` prints the table."""

from pathlib import Path

import pytest

from tests.two_starts import KINDS, TwoStarts, check, check_same

MOMENTS = 20


def print_table(title: str, rows: list[str]) -> None:
    """Behind all that the starts have logged."""
    print("\n".join(["", title, *rows]))


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_at_twenty_moments_one_start_goes_on_and_nothing_of_the_other_is_stored(
    first: str, second: str, kind: str, s3_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = TwoStarts(tmp_path, monkeypatch)

    def fresh(number: int) -> str:
        return s3_env.fresh_uri() if kind == "s3" else str(tmp_path / f"store-{number}")

    calls = two.num_calls(first, fresh(MOMENTS))
    rows: list[str] = []
    for moment in range(MOMENTS):
        call = 1 + moment * (calls - 1) // (MOMENTS - 1)
        store = fresh(moment)
        starts = two.at(call, first=first, second=second, store=store)
        refused = check(starts, store)
        line = next(start.refused[0] for start in starts if start.refused)
        rows.append(f"  before call {call:3}: {refused:6} refused: {line.replace(store, '<store>')[:110]}")
    print_table(f"{kind}, two specs: first {first}, second {second}; {calls} calls of the store", rows)


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize(("first", "second"), [("laptop", "laptop"), ("kfp", "kfp"), ("laptop", "kfp")])
def test_of_two_starts_with_the_same_spec_one_works_at_a_time(
    first: str, second: str, kind: str, s3_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But two runs of Kubeflow Pipelines, whose steps find each other's results."""
    two = TwoStarts(tmp_path, monkeypatch)

    def fresh(number: int) -> str:
        return s3_env.fresh_uri() if kind == "s3" else str(tmp_path / f"store-{number}")

    calls = two.num_calls(first, fresh(MOMENTS))
    rows: list[str] = []
    for moment in range(MOMENTS):
        call = 1 + moment * (calls - 1) // (MOMENTS - 1)
        store = fresh(moment)
        starts = two.at(call, first=first, second=second, store=store, same_spec=True)
        refused = check_same(starts, store)
        line = next((f": {start.refused[0]}" for start in starts if start.refused), "")
        rows.append(f"  before call {call:3}: {refused:6} refused{line.replace(store, '<store>')[:110]}")
    print_table(f"{kind}, the same spec: first {first}, second {second}; {calls} calls of the store", rows)
