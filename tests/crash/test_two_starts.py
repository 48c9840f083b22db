"""The second start with another spec comes at twenty moments of the first, from its first call of the store to its last."""

from pathlib import Path

import pytest

from tests.two_starts import KINDS, TwoStarts, check

MOMENTS = 20


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
    print(f"\n{kind}: first {first}, second {second}; {calls} calls of the store")
    for moment in range(MOMENTS):
        call = 1 + moment * (calls - 1) // (MOMENTS - 1)
        store = fresh(moment)
        starts = two.at(call, first=first, second=second, store=store)
        refused = check(starts, store)
        line = next(start.refused[0] for start in starts if start.refused)
        print(f"  before call {call:3}: {refused:6} refused: {line.replace(store, '<store>')[:110]}")
