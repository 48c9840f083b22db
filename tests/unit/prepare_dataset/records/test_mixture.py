from collections import Counter
from typing import Any

import pytest

from components.prepare_dataset.records.mixture import mixed, source_uses
from components.prepare_dataset.records.records import RecordFile
from components.shared.spec.data import DataSpec
from tests.unit.prepare_dataset.conftest import conversation, kept


def _counts(*sizes: int, letters: int = 1, sources: list[dict[str, Any]]) -> list[int]:
    """How often conversations of each source are in the mixture; those of the last source have
    `letters` times the text."""
    talks = [
        conversation(
            f"q{source} {number} " + "x" * 90 * (letters if source == len(sizes) - 1 else 1), "a"
        )
        for source, size in enumerate(sizes)
        for number in range(size)
    ]
    everything = kept(*talks)
    files, start = [], 0
    for size in sizes:
        files.append(RecordFile(everything.of(range(start, start + size)), ""))
        start += size
    spec = DataSpec(train=[{"path": "p", **source} for source in sources])  # pyright: ignore[reportArgumentType]
    found = mixed(everything, files, spec.train_sources)
    counts = Counter(talk.messages[0].content[1] for talk in found)
    return [counts[str(source)] for source in range(len(sizes))]


def test_repeat_gives_whole_copies_and_a_part_by_hash() -> None:
    whole, half, more = _counts(
        400, 400, 400, sources=[{"repeat": 2}, {"repeat": 0.5}, {"repeat": 1.25}]
    )
    assert whole == 800
    assert half == pytest.approx(200, abs=40)
    assert more == pytest.approx(500, abs=35)


def test_weights_are_shares_of_the_text_and_repeat_nothing() -> None:
    assert _counts(100, 1000, sources=[{"weight": 1}, {"weight": 3}]) == [
        100,
        pytest.approx(300, abs=45),
    ]
    assert _counts(100, 1000, letters=3, sources=[{"weight": 0.5}, {"weight": 0.5}]) == [
        100,
        pytest.approx(34, abs=18),
    ]
    assert _counts(100, 1000, sources=[{"weight": 1, "repeat": 5}, {"weight": 1}]) == [
        500,
        pytest.approx(500, abs=45),
    ]


def test_people_are_shown_how_much_of_each_source_is_trained_on() -> None:
    everything = kept(*(conversation(f"q{number}", "a") for number in range(5)))
    files = [RecordFile(everything.of(range(2)), ""), RecordFile(everything.of(range(2, 5)), "")]
    sources = DataSpec(train=({"path": "a"}, {"path": "b", "repeat": 2})).train_sources  # pyright: ignore[reportArgumentType]
    found = source_uses(mixed(everything, files, sources), files, sources)
    assert found == (
        "a: 2 records in an epoch, 2 were read",
        "b: 6 records in an epoch, 3 were read",
    )
    assert source_uses(everything, [RecordFile(everything, "")], sources[:1]) == ()


def test_the_same_part_is_taken_whatever_else_is_there() -> None:
    talks = [conversation(f"q{number}", "a") for number in range(50)]
    spec = DataSpec(train=({"path": "p", "repeat": 0.3},))  # pyright: ignore[reportArgumentType]

    def chosen(count: int) -> set[str]:
        everything = kept(*talks[:count])
        return {
            talk.messages[0].content
            for talk in mixed(everything, [RecordFile(everything, "")], spec.train_sources)
        }

    assert chosen(30) == chosen(50) & {f"q{number}" for number in range(30)}
