"""The operations of the matrix: what they need, their arguments, and what must hold after a success and a failure."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from airflow_pgbackup.backup.verification_run import VerificationRun
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import read_evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.set_files import list_sets
from tests.campaign.aftermath import Outcome, Snapshot
from tests.campaign.matrix_case import Case
from tests.campaign.matrix_world import FORMATS, ROWS

Check = Callable[[Case, Snapshot, Outcome], Iterator[str]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One row of the matrix.

    :param arguments: of ``pgbackup``; ``{id}`` is an older backup, in a random format.
    :param check: what must hold afterwards, beside the five assertions.
    :param prepare: called before the snapshot.
    :param server: whether it connects to PostgreSQL. :param tools: the programs that it runs.
    :param repositories: how many it takes. :param removes: whether it deletes all backups but the newest.
    :param formats: of the backups that it takes. :param writes: whether it writes to the last repository.
    """

    name: str
    arguments: str
    check: Check
    prepare: Callable[[Case], None] = lambda case: None
    server: bool = True
    tools: tuple[str, ...] = ("pg_dump",)
    removes: bool = False
    repositories: int = 1
    formats: tuple[str, ...] = FORMATS
    writes: bool = True

    def may_remove(self, case: Case, folder: str) -> bool:
        newest = case.world.ids[case.encrypted, case.world.formats[-1]]
        return self.removes and not folder.endswith(newest)


def made(case: Case, before: Snapshot, repository: Repository) -> list[Backup]:
    """Return the backups that were not there before."""
    return [
        backup for backup in read_catalogue(repository).backups if (repository.uri, backup.folder) not in before.backups
    ]


def makes_backups(count: int, where: str = "here", *, adopted: bool = False) -> Check:
    """:param adopted: as they are, not encrypted."""

    def check(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
        new = made(case, before, getattr(case, where))
        if outcome.status == 0 and len(new) != count:
            yield f"it reported success, and made {len(new)} backups, expected {count}"
        if len(new) > count:
            yield f"it made {len(new)} backups, expected at most {count}"
        if case.encrypted and not adopted:
            for backup in new:
                manifest = read_evidence(getattr(case, where), backup.series, backup.id).require_manifest()
                if manifest.artifact.encryption is None:
                    yield f"{backup.folder} is not encrypted"

    return check


def makes_set(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
    yield from makes_backups(3)(case, before, outcome)
    sets = list_sets(case.here)
    if outcome.status == 0 and len(sets) != 1:
        yield f"it reported success, and made {len(sets)} sets"


def records(level: str) -> Check:
    def check(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
        backup = read_evidence(case.here, Series("prod", "app"), case.names["id"]).backup
        new = [one for one in backup.verifications if one.level == level]
        old = [
            path
            for path in before.backups[case.here.uri, backup.folder]
            if path.startswith("verification-") and f"-{level}-" in path
        ]
        if outcome.status == 0 and len(new) <= len(old) and level == "restore":
            yield f"it reported success, and recorded no verification at {level}"
        if backup.state != "verified":
            yield f"a sound backup is {backup.state} now"

    return check


def prunes(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
    left = read_catalogue(case.here).backups
    expected = 1 + outcome.stdout.count("ignored by the retention rules")  # one that cannot be read is kept
    if outcome.status == 0 and len(left) != expected:
        yield f"it reported success, and left {len(left)} backups, expected {expected}"


def adopts(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
    yield from makes_backups(2, adopted=True)(case, before, outcome)
    present = len(list(Path(case.names["old"]).glob("*.dump")))
    new = made(case, before, case.here)
    if present + len(new) < 2:
        yield f"{present} of 2 sources and {len(new)} backups exist: a dump is lost"


def old_dumps(case: Case) -> None:
    repository = case.world.template(False, "here")
    (artifact,) = repository.glob(f"prod/app/{case.world.ids[False, 'custom']}/**/*.dump")
    Path(case.names["old"]).mkdir()
    for month in ("10", "11"):
        shutil.copy(artifact, Path(case.names["old"]) / f"crm_2025-{month}-01.dump")


def rows_of(case: Case, database: str) -> tuple[int, ...] | str:
    """Return the rows of the two tables, or ``old``, ``empty``, ``missing``, ``partial``."""
    with case.world.server.params.connect() as session:
        if not session.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            return "missing"
    with case.world.server.params.with_database(database).connect() as session:
        tables = session.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchall()
        names = {name for (name,) in tables}
        if names == {"old"} or not names:
            return "old" if names else "empty"
        if names != {"film", "film_pkey", "wide", "wide_n_idx", "titles"}:
            return f"partial, with {', '.join(sorted(names))}"
        counts = session.execute("SELECT (SELECT count(*) FROM film), (SELECT count(*) FROM wide)").fetchone()
        assert counts is not None
        return tuple(counts)


def restores(otherwise: str) -> Check:
    """:param otherwise: what the target is unless it is complete."""

    def check(case: Case, before: Snapshot, outcome: Outcome) -> Iterator[str]:
        found = rows_of(case, case.target)
        if found != ROWS and (outcome.status == 0 or found != otherwise):
            yield f"exit status {outcome.status}, and the target is {found}, expected {ROWS} or {otherwise}"

    return check


def create_old(case: Case) -> None:
    case.world.execute(f"CREATE DATABASE {case.target} TEMPLATE template0")
    case.world.execute("CREATE TABLE old AS SELECT 1 AS a", database=case.target)


def create_empty(case: Case) -> None:
    case.world.execute(f"CREATE DATABASE {case.target} TEMPLATE template0")


RESTORE = ("pg_restore", "psql")
DUMP = "dump {here} --server prod"
RESTORED = "restore {here} prod/app {id} -d {target}"
OPERATIONS = [
    *(
        Operation(name=f"dump -F {format}", arguments=f"{DUMP} -o format={format}{more}", check=makes_backups(1))
        for format, more in (("custom", ""), ("directory", " -o jobs=2"), ("tar", ""), ("plain", ""))
    ),
    Operation(name="dump, uncompressed", arguments=f"{DUMP} -o compress=none", check=makes_backups(1)),
    Operation(name="dump and verify", arguments=f"{DUMP} --verify archive", check=makes_backups(1)),
    Operation(
        name="globals",
        arguments=f"{DUMP} --cluster -o globals_only",
        check=makes_backups(1),
        tools=("pg_dumpall",),
    ),
    Operation(
        name="dump-set",
        arguments="dump-set {here} --server prod --database app --database small",
        check=makes_set,
        tools=("pg_dump", "pg_dumpall"),
    ),
    *(
        Operation(
            name=f"verify {level}",
            arguments="verify {here} prod/app {id} --level " + level,
            check=records(level),
            server=False,
            tools=() if level == "integrity" else RESTORE if level == "archive" else (*RESTORE, "postgres"),
        )
        for level in ("integrity", "archive", "restore")
    ),
    Operation(
        name="upload",
        arguments="upload {here} prod/app {id} --to {there}",
        check=makes_backups(1, "there"),
        server=False,
        tools=(),
        repositories=2,
    ),
    Operation(
        name="restore create",
        arguments=f"{RESTORED} --mode create",
        check=restores("missing"),
        tools=RESTORE,
        writes=False,
    ),
    Operation(
        name="restore into_empty",
        arguments=RESTORED,
        check=restores("empty"),
        prepare=create_empty,
        tools=RESTORE,
        writes=False,
    ),
    Operation(
        name="restore replace",
        arguments=f"{RESTORED} --mode replace --yes --drop-old",
        check=restores("old"),
        prepare=create_old,
        tools=RESTORE,
        writes=False,
    ),
    Operation(
        name="refresh",
        arguments="refresh {here} prod/app {id} -d {target} --yes --keep 1",
        check=restores("old"),
        prepare=create_old,
        tools=RESTORE,
        formats=("directory", "custom"),
        writes=False,
    ),
    Operation(
        name="prune",
        arguments="prune {here} --keep-last 1 --delete",
        check=prunes,
        server=False,
        tools=(),
        removes=True,
    ),
    Operation(
        name="adopt",
        arguments="adopt {here} {old} --server old --yes",
        check=adopts,
        prepare=old_dumps,
        server=False,
        tools=(),
    ),
    Operation(
        name="adopt --move",
        arguments="adopt {here} {old} --server old --yes --move --verify archive",
        check=adopts,
        prepare=old_dumps,
        server=False,
        tools=("pg_restore",),
    ),
]


def verify_restorable(case: Case, before: Snapshot) -> Iterator[str]:
    """Rehearse what was made, without a record of it."""
    for repository in case.scene.repositories:
        for backup in made(case, before, repository):
            with suppress(BackupNotFound):
                manifest = read_evidence(repository, backup.series, backup.id).require_complete()
                report = VerificationRun(repository, manifest, "restore", None, (), case.world.context()).run()
                if report.result != "pass":
                    wrong = [f"{one.name}: {one.detail}" for one in report.checks if one.result != "pass"]
                    yield f"{backup.folder} does not restore: {'; '.join(wrong)}"
