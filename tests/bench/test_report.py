"""The table for people and the file for programs."""

import json
from pathlib import Path

from tests.bench.report import Comparison, Goal, Report, Row, render, write

REPORT = Report(
    "jobs",
    [Row("submit", 1234.5, "jobs/s")],
    [Goal("submit", "at least 200 jobs/s", 1234.5, met=True), Goal("claim", "less than 1.3 times", 1.5, met=False)],
    [
        Comparison("upstream at once", "jobs/s", {"Nightdesk": 320.04, "Celery": 60}),
        Comparison("in flight", "calls", {"Nightdesk": 500}),
    ],
    ["One process each."],
)


def test_the_table_has_a_line_for_each_figure() -> None:
    assert render(REPORT).splitlines() == [
        "jobs",
        "  submit               1,234.500  jobs/s",
        "                     Nightdesk      Celery",
        "  upstream at once       320.0        60.0  jobs/s",
        "  in flight              500.0           -  calls",
        "  goals",
        "  submit               1,234.500  met: at least 200 jobs/s",
        "  claim                    1.500  MISSED: less than 1.3 times",
        "  * One process each.",
    ]


def test_a_report_may_be_nothing_but_rows() -> None:
    assert render(Report("start", REPORT.rows, [])).splitlines() == [
        "start",
        "  submit     1,234.500  jobs/s",
        "  goals",
    ]


def test_the_file_holds_what_the_table_shows(tmp_path: Path) -> None:
    written = json.loads(write(REPORT, tmp_path / "bench").read_text())

    assert written["rows"] == [{"name": "submit", "value": 1234.5, "unit": "jobs/s"}]
    assert written["comparisons"][0]["values"] == {"Nightdesk": 320.04, "Celery": 60}
    assert [goal["met"] for goal in written["goals"]] == [True, False]
