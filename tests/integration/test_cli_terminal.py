"""Each verb at a terminal, as a new user meets it: without arguments, with wrong ones, without rights, on a full disk,
in a pipe, at 60 columns, without colors."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from every_verb import COMMAND, PROGRAM, VERBS, World, make_world, takes
from psycopg import sql
from ptys import HIDE, NEVER, SHOW, on_terminal, read_until, screen

from airflow_pgbackup.cli import main
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

NOBODY = 65534


@pytest.fixture(scope="module")
def world(server18: PostgresServer) -> Iterator[World]:
    with make_world(server18) as world:
        yield world


class Seen:
    """What a program wrote to its terminal, and its exit status."""

    def __init__(self, text: str, status: int, columns: int) -> None:
        assert "Traceback" not in text, text
        assert "Errno" not in text, text
        assert text.rfind(SHOW) >= text.rfind(HIDE), "the cursor is hidden"
        self.text, self.status = text, status
        self.lines = screen(text, columns, wraps=True)

    def error(self, verb: str) -> str:
        """Return the error: one line, and below it at most a hint, which are the last of the output.

        :raises AssertionError: there is none.
        """
        lines = self.text.replace("\r", "").rstrip("\n").split("\n")
        lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in lines]
        *_, last = (number for number, line in enumerate(lines) if line.startswith(f"pgbackup {verb}: "))
        assert [line[:6] for line in lines[last + 1 :]] in ([], ["hint: "]), self.text
        return "\n".join(lines[last:])


def at_terminal(
    world: World,
    arguments: Sequence[str],
    *,
    columns: int = 1000,
    before_exec: Callable[[], None] | None = None,
    **env: str,
) -> Seen:
    argv = [*PROGRAM, *arguments]
    with on_terminal(argv, {**world.env, **env}, columns, before_exec=before_exec) as (process, terminal):
        text = read_until(terminal, NEVER)
        return Seen(text, process.wait(120), columns)


def test_every_verb_is_tried() -> None:
    assert VERBS.keys() == COMMAND.keys()


# -- wrong arguments ---------------------------------------------------------------------------------------------------


def required(verb: str) -> list[str]:
    return [
        str(argument.options.get("metavar", argument.flags[0]))
        for argument in COMMAND[verb].arguments
        if argument.options.get("required")
        or (not argument.flags[0].startswith("-") and argument.options.get("nargs") not in ("?", "*"))
    ]


@pytest.mark.parametrize("verb", [verb for verb in VERBS if required(verb)])
def test_no_arguments(world: World, verb: str) -> None:
    seen = at_terminal(world, [verb], columns=60)
    assert seen.status == EXIT_STATUS["usage"]
    assert seen.lines[0].startswith(f"usage: pgbackup {verb} ")
    where = "Set PGBACKUP_REPOSITORY to leave out REPOSITORY. " if takes(verb, "repository") else ""
    assert seen.error(verb).split("\n")[-1] == f"hint: {where}Run pgbackup {verb} --help to see the arguments."
    (error,) = re.findall(f"pgbackup {verb}: the following arguments are required: (.*)", seen.text)
    for word in required(verb):
        assert word in error or verb in ("upload", "adopt"), "there, an option is named by its flag"


def test_no_verb_and_a_wrong_one(world: World) -> None:
    seen = at_terminal(world, [], columns=60)
    assert seen.status == EXIT_STATUS["usage"]
    for verb in VERBS:
        assert [line for line in seen.lines if line.startswith(f"    {verb} ")], "each on a line with its help"
    for word, hint in (("lst", "Did you mean 'list'?"), ("x", "Run pgbackup --help to see the arguments.")):
        wrong = at_terminal(world, [word, "--json"], columns=60)
        assert wrong.status == EXIT_STATUS["usage"]
        assert f"pgbackup: unknown command '{word}'" in wrong.lines
        assert f"hint: {hint}" in wrong.lines


@pytest.mark.parametrize("verb", VERBS)
def test_help_at_60_columns(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit, match=r"^0$"):
        main([verb, "--help"])
    lines = capsys.readouterr().out.split("\n")
    assert lines[0].startswith(f"usage: pgbackup {verb} ")
    assert not [line for line in lines if len(line) > 60 and " " in line.strip()], "the terminal would break a word"


WITH_REPOSITORY = [verb for verb in VERBS if takes(verb, "repository")]


@pytest.mark.parametrize("verb", [verb for verb in WITH_REPOSITORY if verb not in ("init", "check")])
def test_a_wrong_repository(world: World, verb: str) -> None:
    here = f"file://{world.directory}/nowhere"
    seen = at_terminal(world, world.arguments(verb, here=here))
    error = seen.error(verb)
    assert f"no repository at {here}: on host " in error
    assert f"the directory {world.directory}/nowhere does not exist\nhint: " in error
    assert "init_repository" not in error, "an operator's parameter"
    assert seen.status == EXIT_STATUS["failed"]


def test_a_wrong_repository_of_the_others(world: World) -> None:
    file = world.directory / "old" / "crm_2025-10-01.dump"
    seen = at_terminal(world, ["init", f"file://{file}"])
    assert seen.status == EXIT_STATUS["failed"]
    assert str(file) in seen.error("init")
    seen = at_terminal(world, ["list", "/var/backups"])
    assert seen.status == EXIT_STATUS["usage"]
    assert (
        seen.error("list") == "pgbackup list: not a repository's URI: '/var/backups'\nhint: Write file:///var/backups."
    )
    seen = at_terminal(world, ["check", f"file://{world.directory}/nowhere", "--server", "prod"])
    assert seen.status == EXIT_STATUS["check failed"]
    assert f"no repository at file://{world.directory}/nowhere" in seen.text
    upload = at_terminal(world, world.arguments("upload", there=f"file://{file}"))
    assert f"{file} is not a directory" in upload.error("upload")
    again = at_terminal(world, ["init", world.here.uri])
    assert f"repository {world.here.uri} exists already, with UUID " in again.text


@pytest.mark.parametrize("verb", [verb for verb in VERBS if takes(verb, "id") and takes(verb, "series")] + ["diff"])
def test_a_wrong_id(world: World, verb: str) -> None:
    arguments = [one for one in world.arguments(verb) if one != world.id]
    arguments.insert(3, "20990101T000000Z-000000")
    seen = at_terminal(world, arguments)
    assert seen.status == EXIT_STATUS["failed"]
    error = seen.error(verb)
    assert f"backup {world.names['series']}/20990101T000000Z-000000 does not exist\nhint: The nearest " in error
    assert world.id in error


@pytest.mark.parametrize("verb", ["check", "dump", "dump-set", "restore", "refresh", "verify", "drill", "mask"])
def test_a_wrong_password(world: World, verb: str) -> None:
    arguments = world.arguments(verb)
    if verb in ("verify", "drill"):
        arguments += ["--scratch", *(["--level", "restore"] if verb == "verify" else [])]
    seen = at_terminal(world, arguments, PGPASSWORD="wr0ng")
    assert "password authentication failed" in seen.text
    assert re.search("(?i)hint: ", "\n".join(seen.lines))
    assert "wr0ng" not in seen.text
    status = {"check": "check failed", "verify": "not proven", "drill": "not proven"}.get(verb, "failed")
    assert seen.status == EXIT_STATUS[status]
    assert world.databases() >= {world.database.dbname}


def test_every_verb_that_connects_has_had_a_wrong_password() -> None:
    assert {verb for verb in VERBS if takes(verb, "--host")} == {
        "check",
        "dump",
        "dump-set",
        "restore",
        "refresh",
        "verify",
        "drill",
        "mask",
        "restore-set",
    }  # fmt: skip  restore-set needs a set: test_cli_sets.py


# -- no rights, a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def as_nobody(world: World) -> Iterator[Callable[[], None]]:
    """Make the process a user who may not read the repository: nobody, or where this is no root's, the same user."""
    world.tmp.chmod(0o777)
    path = Path(world.here.uri.removeprefix("file://"))
    mode = path.stat().st_mode

    def drop() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    if os.geteuid() != 0:
        path.chmod(0)
    yield drop
    path.chmod(mode)


@pytest.mark.parametrize("verb", [verb for verb in WITH_REPOSITORY if verb != "check"])
def test_no_rights(world: World, as_nobody: Callable[[], None], verb: str) -> None:
    arguments = world.arguments(verb, new=world.here.uri)
    seen = at_terminal(world, arguments, before_exec=as_nobody)
    assert seen.status == EXIT_STATUS["failed"]
    error = seen.error(verb)
    assert "permission denied" in error
    assert "\nhint: " in error


def test_sources_that_cannot_be_read(world: World, as_nobody: Callable[[], None]) -> None:
    """No dumps found is another thing, and no failure."""
    mine = world.directory / "mine"
    with put_back(world):
        shutil.copytree(world.directory / "there", mine)
        for path in (mine, *mine.rglob("*")):
            if os.geteuid() == 0:
                os.chown(path, NOBODY, NOBODY)
        arguments = world.arguments("adopt", here=f"file://{mine}", old=world.directory / "here" / "prod")
        seen = at_terminal(world, arguments, before_exec=as_nobody)
    assert seen.status == EXIT_STATUS["failed"]
    assert f"cannot read {world.directory}/here/prod: permission denied\nhint: " in seen.error("adopt")


def test_check_without_rights(world: World, as_nobody: Callable[[], None]) -> None:
    seen = at_terminal(world, world.arguments("check"), before_exec=as_nobody)
    assert seen.status in (EXIT_STATUS["failed"], EXIT_STATUS["check failed"])
    assert "permission denied" in seen.text


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None] | None]]:
    """A directory on a small file system; where none can be mounted, one in which no file may grow beyond a size, which
    is another error (EFBIG) at the same places."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k,mode=755", "none", tmp_path], capture_output=True)
    if mounted.returncode != 0:
        yield tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
        return
    try:
        yield tmp_path, None
    finally:
        subprocess.run(["umount", tmp_path], check=True)


FULL = "no space left on device|file too large|which has .* free"
WRITES_MUCH = {
    "dump": "dump {full} --server prod",
    "upload": "upload {here} {series} --to {full}",
    "adopt": "adopt {full} {old} --server old --yes",
    "get": "get {here} {series} --into {directory}",
}


@pytest.mark.parametrize("verb", WRITES_MUCH)
def test_a_full_disk(world: World, full_disk: tuple[Path, Callable[[], None] | None], verb: str) -> None:
    directory, limit = full_disk
    repository = open_repository(f"file://{directory}/r")
    repository.init()
    (directory / "get").mkdir()
    before = sorted(directory.rglob("*"))
    arguments = world.arguments(WRITES_MUCH[verb], full=repository.uri, directory=directory / "get")
    seen = at_terminal(world, arguments, before_exec=limit)
    assert seen.status == EXIT_STATUS["failed"]
    assert re.search(FULL, seen.error(verb))
    assert "\nhint: " in seen.error(verb)
    assert sorted(directory.rglob("*")) == before, "nothing is left"


def test_a_disk_without_room_for_a_small_file(world: World, full_disk: tuple[Path, Callable[[], None] | None]) -> None:
    directory, limit = full_disk
    shutil.copytree(world.directory / "here", directory / "r", ignore=shutil.ignore_patterns("*.dump", "*.dat*"))
    if limit is None:
        fill(directory / "rest")
    else:
        limit = no_bytes
    here = f"file://{directory}/r"
    before = sorted(directory.rglob("*"))
    for verb, names in (("init", {"new": f"file://{directory}/new"}), ("pin", {"here": here})):
        seen = at_terminal(world, world.arguments(verb, **names), before_exec=limit)
        assert seen.status == EXIT_STATUS["failed"]
        assert re.search(FULL, seen.error(verb))
    shutil.rmtree(directory / "new", ignore_errors=True)  # an empty directory is no repository
    assert sorted(directory.rglob("*")) == before


def no_bytes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def fill(path: Path) -> None:
    """Write until the file system is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


# -- in a pipe, narrow, without colors ---------------------------------------------------------------------------------

TRIED = [
    verb for verb in VERBS if verb not in ("demo", "drill", "dump-set", "restore-set")
]  # elsewhere; they take their time


@contextmanager
def put_back(world: World) -> Iterator[None]:
    """Remove what a verb makes, so that the world stays as it was."""
    databases, files = world.databases(), world.files()
    yield
    with world.server.params.connect() as session:
        for name in world.databases() - databases:
            session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    for path in map(Path, sorted(world.files() - files, reverse=True)):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.parametrize("number", range(len(TRIED)), ids=TRIED)
def test_no_control_characters_where_none_are_wanted(world: World, number: int) -> None:
    env = {"NO_COLOR": "1"} if number % 2 else {"TERM": "dumb"}  # Terminal.can_redraw treats them alike
    with put_back(world):
        seen = at_terminal(world, world.arguments(TRIED[number]), **env)
    assert seen.status in (EXIT_STATUS["done"], EXIT_STATUS["check failed"])
    assert not [character for character in seen.text if character < " " and character not in "\r\n"]


LONG_WORK = ["dump", "verify", "upload", "get", "restore", "adopt", "fsck", "list"]


@pytest.mark.parametrize("verb", LONG_WORK)
def test_work_is_shown_on_a_terminal_and_nothing_of_it_stays(world: World, verb: str) -> None:
    with put_back(world):
        seen = at_terminal(world, world.arguments(verb), columns=80)
    assert seen.status == EXIT_STATUS["done"]
    assert HIDE in seen.text
    assert re.search(r"[⠀-⣿] \w+ing ", seen.text), "the spinner, and what is done"
    assert not [line for line in seen.lines if re.search("[━╸╺⠀-⣿]", line)]


@pytest.mark.parametrize("verb", TRIED)
def test_in_a_pipe(world: World, verb: str) -> None:
    """The output is plain lines, of which `head -1` takes the first, and does not disturb the work."""
    command = shlex.join([*PROGRAM, *world.arguments(verb)])
    everything = world.directory / f"{verb}.out"
    with put_back(world):
        script = f"{command} | tee {everything} | head -1; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", script], env=world.env, capture_output=True, text=True, timeout=240)
        lines = everything.read_text().splitlines()
    assert done.returncode in (EXIT_STATUS["done"], EXIT_STATUS["check failed"]), done.stderr
    assert done.stdout.splitlines() == lines[:1], "each says something"
    assert not re.search(r"[^\x20-\U0010ffff\n]", "\n".join([*lines, done.stderr]))
    assert "Traceback" not in done.stderr
    assert "roken" not in done.stderr


@pytest.mark.parametrize("verb", ["list", "prune", "freshness", "adopt", "diff", "show"])
def test_records_at_60_columns(world: World, verb: str) -> None:
    """No record is broken inside a word, and ids are complete."""
    arguments = [*world.arguments(verb), *(["--dry-run"] if verb == "adopt" else [])]
    while True:
        before, narrow, after = (at_terminal(world, arguments, columns=columns) for columns in (1000, 60, 1000))
        assert narrow.status == before.status == after.status == EXIT_STATUS["done"]
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", narrow.text).split("\n")
        records = [line for line in lines if re.match(r" {4}\S", line)]
        broken = words(records) - words(before.lines) - words(after.lines)
        # Ages are in minutes: on a busy machine each run can have another one, and such runs prove nothing.
        if not broken or before.lines == after.lines:
            break
    assert not broken
    assert records
    assert all(len(line) <= 60 for line in records)


def words(lines: Sequence[str]) -> set[str]:
    return set(re.findall(r"[^\s,;]+", "\n".join(lines)))
