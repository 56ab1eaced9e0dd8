"""Nothing that a server, a store or a backup says reaches a terminal as anything but text."""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from on_terminal import HOSTILE, SHOWN, Where, run, visible
from psycopg import sql

from airflow_pgbackup.cli.run import run as run_command
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS, Command
from airflow_pgbackup.demo.report import Outcome, print_report
from airflow_pgbackup.demo.steps import Steps
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.terminal import LogLines, Terminal

Fresh = Callable[..., ConnectionParams]

GOLDEN = Path(__file__).parent.parent / "golden"
PASSWORD = "no secret"

both = pytest.mark.parametrize("where", ["terminal", "pipes"])


def environment(database: ConnectionParams) -> dict[str, str]:
    return {
        "PGHOST": database.host,
        "PGPORT": database.port,
        "PGUSER": database.user,
        "PGDATABASE": database.dbname,
        "PGPASSWORD": str(database.password),
    }


@pytest.fixture
def database(server18: PostgresServer, fresh_database: Fresh) -> ConnectionParams:
    return fresh_database(server18, HOSTILE, f'create table "{HOSTILE}" ("{HOSTILE}" int)')


@pytest.fixture
def as_hostile_role(server18: PostgresServer, database: ConnectionParams) -> Iterator[dict[str, str]]:
    """The environment of a role of that name, which owns nothing."""
    role = sql.Identifier(HOSTILE)
    with server18.params.connect() as session:
        session.execute(sql.SQL("create role {} login password {}").format(role, PASSWORD))
    yield {**environment(database), "PGUSER": HOSTILE, "PGPASSWORD": PASSWORD}
    with server18.params.connect() as session:
        session.execute(sql.SQL("drop role {}").format(role))


@pytest.fixture
def here(tmp_path: Path) -> str:
    uri = f"file://{tmp_path}/repository"
    run("pipes", ["init", uri], {}, EXIT_STATUS["done"])
    return uri


@both
def test_names_of_databases_and_tables(where: Where, database: ConnectionParams, here: str, tmp_path: Path) -> None:
    env = environment(database)
    dumped = run(where, ["dump", here, "--server", HOSTILE, "--verify", "archive"], env, EXIT_STATUS["done"])
    assert f"/{SHOWN}" in dumped.text
    (one,) = run("pipes", ["list", here, "--json"], env).json
    series = one["series"]
    assert series in run(where, ["list", here], env, EXIT_STATUS["done"]).text
    for command in (["show", here, series], ["verify", here, series], ["get", here, series, "--into", str(tmp_path)]):
        run(where, command, env, EXIT_STATUS["done"])
    plan = ["restore", here, series, "-d", f"{HOSTILE}2", "--mode", "create", "--dry-run"]
    assert f"{SHOWN}2" in run(where, plan, env, EXIT_STATUS["done"]).text
    pruned = run(where, ["prune", here, "--keep-last", "1", "--minimum-level", "archive"], env, EXIT_STATUS["done"])
    assert series in pruned.text


@both
def test_names_in_findings_and_refusals(where: Where, as_hostile_role: dict[str, str], here: str) -> None:
    checked = run(where, ["check"], as_hostile_role, EXIT_STATUS["check failed"])
    assert f'"{SHOWN}"' in checked.text  # the table, which this role may not read
    refused = run(where, ["dump", here, "--server", "prod"], as_hostile_role, EXIT_STATUS["failed"])
    assert f"permission denied for table {SHOWN}" in refused.text
    assert f"{SHOWN}@" in refused.text


def test_rehearse_what_needs_a_hostile_role(
    as_hostile_role: dict[str, str], database: ConnectionParams, here: str
) -> None:
    """Escaping is for readers: a stand-in is made for the very role that the server misses."""
    with database.connect() as session:
        session.execute(f"create materialized view m as select '\"{HOSTILE}\"'::text::regrole as role")
    dump = ["dump", here, "--server", "p", "--verify", "restore", "--json"]
    done = run("pipes", dump, environment(database), EXIT_STATUS["done"])
    assert done.json["verified"] == "restore"
    assert f"creating stand-ins for roles {SHOWN} " in done.text
    with database.connect() as session:
        session.execute("drop materialized view m")


@both
def test_what_a_server_says(where: Where, server18: PostgresServer, fresh_database: Fresh, here: str) -> None:
    """A notice at every login, and an error at pg_dump's."""
    database = fresh_database(server18, None, "create table t (a int)")
    body = sql.SQL(
        "begin raise notice '%', {0}; "
        "if current_setting('application_name') = 'pg_dump' then raise exception '%', {0}; end if; end"
    ).format(HOSTILE)
    with database.connect() as session:
        function = sql.SQL("create function greet() returns event_trigger language plpgsql as {}")
        session.execute(function.format(body.as_string(session)))
        session.execute("create event trigger greet on login execute function greet()")
    seen = run(where, ["dump", here, "--server", "prod"], environment(database), EXIT_STATUS["failed"])
    assert f"NOTICE:  {SHOWN}" in seen.text
    assert re.search(f"failed .*: (FATAL|ERROR):  {re.escape(SHOWN)}", seen.text)


@pytest.fixture
def refusing_server() -> Iterator[dict[str, str]]:
    """The environment for a server that answers every start with a FATAL error; it speaks that much of the protocol."""
    fields = f"SFATAL\0VFATAL\0C28000\0M{HOSTILE}\nand more\0\0".encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer = listener.accept()[0]
                except OSError:
                    return
                with closing(peer), peer.makefile("rb") as stream:
                    # SSLRequest, GSSENCRequest: not here.
                    while stream.read(int.from_bytes(stream.read(4), "big") - 4)[:2] == b"\x04\xd2":
                        peer.sendall(b"N")
                    peer.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

        thread = threading.Thread(target=serve)
        thread.start()
        yield {"PGHOST": "127.0.0.1", "PGPORT": str(listener.getsockname()[1]), "PGUSER": "u", "PGDATABASE": "d"}
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@both
def test_a_server_that_refuses(where: Where, refusing_server: dict[str, str], here: str) -> None:
    for command, status in ((["check"], "check failed"), (["dump", here, "--server", "prod"], "failed")):
        seen = run(where, command, refusing_server, EXIT_STATUS[status])
        assert f"{SHOWN}; and more" in seen.text


def hostile_manifests(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    def changed(**values: object) -> dict[str, Any]:
        return {**content, **values}

    source, client, artifact = content["source"], content["client"], content["artifact"]

    yield "restore_command", changed(restore_command=f"true {HOSTILE}")
    yield "option", changed(options={"schemas": [HOSTILE]})
    yield "option's name", changed(options={HOSTILE: True})
    yield "origin", changed(origin={HOSTILE: HOSTILE})
    yield (
        "server",
        changed(source={**source, "server_version": HOSTILE, "encoding": HOSTILE, "host": HOSTILE}),
    )
    yield "client", changed(client={"tool": HOSTILE, "version": HOSTILE, "path": HOSTILE})
    yield "client's version", changed(client={**client, "version": HOSTILE})
    yield "left out", changed(left_out=[HOSTILE], source_rows=[{"schema": HOSTILE, "name": HOSTILE, "rows": 1}])
    yield "version", changed(format_version=HOSTILE)
    yield "type", changed(options={HOSTILE: HOSTILE}, kind=HOSTILE)
    yield "artifact", changed(artifact={**artifact, "name": f"a{HOSTILE}"})
    yield "C1 only", changed(artifact={**artifact, "name": "a\x9b2J\u202e[b].dump"})
    yield "surrogate", changed(restore_command="\ud800", options={"schemas": ["\udc9b"]})
    yield "unknown", changed(**{HOSTILE: HOSTILE})


def test_manifests(here: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> None:
    database = fresh_database(server18, None, "create table t (a int)")
    reference = run("pipes", ["dump", here, "--server", "p", "--json"], environment(database)).json
    series, id_ = reference["series"], reference["id"]
    path = tmp_path / "repository" / series / id_ / "manifest.json"
    content = json.loads(path.read_text())
    for number, (_, manifest) in enumerate(hostile_manifests(content)):
        path.write_text(json.dumps(manifest))
        (into := tmp_path / str(number)).mkdir()
        run("terminal", ["show", here, series, id_], {})
        run("terminal", ["get", here, series, id_, "--into", str(into)], {})


@both
def test_json_is_for_programs_and_safe_to_look_at(where: Where, database: ConnectionParams, here: str) -> None:
    reference = run(where, ["dump", here, "--server", "p", "--json"], environment(database), EXIT_STATUS["done"]).json
    assert reference["database"] == HOSTILE
    shown = run(where, ["show", here, reference["series"], reference["id"], "--json"], {}, EXIT_STATUS["done"]).json
    assert shown["manifest"]["series"]["database"] == HOSTILE


@both
def test_files_to_adopt(where: Where, tmp_path: Path, here: str) -> None:
    folder = tmp_path / "dumps"
    folder.mkdir()
    name = HOSTILE.replace("/", "|")
    (folder / name).write_text("no dump")
    (folder / b"\xff\x1b[8m.dump".decode(errors="surrogateescape")).write_text("no dump either")
    seen = run(where, ["adopt", here, str(folder), "--server", "p", "--yes"], {}, EXIT_STATUS["done"])
    assert SHOWN.replace("/", "|") in seen.text
    assert r"\udcff\x1b[8m.dump" in seen.text


@pytest.fixture
def hostile_store() -> Iterator[dict[str, str]]:
    """The environment for a store that refuses everything, with a text of its own."""
    c1 = HOSTILE.translate({7: 0x9C, 27: 0x9B})  # XML 1.0 has no ESC and no BEL

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>No{c1}</Code><Message>{c1}</Message><Region>{c1}</Region></Error>".encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        server.shutdown()
        thread.join()


@both
def test_answers_of_a_store(where: Where, hostile_store: dict[str, str]) -> None:
    seen = run(where, ["list", "s3://bucket/prefix"], hostile_store, EXIT_STATUS["failed"])
    assert SHOWN.replace(r"\x1b", r"\x9b").replace(r"\x07", r"\x9c") in seen.text


@both
def test_the_environment_and_arguments(where: Where, here: str) -> None:
    seen = run(where, ["list", here], {"PGBACKUP_S3": json.dumps({HOSTILE: 1})}, EXIT_STATUS["usage"])
    assert SHOWN in seen.text
    seen = run(where, ["show", here, HOSTILE], {}, EXIT_STATUS["usage"])
    assert SHOWN in seen.text
    seen = run(where, ["list", here, f"--{HOSTILE}"], {}, EXIT_STATUS["usage"])
    assert SHOWN in seen.text
    run(where, ["show", here, b"\xff/d"], {}, EXIT_STATUS["usage"])


def test_a_locale_without_the_letters(server18: PostgresServer, fresh_database: Fresh, here: str) -> None:
    name = "Größe 🐘"
    database = fresh_database(server18, name, "create table t (a int)")
    env = {**environment(database), "PYTHONIOENCODING": "ascii"}
    reference = run("pipes", ["dump", here, "--server", "p", "--json"], env, EXIT_STATUS["done"]).json
    assert reference["database"] == name
    plan = ["restore", here, reference["series"], reference["id"], "-d", f"{name}2", "--mode", "create", "--dry-run"]
    assert r"Gr\xf6\xdfe \U0001f4182" in run("pipes", plan, env, EXIT_STATUS["done"]).text


def test_warnings_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogLines(Terminal(stderr=True))
    handler.handle(logging.makeLogRecord({"msg": "lost %s", "args": (HOSTILE,), "levelno": logging.WARNING}))
    assert capsys.readouterr().err == f"lost {SHOWN}\n"


def test_the_traceback_of_a_bug(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(session: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setitem(sys.modules, "airflow_pgbackup.cli.cmd_bug", SimpleNamespace(run=fail))  # type: ignore[arg-type]
    command = Command(name="bug", help="", module="cmd_bug", arguments=(), description="")
    assert run_command(command, Namespace(json=False, debug=False)) == EXIT_STATUS["internal error"]
    message, hint = visible(capsys.readouterr().err, "pipes").splitlines()
    assert message == f"pgbackup bug: internal error: RuntimeError: {SHOWN}"
    assert hint.startswith("hint: This is a defect. Run the command again with --debug")
    assert run_command(command, Namespace(json=False, debug=True)) == EXIT_STATUS["internal error"]
    err = visible(capsys.readouterr().err, "pipes")
    assert err.startswith("Traceback")
    assert f"\nRuntimeError: {SHOWN}\n" in err


def test_the_steps_of_the_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    assert terminal.is_terminal
    with Steps(terminal)(f"{HOSTILE} is restored") as now:
        now(HOSTILE)
    seen = visible(capsys.readouterr().out, "terminal")
    assert f"{SHOWN} is restored: {SHOWN}" in seen
    assert f"✓ {SHOWN} is restored" in seen


def test_the_report_of_the_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    manifest = Manifest.from_json((GOLDEN / "manifest-database-1.0.json").read_bytes())
    verification = Verification.from_json((GOLDEN / "verification-1.0.json").read_bytes())
    rows = {f"public.{HOSTILE}": 1}
    print_report(Outcome(f"s3://b/{HOSTILE}", manifest, verification, rows, rows, 1.0), Terminal())
    seen = visible(capsys.readouterr().out, "pipes")
    assert f"public.{SHOWN}" in seen
    assert f"s3://b/{SHOWN}" in seen
