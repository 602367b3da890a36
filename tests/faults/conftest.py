"""Says at the end of the run how many faults there were, and what was lost in them."""

import pytest

from tests.faults.ledger import TOLD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix's counts, and what other tests have told."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "tests/faults/" in report.nodeid
    ]
    cases = [report for report in reports if "test_matrix.py" in report.nodeid]
    if cases:
        lost = [value for report in cases for name, value in report.user_properties if name == "lost"]
        passed = sum(report.passed for report in cases)
        terminalreporter.write_line(
            f"faults: {len(cases)} cases, {passed} passed, {sum(lost)} acknowledged images lost"
        )
    for report in reports:
        for told in (value for name, value in report.user_properties if name == TOLD):
            terminalreporter.write_line(f"faults: {told}, {report.outcome}")
