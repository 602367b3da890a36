"""Counts the cases and what was lost in them, and says so at the end of the run."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix's counts."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "tests/faults/test_matrix.py" in report.nodeid
    ]
    if reports:
        lost = [value for report in reports for name, value in report.user_properties if name == "lost"]
        passed = sum(report.passed for report in reports)
        terminalreporter.write_line(
            f"faults: {len(reports)} cases, {passed} passed, {sum(lost)} acknowledged images lost"
        )
