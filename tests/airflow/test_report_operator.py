"""PgBackupReportOperator: the mail that it sends, and what happens when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import get_current_context
from honest import write_backup
from sinks import mail_sink

from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

EXAMPLE = Path(__file__).parents[2] / "dags" / "backup_report.py"
NOW = datetime.now(timezone.utc).replace(microsecond=0)


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with mail_sink() as sink:
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": sink.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield sink


@pytest.fixture
def filled(folder: Path) -> str:
    """The URI of a repository with a good and a failed series."""
    repository = open_repository(folder.as_uri())
    write_backup(repository, Series("prod", "app"), NOW - timedelta(hours=1), looks=["archive-pass"])
    write_backup(repository, Series("prod", "lost"), NOW - timedelta(hours=1), looks=["archive-fail"])
    return folder.as_uri()


def test_the_example(run_dag: Callable[..., Any], mail: Any, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBACKUP_REMOTE", filled)
    monkeypatch.setenv("PGBACKUP_REPORT_TO", "dba@example.com")
    run = run_dag(EXAMPLE)
    assert run.state == "success", run.output
    (sent,) = mail.mails
    assert sent["Subject"] == "PostgreSQL backups: 1 in danger"
    assert sent["To"] == "dba@example.com"
    html = sent.get_body(("html",)).get_content()
    assert "1 of 2 databases can be restored to a point less than 26 h old; 1 cannot: prod/lost" in html
    (picture,) = [part for part in sent.walk() if part.get_filename() == "backups.png"]
    assert picture.get_payload(decode=True).startswith(b"\x89PNG")
    assert "1 of 2 databases can be restored" in run.output


def test_the_subject_for_an_empty_repository(
    run_dag: Callable[..., Any], mail: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__PGBACKUP__TEMP_DIR", "/nowhere")  # without a picture, nothing is written
    open_repository(folder.as_uri()).init()
    run = run_dag(
        f"""
        from airflow_pgbackup.operators.report import PgBackupReportOperator
        PgBackupReportOperator(task_id="report", repositories=[{folder.as_uri()!r}], to=["dba@example.com"])
        """
    )
    assert run.state == "success", run.output
    (sent,) = mail.mails
    assert sent["Subject"] == "PostgreSQL backups: no backup"


def test_the_subject_beside_an_empty_repository(
    run_dag: Callable[..., Any], mail: Any, folder: Path, tmp_path: Path
) -> None:
    write_backup(open_repository(folder.as_uri()), Series("prod", "app"), NOW - timedelta(hours=1))
    wiped = open_repository((tmp_path / "wiped").as_uri())
    wiped.init()
    run = run_dag(
        f"""
        from airflow_pgbackup.operators.report import PgBackupReportOperator
        PgBackupReportOperator(
            task_id="report", repositories=[{folder.as_uri()!r}, {wiped.uri!r}], to=["dba@example.com"]
        )
        """
    )
    assert run.results["report"]["empty"] == [wiped.uri]
    (sent,) = mail.mails
    assert sent["Subject"] == "PostgreSQL backups: 1 repository without a backup"


def test_without_addresses_nothing_is_sent_and_a_lost_repository_is_reported(
    run_dag: Callable[..., Any], mail: Any, filled: str
) -> None:
    repositories = [f"{{{{ '{filled}' }}}}", "file:///nowhere"]
    run = run_dag(
        f"""
        from airflow_pgbackup.operators.report import PgBackupReportOperator
        PgBackupReportOperator(task_id="report", repositories={repositories!r}, days="{{{{ 30 }}}}")
        """
    )
    assert run.state == "success", run.output
    assert mail.mails == []
    assert "1 of 2 repositories could not be read." in run.output


def test_nothing_is_sent_after_a_kill(
    run_dag: Callable[..., Any], mail: Any, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(_: object) -> bytes:
        get_current_context()["task"].on_kill()
        return b""

    monkeypatch.setattr("airflow_pgbackup.backup.report.plot.plot", kill)
    monkeypatch.setenv("AIRFLOW__PGBACKUP__TEMP_DIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    run = run_dag(
        f"""
        from airflow_pgbackup.operators.report import PgBackupReportOperator
        PgBackupReportOperator(task_id="report", repositories=[{filled!r}], to=["a@example.com"], picture=True)
        """
    )
    assert run.state == "failed"
    assert "stopped: the task was asked to stop" in run.failure
    assert mail.mails == []
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"to": ["a@example.com"], "smtp_conn_id": "nowhere"}, "cannot mail the report by connection nowhere"),
        ({"days": "soon"}, "invalid days 'soon'"),
        ({"days": 0}, "invalid days 0"),
        ({"level": "certain"}, "invalid level 'certain'"),
        ({"to": "a@example.com"}, "invalid to 'a@example.com'"),
        ({"repositories": []}, "no repository given"),
        ({"max_age": 26}, "invalid max_age 26"),
    ],
)
def test_what_fails(
    run_dag: Callable[..., Any], filled: str, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], says: str
) -> None:
    closed = {"conn_type": "smtp", "host": "127.0.0.1", "port": 1, "extra": {"disable_ssl": True, "retry_limit": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(closed))
    given = {"repositories": [filled], **arguments}
    run = run_dag(
        f"""
        from airflow_pgbackup.operators.report import PgBackupReportOperator
        PgBackupReportOperator(task_id="report", **{given!r})
        """
    )
    assert run.state == "failed"
    assert says in run.output
