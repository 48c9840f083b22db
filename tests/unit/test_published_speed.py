"""The plan's time of a step beside runs that others published."""

import statistics

from benchmarks.published_speed import WIDEST, comparisons, summary
from components.render_config.cost.timing import SOURCE


def test_the_range_says_how_many_published_runs_lie_in_it() -> None:
    compared = list(comparisons())
    inside = sum(each.is_in_range for each in compared)
    assert f"{inside} of the {len(compared)} published runs" in SOURCE
    assert inside >= 0.9 * len(compared)


def test_no_published_run_is_off_by_more_than_half() -> None:
    assert all(0.5 < each.ratio < 1.5 for each in comparisons())


def test_planned_memory_is_near_what_published_runs_took() -> None:
    ratios = [each.memory_ratio for each in comparisons() if each.memory_ratio is not None]
    assert len(ratios) >= 30
    assert 0.93 < statistics.median(ratios) < 1.07
    assert sum(abs(each - 1) <= 0.1 for each in ratios) >= 0.8 * len(ratios)


def test_the_summary_counts_wide_ranges_apart() -> None:
    found = list(comparisons())
    narrow = [each for each in found if each.is_in_range and each.width <= WIDEST]
    assert f"{len(narrow)} in a range of at most 2x" in summary(found)[0]
    assert 0 < len(narrow) < len(found)
