"""Ctrl-C at a terminal, at the start, in the middle and during the commit of each verb that makes something.

Whatever the moment: one line, exit status 130, the terminal as it was, and nothing left behind.
"""

from __future__ import annotations

import json
import os
import re
import sys
import termios
import time
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import pytest
from every_verb import World, make_world
from honest import write_backup
from ptys import HIDE, NEVER, SHOW, on_terminal, read_until, screen

from airflow_pgbackup.backup.removal import remove_backup
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import open_repository

COLUMNS = 100
REACHED = "@@"

# Runs pgbackup, and waits for a signal at a moment: when a module is imported, or before or after a call of a function
# whose arguments name something.
PROGRAM = """
import functools, importlib, json, os, signal, sys

def wait():
    came, comes = os.pipe()
    os.set_blocking(comes, False)
    signal.set_wakeup_fd(comes)  # a signal before the read is not missed, as one before signal.pause() would be
    for _ in range(signals):
        os.write(2, b"@@\\n")
        os.read(came, 1)

class AtImport:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == module:
            wait()

module, name, when, needle, signals = json.loads(os.environ.pop("MOMENT"))
if when == "import":
    sys.meta_path.insert(0, AtImport)
elif when != "text":
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    owner = functools.reduce(getattr, classes, owner)
    original = getattr(owner, name)
    once = [True]

    def patched(*args, **kwargs):
        here = once and needle in repr((args, kwargs))
        if here and when == "before":
            once.clear()
            wait()
        result = original(*args, **kwargs)
        if here and when == "after":
            once.clear()
            wait()
        return result

    setattr(owner, name, patched)

from airflow_pgbackup.cli import main
sys.exit(main())
"""


class Moment(NamedTuple):
    module: str = ""
    name: str = ""
    when: str = "text"
    needle: str = ""
    signals: int = 1


START = Moment("airflow_pgbackup.cli.run", when="import")
LINKED = ("airflow_pgbackup.repository.local.root", "name_exclusively")
MANIFEST = Moment(*LINKED, "before", "manifest.json")
COMMITTED = MANIFEST._replace(when="after")
REHEARSE = "verify {here} {series} --level restore"


@pytest.fixture(scope="module")
def world(server18: PostgresServer) -> Iterator[World]:
    with make_world(server18) as world:
        yield world


def interrupted(
    world: World, verb: str, moment: Moment, patterns: Sequence[str] = (REACHED,), makes: Collection[str] = ()
) -> list[str]:
    """Run a verb, press Ctrl-C when it reaches a moment or shows a pattern, and return what the terminal shows then.

    :param patterns: Ctrl-C is pressed at each.
    :param makes: databases that are there afterwards.
    :raises AssertionError: the terminal is not as it was, or something is left behind.
    """
    databases = world.databases()
    argv = [sys.executable, "-c", PROGRAM, *world.arguments(verb)]
    with on_terminal(argv, {**world.env, "MOMENT": json.dumps(moment)}, COLUMNS) as (process, terminal):
        before = termios.tcgetattr(terminal)
        seen = ""
        for pattern in patterns:
            seen += read_until(terminal, pattern)
            os.write(terminal, b"\x03")
        seen += read_until(terminal, NEVER)
        assert process.wait(120) == EXIT_STATUS["interrupted"], seen
        assert termios.tcgetattr(terminal) == before
    assert seen.rfind(SHOW) >= seen.rfind(HIDE), "the cursor is hidden"
    assert world.databases() == databases.union(makes)
    assert_no_process_with(str(world.tmp))  # the last of them removes its directory
    assert list(world.tmp.iterdir()) == []
    lines = screen(seen.replace("^C", "").replace(f"{REACHED}\r\n", ""), COLUMNS, wraps=True)
    assert not [line for line in lines if re.search("[━╸╺⠀-⣿]", line)], "a bar is left"
    assert [line for line in lines if "interrupted" in line] == lines[-1:]
    assert "Traceback" not in seen
    return lines


def assert_no_process_with(text: str) -> None:
    """Check that no process has this in its environment; one that was killed may take a moment to end."""
    end = time.monotonic() + 120
    while found := [path for path in Path("/proc").glob("[0-9]*/environ") if text in read(path)]:
        assert time.monotonic() < end, [read(path.with_name("cmdline")) for path in found]
        time.sleep(0.05)


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has ended, or belongs to somebody else
        return ""


def said(verb: str, *, removed: bool = True) -> str:
    return f"pgbackup {verb}: interrupted" + ("; incomplete work was removed" if removed else "")


@pytest.mark.parametrize("verb", ["dump", "verify", "upload", "restore", "adopt", "prune"])
def test_at_the_start(world: World, verb: str) -> None:
    files = world.files()
    assert interrupted(world, verb, START) == ["pgbackup: interrupted"]
    assert world.files() == files


def test_in_the_middle_of_a_dump(world: World) -> None:
    files = world.files()
    with world.database.connect() as session:
        session.execute("begin")
        session.execute("lock table film in access exclusive mode")
        lines = interrupted(world, "dump", Moment(), [r"dumping world_\w+ .*~0%"])
    assert lines[0].startswith("dumping ")
    assert lines[-1] == said("dump")
    assert world.files() == files


LOGGED = Moment("airflow_pgbackup.cli.session", "Session.log", "after")
CREATED = LOGGED._replace(needle="created database pgbackup_tmp")
MIDDLE = [
    ("verify", Moment("airflow_pgbackup.backup.verification_run", "choose_reader", "after"), REACHED),
    (REHEARSE, LOGGED._replace(needle="rehearsing on the throwaway"), REACHED),
    ("upload", Moment("airflow_pgbackup.backup.upload", "Meter.read", "before"), REACHED),
    ("restore", CREATED, REACHED),
    ("refresh", CREATED, REACHED),
    ("adopt", Moment("airflow_pgbackup.repository.byte_source", "ByteSource.read", "before"), REACHED),
]


@pytest.mark.parametrize(("verb", "moment", "pattern"), MIDDLE, ids=[one[0].partition(" ")[0] for one in MIDDLE])
def test_in_the_middle(world: World, verb: str, moment: Moment, pattern: str) -> None:
    files = world.files()
    lines = interrupted(world, verb, moment, [pattern])
    assert lines[-1] == said(verb.partition(" ")[0])
    assert world.files() == files


COMMITS = [
    ("dump", MANIFEST),
    ("verify", Moment(*LINKED, "before", "-archive-pass.json")),
    ("upload", MANIFEST),
    ("restore", Moment("airflow_pgbackup.backup.restore.database", "rename_databases", "before")),
    ("adopt", MANIFEST),
]


@pytest.mark.parametrize(("verb", "moment"), COMMITS, ids=[one[0] for one in COMMITS])
def test_during_the_commit(world: World, verb: str, moment: Moment) -> None:
    files = world.files()
    assert interrupted(world, verb, moment)[-1] == said(verb)
    assert world.files() == files


AFTER_COMMITS = [("dump", "here"), ("upload", "there"), ("adopt", "here")]


@pytest.mark.parametrize(("verb", "place"), AFTER_COMMITS, ids=[one[0] for one in AFTER_COMMITS])
def test_right_after_the_commit(world: World, verb: str, place: str) -> None:
    """What is complete stays, and that is said."""
    repository = getattr(world, place)
    before, files = set(read_catalogue(repository).backups), world.files()
    lines = interrupted(world, verb, COMMITTED)
    (made,) = set(read_catalogue(repository).backups) - before
    assert f"backup {made.series}/{made.id} was already complete and is kept" in lines
    assert lines[-1] == said(verb)
    remove_backup(repository, made)
    assert world.files() == files


def test_right_after_the_rename_of_a_restore(world: World) -> None:
    moment = Moment("airflow_pgbackup.backup.restore.database", "rename_databases", "after")
    lines = interrupted(world, "restore {here} {series} --mode create -d restored", moment, makes={"restored"})
    assert lines[-1] == said("restore")
    with world.server.params.with_database("restored").connect() as session:
        assert session.execute("select count(*) from film").fetchone() == (1000,)
    with world.server.params.connect() as session:
        session.execute("drop database restored with (force)")


@pytest.fixture
def to_prune(tmp_path: Path) -> Repository:
    """A repository with four backups, of which prune keeps the newest."""
    repository = open_repository(f"file://{tmp_path}/pruned")
    repository.init()
    now = datetime.now(timezone.utc).replace(microsecond=0)
    for days in range(4):
        write_backup(repository, Series("prod", "app"), now - timedelta(days=days))
    return repository


def test_in_the_middle_of_prune(world: World, to_prune: Repository) -> None:
    """The oldest is deleted first, and that is said."""
    newest, *others, last_but_one, oldest = read_catalogue(to_prune).backups
    moment = Moment("airflow_pgbackup.backup.prune", "remove_backup", "before", last_but_one.id)
    lines = interrupted(world, f"prune {to_prune.uri} --keep-last 1 --delete", moment)
    assert lines == [f"deleted prod/app/{oldest.id} (5 bytes)", said("prune", removed=False)]
    assert read_catalogue(to_prune).backups == (newest, *others, last_but_one)
    assert not read_catalogue(to_prune).leftovers


def test_while_prune_deletes_a_backup(world: World, to_prune: Repository) -> None:
    """Without its manifest it is no backup, so the rest of it is deleted, too."""
    *others, oldest = read_catalogue(to_prune).backups
    moment = Moment("airflow_pgbackup.repository.local.repository", "LocalRepository._delete", "after", "manifest.json")
    assert interrupted(world, f"prune {to_prune.uri} --keep-last 1 --delete", moment) == [said("prune", removed=False)]
    assert read_catalogue(to_prune).backups == tuple(others)
    assert not list(to_prune.list(oldest.folder))


CLEANUP = Moment("airflow_pgbackup.backup.attempt", "Attempt.remove_written", "before")


def test_a_second_ctrl_c_does_not_interrupt_the_cleanup(world: World) -> None:
    files = world.files()
    with world.database.connect() as session:
        session.execute("begin")
        session.execute("lock table film in access exclusive mode")
        lines = interrupted(world, "dump", CLEANUP, [r"dumping world_\w+ .*~0%", REACHED])
    assert "removing incomplete work; a third Ctrl-C leaves it" in lines
    assert lines[-1] == said("dump")
    assert world.files() == files


def test_a_third_ctrl_c_leaves_incomplete_work_to_prune(world: World, tmp_path: Path) -> None:
    repository = open_repository(f"file://{tmp_path}/left")
    repository.init()
    with world.database.connect() as session:
        session.execute("begin")
        session.execute("lock table film in access exclusive mode")
        patterns = [r"dumping world_\w+ .*~0%", REACHED, REACHED]
        lines = interrupted(world, f"dump {repository.uri} --server prod", CLEANUP._replace(signals=2), patterns)
    assert lines[-1] == "pgbackup dump: interrupted; incomplete work may be left"
    assert not read_catalogue(repository).backups


def test_a_closed_terminal(world: World) -> None:
    """The kernel sends SIGHUP, and nothing can be written any more."""
    files = world.files()
    with world.database.connect() as session:
        session.execute("begin")
        session.execute("lock table film in access exclusive mode")
        argv = [sys.executable, "-c", PROGRAM, *world.arguments("dump")]
        env = {**world.env, "MOMENT": json.dumps(Moment())}
        with on_terminal(argv, env, COLUMNS) as (process, terminal):
            read_until(terminal, r"dumping world_\w+ .*~0%")
            os.close(terminal)
            assert process.wait(120) == EXIT_STATUS["interrupted"]
    assert_no_process_with(str(world.tmp))  # the last of them removes its directory
    assert list(world.tmp.iterdir()) == []
    assert world.files() == files
