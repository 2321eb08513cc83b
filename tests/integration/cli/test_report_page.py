"""``ironbeat report --html``: the report as a page that needs nothing else."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg


def report(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "ironbeat"
    return subprocess.run(
        [str(program), "report", *arguments], capture_output=True, text=True, timeout=110
    )


def test_the_page_has_the_period_s_plots_and_failures_and_no_secret(settings, tmp_path):
    now = datetime.now(UTC)
    with psycopg.connect(settings.database_url.get_secret_value(), autocommit=True) as connection:
        for number in range(20):
            began = now - timedelta(hours=number)
            failed = number == 3
            connection.execute(
                "INSERT INTO ironbeat.run_history (id, created_at, task, queue, state, attempt,"
                " started_at, ended_at, error) VALUES (%s, %s, 'harvest', 'default', %s, 1, %s, %s,"
                " %s)",
                (
                    *(f"r{number}", began, "failed" if failed else "succeeded", began),
                    *(began + timedelta(seconds=2), "password=hunter2-abc <b>" if failed else None),
                ),
            )
    file = tmp_path / "report.html"
    done = report("--html", str(file))
    # No worker is there: the status says so, and the page is written all the same.
    assert done.returncode == 1, done.stderr
    text = file.read_text(encoding="utf-8")
    assert text.count('<rect class="succeeded"') >= 15 and '<rect class="failed"' in text
    assert 'class="run" d="M' in text
    assert "harvest" in text and "hunter2" not in text
    assert "&lt;b&gt;" in text and "<b>&lt;" not in text and "://" not in text


def test_a_file_that_cannot_be_written_is_an_error_that_says_so(settings, tmp_path):
    done = report("--html", str(tmp_path / "missing" / "report.html"))
    assert done.returncode == 2 and "cannot be written" in done.stderr
