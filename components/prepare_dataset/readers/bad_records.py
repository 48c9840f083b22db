"""What is wrong with records, each problem with the places that have it -> lines for people, and
whether to go on without them."""

from collections.abc import Iterable, Mapping

from components.shared.errors import DataError
from components.shared.figures import plural
from components.shared.spec.data import DataSpec

Problems = Mapping[str, list[str]]
"""Problem -> the places, `file:line`, of all records that have it."""

_SHOWN = 20


def first_bad_records(problems: list[str]) -> list[str]:
    """At most 20 of the problems, and one more line that counts the rest."""
    rest = len(problems) - _SHOWN
    if rest <= 0:
        return problems
    return [*problems[:_SHOWN], f"and {rest} more of {len(problems)} problems"]


def bad_record_lines(problems: Problems) -> list[str]:
    """One line a problem: the first place that has it, what it is, and how many others have it
    too."""
    lines: list[str] = []
    for problem, places in problems.items():
        if len(places) > 1:
            others = f" (the same in {plural(len(places) - 1, 'other')}, next {places[1]})"
        else:
            others = ""
        lines.append(f"{places[0]}: {problem}{others}")
    return lines


def joined(parts: Iterable[Problems]) -> dict[str, list[str]]:
    """The problems of all parts, equal ones as one."""
    found: dict[str, list[str]] = {}
    for part in parts:
        for problem, places in part.items():
            found.setdefault(problem, []).extend(places)
    return found


def num_skipped(problems: Problems) -> int:
    """Records that have a problem; one record may have several."""
    return len({place for places in problems.values() for place in places})


def refuse_bad(data: DataSpec, problems: Problems, *, num_records: int) -> None:
    """Raises DataError where records have problems and `data.on_bad_record` is `fail`, or where too
    many have some."""
    if not problems:
        return
    lines = first_bad_records(bad_record_lines(problems))
    if data.on_bad_record == "fail":
        raise DataError(*lines)
    count = num_skipped(problems)
    if count > data.max_bad_records:
        raise DataError(
            f"data.max_bad_records: {count} of {num_records} records are bad, allowed to skip: "
            f"{data.max_bad_records}. Fix: correct them, or raise the limit if the rest is worth "
            "training on",
            *lines,
        )


def skipped_cautions(problems: Problems) -> list[str]:
    """One line for all records that were skipped, and one for each kind of problem, at most 20."""
    if not problems:
        return []
    count = num_skipped(problems)
    if count == 1:
        noun = "record was"
    else:
        noun = "records were"
    return [
        f"{count} bad {noun} skipped (data.on_bad_record)",
        *(f"skipped: {line}" for line in first_bad_records(bad_record_lines(problems))),
    ]
