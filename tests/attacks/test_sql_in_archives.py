"""Custom archives changed so that pg_restore runs SQL that nothing of ours has seen."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bombs import entry, number, text, toc
from builds import BUILDS
from restoring import local, restored, value

from airflow_pgbackup.backup.adopt import adopt
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer

Fresh = Callable[..., ConnectionParams]

SQL = b"COMMIT; SELECT 1/0;"
"""In place of a large object or of rows: the restore fails, and what it has restored so far stays."""
PADDING = "padding" * 20
STATEMENTS = (
    "create table a (x int)",
    "create table b (x int)",
    "insert into a values (1), (12345678)",
    f"comment on table a is '{PADDING}'",
    "select lo_from_bytea(4711, 'a large object')",
)


def dumped(source: ConnectionParams, file: Path, *options: str) -> bytes:
    """Return an archive without compression; pg_dump writes it to a file, so its table of contents has offsets."""
    argv = [BUILDS[-1].bin_dir / "pg_dump", "--format=custom", "--compress=0", f"--file={file}", *options]
    with client_environment(source) as env:
        subprocess.run(argv, env=env, check=True)
    return file.read_bytes()


def replaced(archive: bytes, old: bytes, new: bytes) -> bytes:
    assert archive.count(old) == 1
    return archive.replace(old, new)


def sql_as_large_objects(archive: bytes) -> bytes:
    """The block of large objects becomes one of rows, which pg_restore sends to the server as it is."""
    content = b"a large object"
    before, after = archive.split(number(4711) + text(content) + number(0) + number(0))
    assert before[-6:-5] == b"\3"
    return before[:-6] + b"\1" + before[-5:] + text(SQL) + number(0) + after


def second_block(archive: bytes) -> bytes:
    """Another block for the rows, to which the offset in the table of contents leads."""
    found, _ = read_toc(io.BytesIO(archive), what="the archive")
    start = next(each.offset for each in found.entries if each.kind == "TABLE DATA")
    assert start is not None
    second = archive[start : start + 6] + text(SQL + b"\n") + text(b";\n\n\n") + number(0)
    return replaced(archive, b"\2" + start.to_bytes(8, "little"), b"\2" + len(archive).to_bytes(8, "little")) + second


def sql_as_comments(archive: bytes) -> bytes:
    """pg_restore sends the data of BLOB COMMENTS to the server as it is, whether it has a COPY statement or not."""
    comment = f"COMMENT ON TABLE public.a IS '{PADDING}';\n".encode()
    archive = replaced(archive, text(comment), text(comment.replace(b"padding';", b"padd';")))
    archive = archive.replace(text(b"TABLE DATA"), text(b"BLOB COMMENTS"), 1)  # of b they stay: adopt wants some
    rows = text(b"1\n") + text(b"12345678\n") + text(b"\\.\n\n\n")
    return replaced(archive, rows, text(SQL.ljust(len(rows) - 5)))


Forge = Callable[[bytes], bytes]
FORGED: dict[str, tuple[Forge, list[str]]] = {
    "SQL as large objects": (sql_as_large_objects, []),
    "second block": (second_block, ["--inserts"]),
    "SQL as comments": (sql_as_comments, []),
}


@pytest.mark.parametrize("how", ["stream", "path"])
@pytest.mark.parametrize("name", FORGED)
def test_sql_that_ends_the_transaction_changes_nothing(
    name: str, how: str, server18: PostgresServer, fresh_database: Fresh, tmp_path: Path
) -> None:
    forge, options = FORGED[name]
    file = tmp_path / "forged.dump"
    file.write_bytes(forge(dumped(fresh_database(server18, None, *STATEMENTS), file, *options)))
    repository = local(tmp_path / "repository")
    adopted: Any = adopt(repository=repository, sources=[file], server="old", database="x")
    target = fresh_database(server18)
    listed = subprocess.run([BUILDS[-1].bin_dir / "pg_restore", "--list", file], check=True, stdout=subprocess.PIPE)
    (tmp_path / "all.list").write_bytes(listed.stdout)
    restore_options = {"use_list": str(tmp_path / "all.list")} if how == "path" else {}
    if how == "path":
        by_hand = fresh_database(server18)
        with client_environment(by_hand) as env:
            command = [BUILDS[-1].bin_dir / "pg_restore", "--single-transaction", "--dbname=", file]
            assert subprocess.run(command, env=env, stderr=subprocess.DEVNULL).returncode
        assert value(by_hand, "select to_regclass('a')") == "a"  # with nothing of ours between, it is an attack
    with pytest.raises(VerificationFailed):
        restored(adopted["adopted"][0], repository, target, mode="into_empty", options=restore_options)
    assert value(target, "select to_regclass('a')") is None


def test_two_entries_with_one_dump_id_are_refused() -> None:
    """pg_restore restores both, and what looks an entry up by its dump ID sees one."""
    with pytest.raises(VerificationFailed, match="two entries with dump ID 70"):
        read_toc(io.BytesIO(toc(entry(6), entry(70), entry(70))), what="the archive")
