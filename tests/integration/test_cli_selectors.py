"""Selectors, labels, kinds and the shape of the output, as somebody at a terminal or a script meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from honest import write_backup

from airflow_pgbackup import __version__
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.layout import Series, manifest_key
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.open import open_repository

PROGRAM = [sys.executable, "-c", "import sys; from airflow_pgbackup.cli import main; sys.exit(main())"]
LONG = Series("production-server.example.com", "customer_relationship_management")
AT = datetime(2026, 11, 20, 2, tzinfo=timezone.utc)


def run(*arguments: str, status: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **more}
    done = subprocess.run([*PROGRAM, *arguments], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def at_terminal(columns: int, *arguments: str) -> list[str]:
    """The lines that a terminal of so many columns is sent; its own wrapping of longer ones is left to it."""
    command = f"stty cols {columns} rows 50; exec {shlex.join([*PROGRAM, *arguments])}"
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color"}
    ours, theirs = os.openpty()
    with (
        open(ours, "rb", buffering=0) as terminal,  # noqa: PTH123  a descriptor
        subprocess.Popen(["sh", "-c", command], env=env, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL),
    ):
        os.close(theirs)
        pieces: list[bytes] = []
        try:
            while piece := terminal.read(1 << 16):
                pieces.append(piece)
        except OSError:  # EIO: the program has ended
            pass
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(pieces).decode()).replace("\r", "")
    return text.rstrip("\n").split("\n")


@pytest.fixture
def here(tmp_path: Path) -> str:
    uri = f"file://{tmp_path}/repository"
    open_repository(uri).init()
    return uri


@pytest.fixture
def backups(here: str) -> list[Manifest]:
    repository = open_repository(here)
    return [
        write_backup(repository, LONG, AT + timedelta(days=number), members={"a.dump": f"PGDMP{number}".encode()})
        for number in range(4)
    ]


def test_piped_output_has_one_record_per_line(here: str, backups: list[Manifest]) -> None:
    for columns in ("20", "80"):
        lines = run("list", here, "--all", COLUMNS=columns).stdout.splitlines()
        assert lines[0].split() == ["series", "backup", "kind", "age", "size", "state"]
        assert [line.split()[:3] for line in lines[1:5]] == [[LONG.path, b.id, "database"] for b in backups[::-1]]
        pruned = run("prune", here, "--keep-last", "2", COLUMNS=columns).stdout.splitlines()
        assert [line.split()[:3] for line in pruned[1:5]] == [
            [mark, LONG.path, backup.id]
            for mark, backup in zip(("keep", "keep", "delete", "delete"), backups[::-1], strict=True)
        ]
        assert pruned[-1] == "2 backups kept, 2 would be deleted (--delete)"
        assert run("prune", here, "--keep-last", "4").stdout.splitlines()[-1].startswith("4 backups kept, 0 would")
        shown = run("show", here, LONG.path, COLUMNS=columns).stdout.splitlines()
        (restore,) = [line for line in shown if line.startswith("restore ")]
        assert restore.endswith(" a.dump")
        assert "pg_restore --exit-on-error" in restore


@pytest.mark.every_value
@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("command", [("list", "--all"), ("prune", "--keep-last", "2")], ids=["list", "prune"])
def test_no_id_is_cut_on_a_terminal(here: str, backups: list[Manifest], columns: int, command: tuple[str, ...]) -> None:
    lines = at_terminal(columns, command[0], here, *command[1:])
    text = "\n".join(lines)
    for backup in backups:
        assert len(re.findall(rf"(?m)(?:^|  ){backup.id}$", text)) == 1, "a double click selects it, whole"
    assert text.count(LONG.path) == len(backups)
    assert "…" not in text
    records = [line for line in lines if not line.startswith("states are")]
    assert all(len(line) <= max(columns, len(LONG.path)) for line in records)


def test_a_restore_command_is_not_broken_on_a_terminal(here: str, backups: list[Manifest]) -> None:
    (line,) = [line for line in at_terminal(60, "show", here, LONG.path) if line.startswith("restore ")]
    assert "pg_restore --exit-on-error" in line
    assert line.endswith(" a.dump")


def test_selectors_wherever_an_id_is(here: str, backups: list[Manifest], tmp_path: Path) -> None:
    there = f"file://{tmp_path}/other"
    open_repository(there).init()
    newest = backups[-1].id
    for selector in (newest, newest[:8], newest[:8].lower(), "2026-11-23", "latest", "latest-verified"):
        assert json.loads(run("show", here, LONG.path, selector, "--json").stdout)["id"] == newest
        assert json.loads(run("upload", here, LONG.path, selector, "--to", there, "--json").stdout)["id"] == newest
    changed = json.loads(run("diff", here, LONG.path, "20261121", "2026-11-22", "--json").stdout)
    assert (changed["before"]["id"], changed["after"]["id"]) == (backups[1].id, backups[2].id)
    changed = json.loads(run("diff", here, LONG.path, "20261121", "--json").stdout)
    assert (changed["before"]["id"], changed["after"]["id"]) == (backups[1].id, newest)
    refused = run("show", here, LONG.path, "202611", status=EXIT_STATUS["usage"])
    assert f"4 backups of {LONG} begin with 202611" in refused.stderr
    assert f"hint: Write more of the id: {newest}, " in refused.stderr
    missing = run("get", here, LONG.path, "20251231", status=EXIT_STATUS["failed"])
    assert "hint: The nearest of 4 are " in missing.stderr


def test_a_server_that_is_not_there_is_an_error(here: str, backups: list[Manifest]) -> None:
    for command in (("prune", "--keep-last", "1"), ("prune", "--keep-last", "1", "--delete"), ("list",)):
        refused = run(command[0], here, *command[1:], "--server", "production", status=EXIT_STATUS["failed"])
        assert f"no backup of server production is in {here}" in refused.stderr
        assert f"hint: The servers there include {LONG.server}." in refused.stderr
    assert "4 backups in 1 series" in run("list", here, "--server", LONG.server).stdout


def test_labels(here: str, backups: list[Manifest]) -> None:
    repository = open_repository(here)
    for backup, labels in ((backups[0], ("pre-migration", "v1.2")), (backups[1], ("other",))):
        key = manifest_key(backup.series, backup.id)
        repository.delete([key])
        repository.write_bytes(key, replace(backup, labels=labels).to_json())
    lines = run("list", here, "--label", "pre-*").stdout.splitlines()
    assert lines[0].split() == ["series", "backup", "kind", "age", "size", "labels", "state"]
    assert backups[0].id in lines[1]
    assert "pre-migration, v1.2" in lines[1]
    assert lines[2] == "1 backup of 4 backups in 1 series"
    found = json.loads(run("list", here, "--label", "v1.2", "--label", "other", "--json").stdout)
    assert [(one["id"], one["labels"]) for one in found] == [
        (backups[1].id, ["other"]),
        (backups[0].id, ["pre-migration", "v1.2"]),
    ]
    assert "labels    pre-migration, v1.2\n" in run("show", here, LONG.path, backups[0].id).stdout
    assert "invalid label" in run("list", here, "--label", "a b", status=EXIT_STATUS["usage"]).stderr
    run("prune", here, "--keep-last", "1", "--keep-label", "pre-migration", "--delete")
    left = json.loads(run("list", here, "--all", "--json").stdout)
    assert [one["id"] for one in left] == [backups[3].id, backups[0].id]


def test_what_a_backup_by_pg_dumpall_holds_is_shown(here: str) -> None:
    repository = open_repository(here)
    for series in (Series("prod", None), Series("prod", None, "roles")):
        write_backup(repository, series, AT, members={"all.dump": b"1"})
    kinds = {one["series"]: one["kind"] for one in json.loads(run("list", here, "--json").stdout)}
    assert kinds == {"prod/@cluster": "cluster", "prod/@roles": "roles"}
    assert "kind      roles\n" in run("show", here, "prod/@roles").stdout


def test_roles_are_dumped_labeled_and_restored(
    here: str, server18: PostgresServer, assert_no_canary: Callable[[object], None]
) -> None:
    params: ConnectionParams = server18.params
    connection: Mapping[str, str] = {
        "PGHOST": params.host,
        "PGPORT": params.port,
        "PGUSER": params.user,
        "PGDATABASE": "postgres",
        "PGPASSWORD": str(params.password),
        "PGBACKUP_REPOSITORY": here,
    }
    done = run("dump", "--cluster", "-o", "roles_only", "--server", "prod", "--label", "before", "--verify", "archive",
               "--json", **connection)  # fmt: skip
    assert json.loads(done.stdout)["series"] == "prod/@roles"
    assert json.loads(run("show", "prod/@roles", "--json", **connection).stdout)["labels"] == ["before"]
    restored = run("restore", "prod/@roles", **connection)
    assert "roles created: none" in restored.stdout
    assert "existing roles were not changed" in restored.stdout
    assert "invalid label '-x y'" in run("dump", "--label=-x y", status=EXIT_STATUS["usage"], **connection).stderr
    assert_no_canary(done.stdout + done.stderr + restored.stdout + restored.stderr)


def test_version_and_completion() -> None:
    assert run("--version").stdout == f"pgbackup {__version__}\n"
    for shell in ("bash", "zsh", "fish"):
        script = run("completion", shell).stdout
        for word in ("restore", "keep-label", "minimum-level"):
            assert word in script, (shell, word)
        assert json.loads(run("completion", shell, "--json").stdout)["script"].strip() == script.strip()
    assert "invalid choice" in run("completion", "tcsh", status=EXIT_STATUS["usage"]).stderr


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(run("completion", "bash").stdout)

    def completed(*words: str) -> list[str]:
        script = (
            f"source {tmp_path}/completion; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
            "$(complete -p pgbackup | sed 's/.*-F \\([^ ]*\\).*/\\1/'); printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=240)
        return done.stdout.split()

    assert completed("pgbackup", "unp") == ["unpin"]
    assert completed("pgbackup", "prune", "--keep-l") == ["--keep-last", "--keep-label"]
    assert set(completed("pgbackup", "completion", "")) >= {"bash", "zsh", "fish"}
    assert completed("pgbackup", "verify", "--level", "") == ["integrity", "archive", "restore"]
    assert completed("pgbackup", "prune", "--minimum-level", "n") == ["none"]
    assert completed("pgbackup", "restore", "--mode", "into") == ["into_empty", "into_existing"]
    (tmp_path / "dumps").mkdir()
    assert completed("pgbackup", "get", "r", "s", "--into", f"{tmp_path}/d") == [f"{tmp_path}/dumps"]
    assert completed("pgbackup", "adopt", "r", f"{tmp_path}/d") == [f"{tmp_path}/dumps"]


def test_a_repository_is_required_somewhere(here: str, backups: list[Manifest]) -> None:
    assert "4 backups in 1 series" in run("list", PGBACKUP_REPOSITORY=here).stdout
    assert backups[1].id in run("show", LONG.path, "20261121", PGBACKUP_REPOSITORY=here).stdout
    refused = run("list", status=EXIT_STATUS["usage"])
    assert "the following arguments are required: REPOSITORY" in refused.stderr
    assert "PGBACKUP_REPOSITORY" in run("list", "--help").stdout
