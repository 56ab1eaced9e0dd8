"""Alerts: what real notifiers send to a mail server and a webhook when tasks and runs fail."""

from __future__ import annotations

import json
import re
import runpy
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from honest import write_backup
from live import SECONDS, LiveAirflow
from nights import NOW, fail, night
from sinks import chat_sink, mail_sink

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.sets.dump_set import dump_set
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.notifications import last_backup
from airflow_pgbackup.notifications.failure import FailureAlert, FailureMessage
from airflow_pgbackup.notifications.last_backup import LastBackup, last_backups
from airflow_pgbackup.notifications.targets import AlertScope, targets_of
from airflow_pgbackup.pipelines import pgbackup_dags
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.s3.options import S3Options

RunDag = Callable[..., Any]
EXAMPLE = Path(__file__).parents[2] / "dags" / "alert_on_failure.py"
FILM = ("CREATE TABLE film (id int)", "INSERT INTO film VALUES (1), (2)")
ALERTS = """
from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
from airflow_pgbackup.notifications.failure import FailureAlert
CHAT = FailureAlert(SlackWebhookNotifier(slack_webhook_conn_id="slack_default", text="{{ pgbackup.slack }}"))
"""
AGE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC, (\d+|under 1) min old")


@pytest.fixture(autouse=True)
def exception_in_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give callbacks the exception as a worker does: ``airflow dags test`` of Airflow 3.2 does not."""
    from airflow.sdk.execution_time import task_runner

    finalize: Any = task_runner.finalize

    def with_exception(ti: Any, state: Any, context: Any, log: Any, error: Any = None) -> None:
        finalize(ti, state, {**context, "exception": error}, log, error)

    monkeypatch.setattr(task_runner, "finalize", with_exception)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer to look up a backup."""
    monkeypatch.setattr(last_backup, "TIMEOUT", 240.0)


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with mail_sink() as sink:
        extra = {"disable_ssl": True, "disable_tls": True}
        connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": sink.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        yield sink


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with chat_sink() as sink:
        connection = {"conn_type": "slackwebhook", "host": sink.url, "password": "T0/B0/secret"}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
        yield sink


@pytest.fixture
def database(
    server18: PostgresServer, fresh_database: Callable[..., Any], postgres_connection: Callable[..., None]
) -> ConnectionParams:
    params = fresh_database(server18, None, *FILM)
    postgres_connection("db", params)
    assert isinstance(params, ConnectionParams)
    return params


def back_up(folder: Path, database: ConnectionParams, server: str, level: str | None = "archive") -> None:
    repository = open_repository(folder.as_uri())
    reference = dump_database(connection=database, server=server, repository=repository, options=DumpOptions())
    if level:
        verify(reference=reference, repository=repository, level=level)


def normal(text: str) -> str:
    """Return an alert with its times and run replaced."""
    return re.sub(r"run [^,)]+", "run RUN", AGE.sub("TIME", text))


def html_of(mail: EmailMessage) -> str:
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


def test_the_example_by_mail_and_slack(
    database: ConnectionParams,
    mail: Any,
    chat: Any,
    run_dag: RunDag,
    postgres_connection: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PGBACKUP_LOCAL", (tmp_path / "repository").as_uri())
    postgres_connection("dvdrental", database)
    first = run_dag(EXAMPLE, conf={"init": True})
    assert set(first.states.values()) == {"success"}, first.output
    assert (mail.mails, chat.messages) == ([], [])

    postgres_connection("dvdrental", database, port=1)
    run = run_dag(EXAMPLE)
    assert run.states["pg_backup.check"] == "failed"
    (received,) = mail.mails
    task, name = "alert_on_failure.pg_backup.check", database.dbname
    assert (received["To"], received["From"]) == ("dba@example.com", "airflow@example.com")
    assert re.fullmatch(rf"{task} failed: last verified backup (\d+|under 1) min old", received["Subject"])
    text = normal(html_of(received))
    assert text.startswith(f"<p><b>{task} failed</b> (run RUN, try 1)</p><p>cause: ")
    assert "Connection refused" in text
    assert "<p>hint: " in text
    assert f"<p>last verified backup of dvdrental/{name}: TIME, level archive</p>" in text
    (message,) = chat.messages
    lines = normal(message["text"]).splitlines()
    assert lines[0] == f"*{task} failed* (run RUN, try 1)"
    assert lines[1].startswith("cause: ")
    assert f"last verified backup of dvdrental/{name}: TIME, level archive" in lines
    password = database.get_password()
    assert password is None or password not in received.as_string() + json.dumps(message)


def test_a_series_without_a_verified_backup(
    database: ConnectionParams, folder: Path, chat: Any, run_dag: RunDag, postgres_connection: Callable[..., None]
) -> None:
    back_up(folder, database, "prod", level=None)
    postgres_connection("nowhere", database, port=1)
    run_dag(f"""
{ALERTS}
PgDumpOperator(task_id="dump", postgres_conn_id="nowhere", server="prod", repository={folder.as_uri()!r},
               on_failure_callback=CHAT)
""")
    (message,) = chat.messages
    assert f"there is no verified backup of prod/{database.dbname}" in message["text"].splitlines()


def test_a_repository_that_cannot_be_read(chat: Any, run_dag: RunDag, tmp_path: Path) -> None:
    reference = {"repository": (tmp_path / "missing").as_uri(), "repository_uuid": "x", "series": "prod/app", "id": "y"}
    run_dag(f"""
{ALERTS}
PgBackupVerifyOperator(task_id="verify", backup={reference!r}, on_failure_callback=CHAT)
""")
    (message,) = chat.messages
    (line,) = [line for line in message["text"].splitlines() if "last" in line]
    assert line.startswith("the last verified backup of prod/app could not be looked up: no repository at file://")


def test_a_repository_that_does_not_answer(
    folder: Path, chat: Any, run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(last_backup, "_look_up", lambda *_: released.wait(600))
    monkeypatch.setattr(last_backup, "TIMEOUT", 0.2)
    reference = {"repository": folder.as_uri(), "repository_uuid": "x", "series": "prod/app", "id": "y"}
    run_dag(f"""
{ALERTS}
PgBackupVerifyOperator(task_id="verify", backup={reference!r}, on_failure_callback=CHAT)
""")
    released.set()
    (message,) = chat.messages
    late = "the last verified backup of prod/app could not be looked up: no answer within 0.2 s"
    assert late in message["text"].splitlines()


def test_a_repository_on_s3_that_works_and_one_that_is_down(
    database: ConnectionParams, s3: S3Server, aws_connection: Callable[..., None], chat: Any, run_dag: RunDag
) -> None:
    aws_connection()
    aws_connection("down", extra={"endpoint_url": "http://127.0.0.1:1", "region_name": "us-east-1"})
    uri = f"s3://{s3.bucket()}/pg"
    repository = open_repository(uri, s3=S3Options(client_factory=s3.client))
    repository.init()
    made = dump_database(connection=database, server="prod", repository=repository, options=DumpOptions())
    verify(reference=made, repository=repository, level="archive")
    broken = {**made, "repository_uuid": "another"}
    run_dag(f"""
{ALERTS}
PgBackupVerifyOperator(task_id="a", backup={broken!r}, on_failure_callback=CHAT)
PgBackupVerifyOperator(task_id="b", backup={broken!r}, aws_conn_id="down", on_failure_callback=CHAT)
""")
    first, second = sorted(normal(message["text"]) for message in chat.messages)
    assert f"last verified backup of prod/{database.dbname}: TIME, level archive" in first.splitlines()
    assert f"the last verified backup of prod/{database.dbname} could not be looked up: " in second


def test_templates_are_rendered_for_a_run_and_names_from_outside_never(load_dag: Callable[..., Any]) -> None:
    dag = load_dag("""
PgDumpOperator(task_id="dump", postgres_conn_id="db", database="app", repository="file://{{ params.place }}")
""")
    (task,) = dag.tasks
    context = {"dag": dag, "run_id": "r", "params": {"place": "/backups"}}
    # Airflow calls the callback of a killed task in the DAG processor, with its fields not rendered.
    for more in ({"reason": "task_failure"}, {"ti": SimpleNamespace(task=task)}):
        (target,) = targets_of({**context, **more})
        assert (target.repository, target.name) == ("file:///backups", "db/app")
    task.repository, task.database = "file:///backups", "{{ 7 * 7 }}"
    (target,) = targets_of({**context, "ti": SimpleNamespace(task=task), "exception": ValueError()})
    assert target.name == "db/{{ 7 * 7 }}"


def test_an_argument_that_is_not_known_is_not_guessed(load_dag: Callable[..., Any]) -> None:
    dag = load_dag("""
@task
def name():
    return "app"

PgDumpOperator(task_id="a", postgres_conn_id="db", database=name(), repository="file:///r")
PgDumpOperator(task_id="b", postgres_conn_id="db", server="{{ no.such }}", repository="file:///s")
PgBackupVerifyOperator(task_id="c", backup=name())
""")
    run = targets_of({"dag": dag, "run_id": "r", "reason": "task_failure"})
    assert [(one.repository, one.name, one.is_one_series) for one in run] == [("file:///r", "db", False)]


@pytest.mark.parametrize("prune", ["None", "{'keep_daily': 7}"])
@pytest.mark.parametrize(
    ("source", "name"),
    [("database='app'", "db/app"), ("database='{{ params.name }}'", "db/crm"), ("database=None", "db")],
)
def test_a_run_of_pg_backup_is_about_its_series(
    load_dag: Callable[..., Any], source: str, name: str, prune: str
) -> None:
    dag = load_dag(f"""
from airflow_pgbackup.pipelines import pg_backup
pg_backup(postgres_conn_id="db", {source}, repository="file:///r", prune={prune})
""")
    (target,) = targets_of({"dag": dag, "run_id": "r", "reason": "task_failure", "params": {"name": "crm"}})
    assert (target.name, target.is_one_series) == (name, True)


@pytest.mark.parametrize(
    "tasks",
    [
        'pg_refresh(postgres_conn_id="staging", repository="file:///r", series="prod/app")',
        'pg_refresh(level="restore", postgres_conn_id="staging", repository="file:///r", series="prod/app")',
        'PgRefreshOperator.partial(task_id="many", repository="file:///r", series="prod/app")'
        '.expand(postgres_conn_id=["staging", "demo"])',
        'PgRestoreOperator.partial(task_id="many", repository="file:///r", series="prod/app", mode="create")'
        '.expand(postgres_conn_id=["staging", "demo"])',
    ],
)
def test_refreshes_and_restores_are_about_the_series_they_read(tasks: str, load_dag: Callable[..., Any]) -> None:
    dag = load_dag(f"""
from airflow_pgbackup.operators.refresh import PgRefreshOperator
from airflow_pgbackup.operators.restore import PgRestoreOperator
from airflow_pgbackup.pipelines import pg_refresh
{tasks}
""")
    (target,) = targets_of({"dag": dag, "run_id": "r", "reason": "task_failure"})
    assert (target.name, target.is_one_series) == ("prod/app", True)
    for task in dag.tasks:
        if task.task_id != "pg_refresh.verify":
            assert targets_of({"ti": SimpleNamespace(task=task), "exception": ValueError()}) == [target]


def test_mapped_tasks_each_with_their_series(
    database: ConnectionParams, folder: Path, chat: Any, run_dag: RunDag
) -> None:
    back_up(folder, database, "prod", level="integrity")
    references = [
        {"repository": folder.as_uri(), "repository_uuid": "x", "series": f"prod/{name}", "id": "y"}
        for name in (database.dbname, "other")
    ]
    run_dag(f"""
{ALERTS}
PgBackupVerifyOperator.partial(task_id="verify", on_failure_callback=CHAT).expand(backup={references!r})
""")
    first, second = sorted(normal(message["text"]) for message in chat.messages)
    assert first.startswith("*case.verify[0] failed*")
    # Compressed by this package, so level integrity reads it to its end.
    assert f"last verified backup of prod/{database.dbname}: TIME, level archive" in first.splitlines()
    assert second.startswith("*case.verify[1] failed*")
    assert "there is no verified backup of prod/other" in second.splitlines()


def test_a_task_of_another_package_has_its_error_only(chat: Any, run_dag: RunDag) -> None:
    run_dag(f"""
{ALERTS}
@task(on_failure_callback=CHAT)
def other():
    from airflow.sdk.log import mask_secret
    mask_secret("hunter2-secret")
    raise ValueError("<!channel> & \\n at postgres://me:pass/w@rd@db with hunter2-secret " + "x" * 5000)

other()
""")
    (message,) = chat.messages
    lines = message["text"].splitlines()
    assert lines[1].startswith("cause: ValueError: &lt;!channel&gt; &amp; \\n at postgres://***@db with *** xxx")
    assert len(lines[1]) < 1100
    assert not [line for line in lines if "backup" in line]


def test_the_sensor_and_its_series_the_worst_first(
    database: ConnectionParams, folder: Path, chat: Any, run_dag: RunDag
) -> None:
    back_up(folder, database, "prod")
    run_dag(f"""
from datetime import timedelta
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor
{ALERTS}
PgBackupFreshnessSensor(task_id="fresh", repository={folder.as_uri()!r}, server="prod", max_age=timedelta(hours=26),
                        databases=[{database.dbname!r}, "missing"], on_failure_callback=CHAT)
""")
    (message,) = chat.messages
    lines = normal(message["text"]).splitlines()
    assert lines[1] == "cause: not fresh: prod/missing: no backup"
    assert lines[2:4] == [
        "there is no verified backup of prod/missing",
        f"last verified backup of prod/{database.dbname}: TIME, level archive",
    ]


@pytest.mark.timeout(2700)
def test_a_run_of_a_fleet_in_a_live_airflow(
    server18: PostgresServer,
    database: ConnectionParams,
    folder: Path,
    chat: Any,
    postgres_connection: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Airflow calls the callbacks of a DAG in its DAG processor, without the exception."""
    made = dump_set(
        connection=server18.params,
        server="crm",
        repository=open_repository(folder.as_uri()),
        options=DumpOptions(),
        databases=[database.dbname],
    )
    assert made.status == "complete"
    postgres_connection("crm", database, port=1)
    mapping = {
        "defaults": {"repository": folder.as_uri(), "retries": 0, "alerts": {"on_failure": "case_alerts.CHAT"}},
        "servers": {"crm": {"schedule": "* * * * *", "databases": [database.dbname]}},
    }
    airflow = LiveAirflow(tmp_path / "airflow", {})
    patient = "from airflow_pgbackup.notifications import last_backup\nlast_backup.TIMEOUT = 240.0\n"
    (airflow.dags / "case_alerts.py").write_text(ALERTS + patient)
    (airflow.dags / "fleet_case.py").write_text(
        f"from airflow_pgbackup.pipelines import pgbackup_dags\npgbackup_dags({mapping!r})\n"
    )
    with airflow:
        airflow.wait_for("SELECT * FROM dag_run WHERE dag_id = 'pgbackup_crm' AND state = 'failed'")
        until = time.monotonic() + SECONDS
        while not chat.messages and time.monotonic() < until:
            time.sleep(0.5)
    assert chat.messages, airflow.said()
    lines = normal(chat.messages[0]["text"]).splitlines()
    assert lines[0] == "*DAG pgbackup_crm failed* (run RUN, last failed task backup.discover)"
    assert re.match(r"cause: cannot connect to .* failed: Connection refused$", lines[1])
    assert lines[2].startswith("hint: ")
    assert lines[3] == "last complete backup set of crm: TIME, 1 database"
    assert re.fullmatch(r"<http://[^|]*/dags/pgbackup_crm/runs/[^|]*/tasks/backup.discover[^|]*\|log>", lines[4])


def test_a_run_of_many_servers_names_the_failed_one_and_the_worst(
    load_dag: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_repository(folder.as_uri())
    repository.init()
    hours = {"db1": 3, "db2": 3, "db3": 3, "db4": 3, "db5": 3, "db6": 960, "db7": 20}
    for server, age in hours.items():
        write_backup(repository, Series(server, "app"), NOW - timedelta(hours=age))
    dag = load_dag(f"""
for server in {[*hours]!r}:
    PgDumpOperator(task_id=server, postgres_conn_id=server, database="app", repository={repository.uri!r})
""")
    message = FailureMessage({"dag": dag, "reason": "task_failure", "ti": SimpleNamespace(task_id="db7")})
    assert "last verified backup 40 d " in message.subject
    named = re.findall(r"of (db\d)/app", message.last_backup)
    assert (named[:2], len(named)) == (["db7", "db6"], 5)
    assert message.last_backup.endswith("; and 2 more")


@pytest.mark.parametrize("each", [False, True])
def test_a_set_with_a_failed_backup_is_not_the_last_one(tmp_path: Path, each: bool) -> None:
    repository = open_repository(tmp_path.as_uri())
    repository.init()
    whole = night(repository, 1, "app", "crm")
    fail(repository, night(repository, 0, "app", "crm").databases[1])
    target = AlertScope(repository=repository.uri, aws_conn_id=None, server="prod", each=each)
    first, *series = last_backups([target], now=NOW)
    assert first.started_at == whole.started_at
    assert first.sentence.endswith("1 d 1 h old, 2 databases; 1 backup of a newer set cannot be used")
    assert len(series) == (2 if each else 0)


@pytest.mark.parametrize("named", [{"cluster": True}, {"scopes": ("globals",)}])
def test_a_failed_dump_of_a_cluster_is_about_its_series_alone(tmp_path: Path, named: Any) -> None:
    repository = open_repository(tmp_path.as_uri())
    repository.init()
    night(repository, 0, "app", "crm")
    (found,) = last_backups([AlertScope(repository=repository.uri, aws_conn_id=None, server="prod", **named)], now=NOW)
    assert found.of == ("prod/@cluster" if "cluster" in named else "prod/@globals")


def test_the_alerts_of_the_fleet_example(mail: Any, chat: Any) -> None:
    alerts = runpy.run_path(str(EXAMPLE.with_name("fleet_alerts.py")))
    for name in ("mail", "page"):
        alerts[name]({"exception": ValueError("failed on purpose")})
    (received,) = mail.mails
    assert "cause: ValueError: failed on purpose" in html_of(received)
    (message,) = chat.messages
    assert "cause: ValueError: failed on purpose" in message["text"]


def test_an_alert_never_raises() -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    for context in ({}, {"ti": Broken(), "dag": Broken(), "exception": ValueError()}, {"dag": Broken(), "reason": "x"}):
        message = FailureMessage(context)
        assert "failed" in message.subject
        assert "failed" in message.text
        assert "failed" in message.html
        assert "failed" in message.slack
        assert message.last_backup == ""


def test_html_and_slack_are_escaped() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            return "<script>alert('x')</script> & <@everyone|x> \u202e \x1b[31m"

    message = FailureMessage({"exception": Hostile()})
    assert "<script>" not in message.html
    assert "&lt;script&gt;" in message.html
    assert "<@everyone" not in message.slack
    assert "\\u202e \\x1b[31m" in message.text


def test_the_page_of_a_fleets_dag_names_the_notifier() -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    alert = FailureAlert(SmtpNotifier(to="a@b", from_email="c@d"))
    dags = pgbackup_dags({"servers": {"crm": {"repository": "file:///r", "alerts": {"on_failure": alert}}}})
    assert "`airflow.providers.smtp.notifications.smtp.SmtpNotifier`" in str(dags["pgbackup_crm"].doc_md)


def test_an_error_of_any_length_becomes_a_short_cause() -> None:
    message = FailureMessage({"exception": ValueError("long " * 10_000_000)})
    assert 1000 < len(message.cause) < 1010
    assert len(message.html) < 1200


def test_each_call_renders_its_own_context(mail: Any) -> None:
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    alert = FailureAlert(SmtpNotifier(to="a@b", from_email="c@d", subject="{{ pgbackup.cause }}", html_content="x"))
    for text in ("one", "two"):
        alert({"exception": ValueError(text)})
    assert [each["Subject"] for each in mail.mails] == ["ValueError: one", "ValueError: two"]


def test_subjects() -> None:
    at = datetime(2026, 11, 26, 2, tzinfo=timezone.utc)
    last = LastBackup(
        kind="verified backup", of="prod/app", started_at=at, age=timedelta(hours=28), detail="level archive"
    )
    assert last.sentence == "last verified backup of prod/app: 2026-11-26 02:00 UTC, 1 d 4 h old, level archive"
    assert last.short == "last verified backup 1 d 4 h old"
