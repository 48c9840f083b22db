"""The plan's time of a step beside runs that others published."""

from benchmarks.published_speed import comparisons
from components.render_config.cost.timing import SOURCE


def test_the_range_says_how_many_published_runs_lie_in_it() -> None:
    compared = list(comparisons())
    inside = sum(each.is_in_range for each in compared)
    assert f"{inside} of the {len(compared)} published runs" in SOURCE
    assert inside >= 0.9 * len(compared)


def test_no_published_run_is_off_by_more_than_half() -> None:
    assert all(0.5 < each.ratio < 1.5 for each in comparisons())
