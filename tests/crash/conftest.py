"""What the kill tests add up to, at the end of the run."""

from collections import Counter

import pytest

KILLED = "killed"
"""The property under which a test records at how many points it killed a process, of which method's
training."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--least-kills",
        type=int,
        default=0,
        metavar="COUNT",
        help="fail when processes were killed at fewer points",
    )


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        exitstatus == 0
        and reporter is not None
        and _points(reporter, "passed").total() < _least(session.config)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    right, wrong = _points(terminalreporter, "passed"), _points(terminalreporter, "failed")
    if right or wrong:
        reported = ", ".join(
            f"{number} {method}" for method, number in sorted((right + wrong).items())
        )
        terminalreporter.section("kill points")
        terminalreporter.line(
            f"killed at {right.total() + wrong.total()} points ({reported}), of at least "
            f"{_least(config)}"
        )
        terminalreporter.line(
            f"no wrong resume and no committed epoch lost at {right.total()} of them; in tests "
            f"that found one: {wrong.total()}"
        )


def _least(config: pytest.Config) -> int:
    return int(config.getoption("--least-kills") or 0)


def _points(reporter: pytest.TerminalReporter, outcome: str) -> "Counter[str]":
    points: Counter[str] = Counter()
    for report in reporter.getreports(outcome):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == KILLED:
                method, num_points = value
                points[method] += num_points
    return points
