"""The second start comes at twenty moments of the first, from its first call of the store to its last: with another spec, one stops and
stores nothing; with the same, one stops, or finds finished what the other did. `-rP` prints the table."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.s3_server import S3Server
from tests.support.two_starts import KINDS, TwoStarts, check, check_same

MOMENTS = 20


def print_table(title: str, rows: list[str]) -> None:
    """Behind all that the starts have logged."""
    print("\n".join(["", title, *rows]))


def stores_of(kind: str, s3: S3Server, folder: Path) -> Iterator[str]:
    """New stores without end."""
    return (s3.fresh_uri() if kind == "s3" else str(folder / f"store-{number}") for number in count())


def moments(calls: int) -> Iterator[int]:
    """Numbers of MOMENTS calls, the first and the last among them."""
    return (1 + moment * (calls - 1) // (MOMENTS - 1) for moment in range(MOMENTS))


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_at_twenty_moments_one_start_goes_on_and_nothing_of_the_other_is_stored(
    first: str, second: str, kind: str, s3_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, fresh = TwoStarts(tmp_path, monkeypatch), stores_of(kind, s3_env, tmp_path)
    calls = two.num_calls(first, next(fresh))
    rows: list[str] = []
    for call, store in zip(moments(calls), fresh, strict=False):
        starts = two.at(call, first=first, second=second, store=store)
        refused = check(starts, store)
        line = next(start.refused[0] for start in starts if start.refused)
        rows.append(f"  before call {call:3}: {refused:6} refused: {line.replace(store, '<store>')[:110]}")
    assert len(rows) == MOMENTS
    print_table(f"{kind}, two specs: first {first}, second {second}; {calls} calls of the store", rows)


@pytest.mark.parametrize("kind", ["local", "s3"])
@pytest.mark.parametrize(("first", "second"), [("laptop", "laptop"), ("kfp", "kfp"), ("laptop", "kfp")])
def test_of_two_starts_with_the_same_spec_one_works_at_a_time(
    first: str, second: str, kind: str, s3_env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But two runs of Kubeflow Pipelines, whose steps find each other's results."""
    two, fresh = TwoStarts(tmp_path, monkeypatch), stores_of(kind, s3_env, tmp_path)
    calls = two.num_calls(first, next(fresh))
    rows: list[str] = []
    for call, store in zip(moments(calls), fresh, strict=False):
        starts = two.at(call, first=first, second=second, store=store, same_spec=True)
        refused = check_same(starts, store)
        line = next((f": {start.refused[0]}" for start in starts if start.refused), "")
        rows.append(f"  before call {call:3}: {refused:6} refused{line.replace(store, '<store>')[:110]}")
    assert len(rows) == MOMENTS
    print_table(f"{kind}, the same spec: first {first}, second {second}; {calls} calls of the store", rows)
