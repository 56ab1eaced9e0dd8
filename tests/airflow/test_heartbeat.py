"""Heartbeats to a local HTTPS server: one request for each event, and never a failed task or the URL in a log."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.notifications.heartbeat import HeartbeatNotifier
from airflow_pgbackup.provider_info import get_provider_info

SECRET = "3f9ac1d2-5b7e-4c1a-9d0f-aa11bb22cc33"
DAG = """
from airflow_pgbackup.notifications.heartbeat import HeartbeatNotifier

@task(
    on_execute_callback=HeartbeatNotifier("beat", "start"),
    on_success_callback=HeartbeatNotifier("beat"),
    on_failure_callback=HeartbeatNotifier("beat", "failure"),
)
def work():
    if {fails}:
        raise RuntimeError("failed on purpose")

work()
"""


class Monitor(BaseHTTPRequestHandler):
    """Answers each GET with the status of its server, and keeps what was requested."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.requested.append(self.path)
        self.send_response(server.status)
        self.send_header("Location", f"http://127.0.0.1:1{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    authority = Authority(tmp_path, "monitor")
    certificate, key = authority.sign("localhost", "localhost")
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Monitor)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.requested, server.status = [], 200
    server.url = f"https://localhost:{server.server_port}/{SECRET}"
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may answer late."""
    monkeypatch.setattr("airflow_pgbackup.notifications.heartbeat.TIMEOUT", 240)


@pytest.fixture
def beat(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def make(url: str) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_BEAT", json.dumps({"conn_type": "generic", "password": url}))

    return make


def test_start_and_success(monitor: Any, beat: Callable[[str], None], run_dag: Callable[..., Any]) -> None:
    beat(monitor.url)
    run = run_dag(DAG.format(fails=False))
    assert run.states == {"work": "success"}, run.output
    assert monitor.requested == [f"/{SECRET}/start", f"/{SECRET}"]
    assert SECRET not in run.output


def test_words_of_the_url_are_not_masked(
    monitor: Any, beat: Callable[[str], None], run_dag: Callable[..., Any]
) -> None:
    beat(monitor.url.replace(SECRET, f"backup/production/{SECRET}"))
    redacted = (
        f'    from airflow.sdk.log import redact\n    return redact("a backup of production, {SECRET}")\n    if False'
    )
    run = run_dag(DAG.format(fails=False).replace("    if False", redacted))
    assert monitor.requested[0] == f"/backup/production/{SECRET}/start"
    assert run.results["work"] == "a backup of production, ***"


def test_failure(monitor: Any, beat: Callable[[str], None], run_dag: Callable[..., Any]) -> None:
    beat(f"{monitor.url}/?rid=1")
    run = run_dag(DAG.format(fails=True))
    assert run.states == {"work": "failed"}, run.output
    assert monitor.requested == [f"/{SECRET}/start?rid=1", f"/{SECRET}/fail?rid=1"]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("status 500", "the server answered 500"),
        ("redirect", "the server answered 302"),
        ("certificate", "no connection (SSLCertVerificationError)"),
        ("refused", "no connection (ConnectionRefusedError)"),
        ("plain", "the connection's password is not an https:// URL"),
        ("empty", "the connection's password is not an https:// URL"),
        ("hostile", "InvalidURL"),
        ("missing", "AirflowNotFoundException"),
    ],
)
def test_a_monitor_that_fails_does_not_fail_the_task(
    problem: str,
    said: str,
    monitor: Any,
    beat: Callable[[str], None],
    run_dag: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    urls = {
        "refused": f"https://localhost:1/{SECRET}",
        "plain": monitor.url.replace("https", "http"),
        "empty": "",
        "hostile": f"{monitor.url} \x7f",
    }
    if problem != "missing":
        beat(urls.get(problem, monitor.url))
    monitor.status = {"status 500": 500, "redirect": 302}.get(problem, 200)
    if problem == "certificate":
        monkeypatch.delenv("SSL_CERT_FILE")
    run = run_dag(DAG.format(fails=False))
    assert run.states == {"work": "success"}, run.output
    assert f"heartbeat success of connection beat was not sent: {said}" in run.output
    assert SECRET not in run.output
    assert len(monitor.requested) == (2 if problem in ("status 500", "redirect") else 0)


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="invalid event 'fail'"):
        HeartbeatNotifier("beat", "fail")


def test_the_notifier_is_registered() -> None:
    names = [f"{HeartbeatNotifier.__module__}.{HeartbeatNotifier.__name__}"]
    assert get_provider_info()["notifications"] == names
