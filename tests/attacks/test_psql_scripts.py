"""A restore of a plain dump runs SQL only, whatever psql commands the dump contains, and wherever."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from builds import BUILDS, Build, each
from contexts import in_context
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psql_scripts import COMMANDS, HIDDEN, SECRET, SEEN, TABLE, Target, cluster_dump, database_dump
from psycopg import sql
from restoring import local, restored, value

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError, NotProven, PgBackupError, ToolError, VerificationFailed
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.script_scan import scan_script
from airflow_pgbackup.postgres.psql.guarded import guarded
from airflow_pgbackup.postgres.psql.script_filter import sessions
from airflow_pgbackup.postgres.server.sandbox import find_bwraps
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.sql.string_settings import StringSettings
from airflow_pgbackup.postgres.tools.client_choice import choose_psql
from airflow_pgbackup.postgres.tools.clients import CONFIGURED, Client
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.repository.base import Repository

Attacked = Callable[[Build], ConnectionParams]


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[Build], PostgresServer]]:
    """A server of each build, started when it is first used."""
    running: dict[Build, PostgresServer] = {}
    with ExitStack() as stack:

        def get(build: Build) -> PostgresServer:
            if build not in running:
                running[build] = stack.enter_context(PostgresServer(build.bin_dir))
            return running[build]

        yield get


@pytest.fixture(scope="module")
def attacked(server: Callable[[Build], PostgresServer]) -> Attacked:
    """A database of each build with the table for the attacks and a large object 4711."""
    made: dict[Build, ConnectionParams] = {}

    def get(build: Build) -> ConnectionParams:
        if build not in made:
            made[build] = new_database(server(build), "attacked")
            with made[build].connect() as session:
                session.execute(TABLE)
                session.execute("select lo_from_bytea(4711, 'content')")
        return made[build]

    return get


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    (tmp_path / "target").mkdir()
    made = Target(tmp_path / "target")
    yield made
    made.close()


@pytest.fixture
def hiding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the places of HIDDEN to the guard alone, which does not rely on how a script was read."""
    monkeypatch.setattr(StringSettings, "before", lambda self, statement: b"")


def new_database(server: PostgresServer, name: str) -> ConnectionParams:
    with server.params.connect() as session:
        identifier = sql.Identifier(name)
        session.execute(sql.SQL("drop database if exists {}").format(identifier))
        session.execute(sql.SQL("create database {} template template0").format(identifier))
    return server.params.with_database(name)


def run(build: Build, params: ConnectionParams, script: bytes) -> None:
    """Run a script with psql, guarded as a restore does it."""
    client = choose_psql([Client(build.bin_dir, build.version, CONFIGURED)], build.major)
    psql = guarded(client, io.BytesIO(script))
    env = client_environment(params)
    with ToolProcess(
        psql.argv, env=env, stdin=psql.stdin, stdout="devnull", deadline=240, may_start_processes=False
    ) as process:
        process.wait()


def planted(repository: Repository, directory: Path, script: bytes, database: str | None = "app") -> dict[str, object]:
    """Return a reference to a dump that an attacker put into the repository."""
    directory.mkdir()
    (directory / "dump.sql").write_bytes(script)
    result = adopt(repository=repository, sources=[directory], server="test", database=database)
    assert not result["skipped"]
    (reference,) = result["adopted"]  # type: ignore[misc]
    return reference  # type: ignore[no-any-return]


# -- the attacks are real


@pytest.mark.every_value
@each(BUILDS)
@pytest.mark.parametrize("place", [*HIDDEN, *SEEN])
def test_an_unguarded_psql_sees_the_command(build: Build, place: str, attacked: Attacked, target: Target) -> None:
    script = target.attack({**HIDDEN, **SEEN}[place])
    with client_environment(attacked(build)) as env:
        argv = [build.bin_dir / "psql", "--no-psqlrc", "--no-password", "--set=ON_ERROR_STOP=1"]
        subprocess.run(argv, input=script, env={**env}, capture_output=True, timeout=240)
    assert target.marker.exists()


# -- the guard


@each(BUILDS)
def test_no_psql_command_runs(build: Build, attacked: Attacked, target: Target) -> None:
    database = attacked(build)
    places = [*HIDDEN.values(), *SEEN.values()]
    for number, command in enumerate(COMMANDS):
        script = target.attack(places[number % len(places)], command)
        with pytest.raises(ToolError) as error:
            run(build, database, script)
        assert "pg_dump never writes" in str(error.value.hint), script
        target.assert_untouched(script)
    assert value(database, f"select count(*) from t where line like '%{SECRET}%' or stdin like '%{SECRET}%'") == 0
    assert value(database, "select array_agg(oid::int) from pg_largeobject_metadata") == [4711]


@each(BUILDS)
@pytest.mark.parametrize("place", HIDDEN)
def test_no_command_runs_in_a_hidden_place(build: Build, place: str, attacked: Attacked, target: Target) -> None:
    for command in (r"\! touch {marker}", r"\unrestrict `touch {marker}` \! touch {marker}", r"\g |touch {marker}"):
        script = target.attack(HIDDEN[place], command)
        with pytest.raises(ToolError, match=r"\\unrestrict"):
            run(build, attacked(build), script)
        target.assert_untouched(script)


@each(BUILDS)
def test_variables_hold_no_secret(build: Build, attacked: Attacked, target: Target) -> None:
    names = ["PASSWORD", "PGPASSWORD", "PASSFILE", "PGPASSFILE", "HOME", "PATH", "restrict_key", "RESTRICT"]
    run(build, attacked(build), b"".join(b"SELECT :{?%s} AND 1/0 = 1;\n" % name.encode() for name in names))


@pytest.mark.parametrize("may", [True, False])
def test_the_kernel_refuses_processes_inside_a_sandbox_too(may: bool) -> None:
    bwrap = find_bwraps()[0]
    within = [bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--unshare-pid", "--"]
    argv = ["sh", "-c", "/bin/true && echo started"]
    with ToolProcess(argv, env={"PATH": os.defpath}, within=within, may_start_processes=may) as process:
        if may:
            assert process.stdout.read() == b"started\n"
        else:
            with pytest.raises(ToolError, match=r"[Cc]annot fork"):
                process.wait()


PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\f", b"\0", b" ", b";", b"'", b'"', b"$$", b"$a$", b"E'", b"--", b"-- ", b"/*", b"*/"),
    *(b"(", b")", b"\\", b"\\.", b"\\.\n", b"\\.\r\n", b"\n\\.\n", b":", b":'DBNAME'", b"`", b"\x95", b"\xc3\xa9"),
    *(
        b"SELECT 1",
        b"SELECT ';",
        b"COPY public.t (line) FROM stdin;\n",
        b"COPY public.t (line) FROM '/dev/null' WHERE ",
    ),
    *(b"line IS DISTINCT FROM stdin;\n", b"BEGIN;\n", b"COMMIT;\n", b"SET standard_conforming_strings = off;\n"),
    *(b"SET SESSION standard_conforming_strings = on;\n", b"SET client_encoding = 'SJIS';\n", b"1\t2\n"),
    *(b"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC ", b"CASE ", b"END;\n"),
    *(b"\\restrict abc\n", b"\\unrestrict abc\n", b"\\connect postgres\n", b"\\encoding SQL_ASCII\n"),
]
ATTACKS = [rb"\! touch {marker}", rb"\g |touch {marker}", rb"\unrestrict `touch {marker}`", rb"\w {marker}"]


@each(BUILDS[-1:])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(pieces=st.lists(st.sampled_from([*PIECES, *(attack + b"\n" for attack in ATTACKS)]), min_size=1, max_size=12))
def test_no_command_of_any_script_runs(build: Build, pieces: list[bytes], attacked: Attacked, target: Target) -> None:
    body = b"".join(pieces).replace(b"{marker}", str(target.marker).encode())
    dump = database_dump(body + b"\n")
    scripts = [body]
    try:
        scan_script(io.BytesIO(dump))
    except VerificationFailed:
        pass
    else:
        parts = sessions(io.BytesIO(dump.replace(b"CREATE TABLE", b"CREATE TABLE IF NOT EXISTS")))
        scripts += [b"".join(iter(lambda part=part: part.read(), b"")) for _, part in parts]  # type: ignore[misc]
    for script in scripts:
        try:
            run(build, attacked(build), script)
        except PgBackupError:
            pass
        target.assert_untouched(script)


# -- the verbs


@pytest.mark.usefixtures("hiding")
@each(BUILDS)
def test_restore_runs_no_hidden_command(
    build: Build, server: Callable[[Build], PostgresServer], target: Target, tmp_path: Path
) -> None:
    for number, place in enumerate(HIDDEN):
        script = target.attack(HIDDEN[place], [r"\! touch {marker}", r"\unrestrict `touch {marker}`"][number // 2 % 2])
        repository = local(tmp_path / f"repository {number}")
        reference = planted(repository, tmp_path / f"directory {number}", database_dump(script))
        if number % 2:
            database, mode = server(build).params.with_database(f"created {number}"), "create"
        else:
            database, mode = new_database(server(build), "restored"), "into_empty"
        with pytest.raises(ToolError, match=r"\\unrestrict") as error:
            restored(reference, repository, database, mode=mode, settings=build.settings)
        assert "pg_dump never writes" in str(error.value.hint)
        target.assert_untouched(place)
        if mode == "create":
            assert database.dbname not in databases(server(build))
        else:
            assert value(database, "select count(*) from pg_class where relname = 't'") == 0


@pytest.mark.parametrize("place", SEEN)
def test_a_command_that_the_lexer_sees_is_refused_before_anything_runs(
    place: str, server: Callable[[Build], PostgresServer], target: Target, tmp_path: Path
) -> None:
    repository = local(tmp_path / "repository")
    directory = tmp_path / "directory"
    reference = planted(repository, directory, database_dump(target.attack(SEEN[place])))
    database = new_database(server(BUILDS[-1]), "restored")
    with pytest.raises(VerificationFailed, match=r"which pg_dump never writes|a backslash outside quotes"):
        restored(reference, repository, database)
    with pytest.raises(VerificationFailed, match=r"which pg_dump never writes|a backslash outside quotes"):
        verify(reference=reference, repository=repository, level="archive")
    target.assert_untouched(place)
    assert value(database, "select count(*) from pg_class where relname = 't'") == 0


@pytest.mark.every_value
@pytest.mark.usefixtures("hiding")
@each(BUILDS)
@pytest.mark.parametrize("where", ["roles", "template1", "app"])
def test_restore_of_a_cluster_runs_no_hidden_command(
    build: Build, where: str, server: Callable[[Build], PostgresServer], target: Target, tmp_path: Path
) -> None:
    repository = local(tmp_path / "repository")
    script = target.attack(HIDDEN["after a string, by a function"])
    dump = cluster_dump(**{where: script})  # type: ignore[arg-type]
    reference = planted(repository, tmp_path / "directory", dump, None)
    with pytest.raises(PgBackupError) as error:
        restored(reference, repository, server(build).params, settings=build.settings)
    assert error.value.hint or where == "roles"  # those are statements for the server, and never reach psql
    target.assert_untouched(where)
    assert "app" not in databases(server(build))


@pytest.mark.every_value
@pytest.mark.parametrize("command", [r"\! touch {marker}", r"\unrestrict `touch {marker}`", r"\connect postgres"])
@pytest.mark.parametrize("before", [b"1 AS a;\n", b"1 -- text\n", b"1 -- text\r"], ids=["on a line", "seen", "hidden"])
def test_an_archive_restored_by_psql_runs_no_command(
    command: str, before: bytes, server16: PostgresServer, target: Target, tmp_path: Path
) -> None:
    """pg_restore 18 begins with a setting that server 16 does not know, so psql runs its script without that."""
    source = new_database(server16, "app")
    room = 400
    with source.connect() as session:
        session.execute(sql.SQL("create view v as select {} as a").format("x" * room))
    with client_environment(source) as env:
        argv = [postgres_bin_dir(18) / "pg_dump", "--format=custom", "--compress=none"]
        archive = subprocess.run(argv, env={**env}, capture_output=True, check=True).stdout
    text = before + target.attack(b"COMMAND", command)
    quoted = b"'" + b"x" * room + b"'"
    assert archive.count(quoted) == 1
    script = archive.replace(quoted, text + b"\n" + b" " * (len(quoted) - len(text) - 1))
    repository = local(tmp_path / "repository")
    reference = planted(repository, tmp_path / "directory", script)
    database = new_database(server16, "restored")
    with pytest.raises(
        (ToolError, VerificationFailed), match=r"pg_dump never writes|a backslash outside quotes|key of"
    ):
        restored(reference, repository, database)
    target.assert_untouched(text)
    assert value(database, "select count(*) from pg_class where relname = 'v'") == 0


def databases(server: PostgresServer) -> set[str]:
    with server.params.connect() as session:
        return {name for (name,) in session.execute("select datname from pg_database")}


@pytest.mark.every_value
@pytest.mark.usefixtures("hiding")
@each(BUILDS)
@pytest.mark.parametrize("contained", [True, False], ids=["contained", "uncontained"])
def test_a_rehearsal_runs_no_hidden_command(
    build: Build, contained: bool, monkeypatch: pytest.MonkeyPatch, target: Target, tmp_path: Path
) -> None:
    place = list(HIDDEN)[(BUILDS.index(build) * 2 + contained) % len(HIDDEN)]
    command = r"\! touch {marker}" if contained else r"\unrestrict `touch {marker}`"
    if not contained:  # or the sandbox alone would keep the marker from appearing
        uncontained(monkeypatch)
    repository = local(tmp_path / "repository")
    script = database_dump(target.attack(HIDDEN[place], command), build.major)
    reference = planted(repository, tmp_path / "directory", script)
    with pytest.raises(VerificationFailed, match=r"cannot be restored: psql failed.*\\unrestrict"):
        verify(reference=reference, repository=repository, level="restore", context=RunContext(settings=build.settings))
    target.assert_untouched(place)


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize("where", ["roles", "template1", "app"])
def test_a_rehearsal_of_a_cluster_runs_no_hidden_command(
    where: str, monkeypatch: pytest.MonkeyPatch, target: Target, tmp_path: Path
) -> None:
    uncontained(monkeypatch)
    build, repository = BUILDS[-1], local(tmp_path / "repository")
    script = target.attack(HIDDEN["after a string, by a function"])
    dump = cluster_dump(build.major, **{where: script})  # type: ignore[arg-type]
    reference = planted(repository, tmp_path / "directory", dump, None)
    with pytest.raises(VerificationFailed, match=r"cannot be restored: psql failed.*\\unrestrict"):
        verify(reference=reference, repository=repository, level="restore", context=RunContext(settings=build.settings))
    target.assert_untouched(where)


def uncontained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_pgbackup.postgres.server.sandbox.find_bwraps", list)


# -- without a guard


@each(BUILDS[-1:])
def test_where_psql_cannot_be_guarded_no_script_runs(
    build: Build,
    server: Callable[[Build], PostgresServer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    repository = local(tmp_path / "repository")
    reference = planted(repository, tmp_path / "directory", database_dump(b"SELECT 1;\n", build.major))
    database = new_database(server(build), "restored")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", "riscv64")))
    arguments: dict[str, Any] = {"reference": reference, "repository": repository, "settings": build.settings}
    with pytest.raises(ConfigurationError, match="no seccomp filter for Linux on riscv64") as error:
        restored(connection=database, **arguments)
    assert "custom" in str(error.value.hint)
    with pytest.raises(NotProven, match="no seccomp filter for Linux on riscv64"):
        verify(level="restore", **in_context(arguments))
    assert value(database, "select count(*) from pg_class where relname = 't'") == 0
