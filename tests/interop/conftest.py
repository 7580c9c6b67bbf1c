"""Shows the interop matrix at the end of a run, also of one whose output is captured."""

from __future__ import annotations

import pytest

import interop_matrix

CELL_TEST = "test_matrix.py::test_cell["


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the matrix, if any of its cells were run, and the time that it took in all."""
    reports = [
        report
        for group in terminalreporter.stats.values()
        for report in group
        if isinstance(report, pytest.TestReport) and "test_matrix.py::" in report.nodeid
    ]
    results: dict[str, bool] = {}
    for report in reports:
        if CELL_TEST in report.nodeid and not report.skipped:
            cell = report.nodeid.partition("[")[2].removesuffix("]")
            results[cell] = results.get(cell, True) and report.passed
    if not results:
        return
    terminalreporter.section("interop matrix: gre-xdp and a stock Linux kernel")
    terminalreporter.write_line(interop_matrix.to_markdown(results))
    terminalreporter.write_line(
        f"{sum(results.values())} of {len(interop_matrix.CELLS)} cells are ok, in"
        f" {sum(report.duration for report in reports):.0f} s with the kernel's boot."
    )
