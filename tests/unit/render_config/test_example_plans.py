"""Every spec of specs/plans, planned from a config alone."""

from tests.support.example_plans import ROOT, SPECS, document


def test_the_plans_of_all_examples_are_as_their_golden_file_argues() -> None:
    assert len(SPECS) >= 12
    assert document() == (ROOT / "tests" / "golden" / "plans.md").read_text(encoding="utf-8")
