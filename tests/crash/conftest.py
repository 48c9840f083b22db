"""What the kill tests add up to, at the end of the run."""

from collections import Counter

import pytest

KILLED = "killed"
"""The property under which a test records at how many points it killed a process, of which method's training."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: dict[str, Counter[str]] = {"passed": Counter(), "failed": Counter()}
    for outcome, points in counts.items():
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties if report.when == "call" else ():
                if name == KILLED:
                    method, num_points = value
                    points[method] += num_points
    right, wrong = counts["passed"], counts["failed"]
    if right or wrong:
        told = ", ".join(f"{number} {method}" for method, number in sorted((right + wrong).items()))
        terminalreporter.section("kill points")
        terminalreporter.line(f"killed at {right.total() + wrong.total()} points ({told})")
        terminalreporter.line(
            f"no wrong resume and no committed epoch lost at {right.total()} of them; in tests that found one: {wrong.total()}"
        )
