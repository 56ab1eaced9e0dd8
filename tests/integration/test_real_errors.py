"""Errors of a real file system and of the process's surroundings, as a user meets them: one line and a hint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import write_backup

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series

PROGRAM = "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"
# As a user without rights, which root can become; all modules are loaded before, as that user may not read them.
AS_PLAIN_USER = """
import importlib, os, pkgutil, sys
import airflow_pgbackup.cli as cli
for module in pkgutil.iter_modules(cli.__path__):
    if module.name not in ("airflow", "airflow_program", "cmd_demo"):
        importlib.import_module(f"airflow_pgbackup.cli.{module.name}")
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
sys.exit(cli.main())
"""
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def run(
    *arguments: str, code: str = PROGRAM, before: str = "", cwd: Path | None = None, **more: str
) -> tuple[int, str, str]:
    """Run ``pgbackup`` from a shell, after the shell has done `before`."""
    script = f'{before}\nexec "$0" "$@"'
    argv: Sequence[str] = ["/bin/bash", "-c", script, sys.executable, "-c", code, *arguments]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}
    done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def repository(here: Repository) -> Repository:
    write_backup(here, Series("prod", "app"), NOW - timedelta(hours=2))
    return here


@pytest.mark.parametrize(
    "arguments",
    [
        "list {here}", "show {here} prod/app", "get {here} prod/app --into {tmp}", "fsck {here}", "freshness {here}",
        "pin {here} prod/app latest", "prune {here} --keep-last 1", "verify {here} prod/app", "init {here}/new",
        "upload {here} prod/app --to {here}/new",
    ],
)  # fmt: skip
def test_a_repository_without_rights(arguments: str, repository: Repository, tmp_path: Path) -> None:
    directory = repository.local_path("prod").parent  # type: ignore[union-attr]
    if os.geteuid() != 0:
        directory.chmod(0o000)
    try:
        given = arguments.format(here=repository.uri, tmp=tmp_path).split()
        status, _, err = run(*given, code=AS_PLAIN_USER)
    finally:
        directory.chmod(0o700)
    message, hint = err.splitlines()
    assert status == 1
    assert message.endswith(": permission denied")
    assert hint.startswith("hint: User ")
    assert "lacks read and write access" in hint


def a_file(path: Path) -> str:
    path.write_text("")
    return str(path)


def a_loop(path: Path) -> str:
    path.symlink_to(path.name)
    return str(path)


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        (lambda tmp: f"{a_file(tmp / 'file')}", "file exists"),
        (lambda tmp: f"{a_file(tmp / 'file')}/below", "not a directory"),
        (lambda tmp: f"{a_loop(tmp / 'loop')}/below", "too many levels of symbolic links"),
        (lambda tmp: f"{tmp}{('/' + 'a' * 200) * 25}", "file name too long"),
    ],
)
def test_a_directory_that_cannot_be_made(directory: Callable[[Path], str], expected: str, tmp_path: Path) -> None:
    status, _, err = run("init", f"file://{directory(tmp_path)}")
    assert status == 1
    assert err.splitlines()[0].endswith(f": {expected}"), err


def test_a_file_larger_than_allowed(tmp_path: Path) -> None:
    status, _, err = run("init", f"file://{tmp_path}/pg", before="ulimit -f 0")
    assert status == 1
    assert "the repository is full: cannot write" in err
    assert "hint: Free some space, prune, or raise the quota or file size limit" in err
    assert not list(tmp_path.glob("pg/*"))


def test_into_a_file(repository: Repository, tmp_path: Path) -> None:
    status, _, err = run("get", repository.uri, "prod/app", "--into", a_file(tmp_path / "file"))
    assert status == 2
    assert f"{tmp_path}/file is not a directory" in err


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (lambda tmp: str(tmp / "none"), "no such file or directory"),
        (lambda tmp: str(tmp), "is a directory"),
        (lambda tmp: a_loop(tmp / "loop"), "too many levels of symbolic links"),
    ],
)
def test_a_use_list_that_cannot_be_read(
    file: Callable[[Path], str],
    expected: str,
    here: Repository,
    server18: PostgresServer,
    fresh_database: Callable[..., ConnectionParams],
    tmp_path: Path,
) -> None:
    database = fresh_database(server18, None, "create table t (a int)")
    dump_database(connection=database, server="prod", repository=here, options=DumpOptions())
    more = {"PGHOST": database.host, "PGPORT": database.port, "PGUSER": database.user}
    restore = ("restore", here.uri, f"prod/{database.dbname}", next(iter(here.folders(f"prod/{database.dbname}"))))
    status, _, err = run(
        *restore,
        *("-d", f"{database.dbname}_new", "--mode", "create", "--use-list", file(tmp_path)),
        **{**more, "PGPASSWORD": str(database.password)},
    )
    assert status == 2
    message, hint = err.splitlines()[-2:]
    assert message.startswith(f"pgbackup restore: cannot read {tmp_path}"), err
    assert message.endswith(f", given with --use-list: {expected}"), err
    assert hint == "hint: Give a file that pg_restore --list wrote."


def test_a_current_directory_that_was_removed(repository: Repository, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    removed = f"rmdir {gone}"
    status, out, _ = run("list", repository.uri, before=removed, cwd=gone)
    assert (status, "1 backup in 1 series" in out) == (0, True)
    gone.mkdir()
    adopt = ("adopt", repository.uri, "old.dump", "--server", "old", "--yes")
    status, _, err = run(*adopt, before=removed, cwd=gone)
    assert status == 1
    assert err == "pgbackup adopt: the current directory does not exist\nhint: Change to a directory that exists.\n"


def test_output_that_cannot_be_written(repository: Repository) -> None:
    for more in ((), ("--json",)):
        status, _, err = run("list", repository.uri, *more, before="exec >/dev/full")
        assert status == 1
        assert err == (
            "pgbackup list: cannot write to stdout: no space left on device\n"
            "hint: Free some space, or send the output elsewhere.\n"
        )
    assert run("list", repository.uri, before="exec 2>/dev/full")[0] == 0
    for closed in ("exec >&-", "exec 2>&-", "exec >&- 2>&-", "exec <&-"):
        assert run("list", repository.uri, before=closed)[0] == 0, closed
        assert run("list", "file:///no/such/directory", before=closed)[0] == 1, closed
