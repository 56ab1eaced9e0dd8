"""What several commands show of backup sets."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.text import Text

from airflow_pgbackup.backup.set_members import SetMembers, unusable_as_json, unusable_text
from airflow_pgbackup.backup.sets.choose_set import choose_set
from airflow_pgbackup.cli.display import age, facts
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import BackupNotFound, ManifestError
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.quantities import counted, human_bytes, human_time
from airflow_pgbackup.repository.backup_set import BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import decode_segment
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set
from airflow_pgbackup.repository.set_layout import SETS_FOLDER
from airflow_pgbackup.terminal import styled

_STYLES = {"complete": "green", "partial": "yellow"}
_DAMAGED = "damaged"
"""Shown for a complete set of which a backup cannot be used."""
Unusable = Sequence[tuple[SetMember, str]]
NOT_ONE_SNAPSHOT = "the databases of a set are not one snapshot: each was dumped at its own time"


def list_backup_sets(session: Session, repository: Repository) -> None:
    """Show the sets of a repository: the newest of each server, or all."""
    arguments = session.arguments
    listed = list_sets(repository, arguments.server)
    newest = {one.server: one for one in reversed(listed)}
    shown = listed if arguments.all else [one for one in listed if newest[one.server] is one]
    members, problems = SetMembers(repository), []
    with request_threads() as pool:
        read = list(pool.map(lambda one: _read(repository, one), shown))
    listing = Listing(["set", "age", "databases", "missing", "size", "status"], names=1, right=(1, 2, 3, 4))
    documents: list[dict[str, object]] = []
    for one, found in zip(shown, read, strict=True):
        if isinstance(found, str):
            listing.add(one.location, age(one.started_at), "?", "?", "?", styled("unreadable", "bold red"))
            documents.append({"set": one.location, "status": "unreadable", "problem": found})
            continue
        size = sum(member.size for member in found.members)
        missing = len(found.missing) + bool(found.globals_missing)
        unusable = members.unusable(found.members)
        status = _status(found, unusable)
        if unusable:
            problems.append(f"{one.location}: {unusable_text(unusable)}")
        databases = f"{len(found.databases):,}"
        listing.add(
            one.location,
            age(one.started_at),
            databases,
            f"{missing:,}",
            human_bytes(size),
            styled(status, _STYLES.get(status, "bold red")),
        )
        documents.append({**_document(found, unusable), "set": one.location})
    servers = len(newest)
    below = f"{counted(len(listed), 'backup set')} of {counted(servers, 'server')}"
    session.result(documents, *([listing] if shown else []), *problems, below)


def show_backup_set(session: Session, repository: Repository, series: str, selector: str) -> bool:
    """Show the set that ``SERVER/@sets`` or ``SERVER/@sets/ID`` names; return False for the name of a series."""
    folder, slash, id = series.partition(f"/{SETS_FOLDER}")
    if not slash or "/" in folder or not (id == "" or id.startswith("/")):
        return False
    try:
        server = decode_segment(folder)
    except ValueError:
        server = folder
    listed = choose_set(repository, server, id.removeprefix("/") or selector, log=session.log)
    found = read_listed_set(repository, listed)
    unusable = SetMembers(repository).unusable(found.members)
    lines = [f"cannot be used: {member.database or 'globals'} {reason}" for member, reason in unusable]
    session.result(_document(found, unusable), *set_lines(found, unusable), *lines)
    return True


def set_lines(found: BackupSet, unusable: Unusable = ()) -> list[str | Text | Listing]:
    """Return a set for people: what it is, its members in the order of a restore, what is missing and why.

    :param unusable: its members that cannot be used.
    """
    size = human_bytes(sum(member.size for member in found.members))
    shown = (
        ("set", f"{found.location}, {_status(found, unusable)}"),
        ("server", f"PostgreSQL {found.server_version}"),
        ("started", f"{human_time(found.started_at, seconds=True)}, {age(found.started_at)} ago"),
        ("size", f"{counted(len(found.databases), 'database')}{' and globals' if found.globals else ''}, {size}"),
    )
    listing = Listing(("member", "backup", "size", "level"), names=2, right=(2,))
    for member in found.members:
        listing.add(member.series, member.id, human_bytes(member.size), member.level or "unverified")
    lines: list[str | Text | Listing] = [*facts(shown)]
    lines += [listing] if found.members else []
    lines += [f"missing: the globals ({found.globals_missing})"] if found.globals_missing else []
    lines += _absences("missing", [(each.database, each.reason) for each in found.missing])
    lines += _absences("left out", [(each.database, each.reason) for each in found.left_out])
    lines += [f"dropped since the previous set: {name}" for name in found.dropped]
    return [*lines, NOT_ONE_SNAPSHOT]


def _absences(what: str, absences: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{what}: {name} ({reason})" for name, reason in absences]


def _document(found: BackupSet, unusable: Unusable) -> dict[str, object]:
    document: dict[str, object] = json.loads(found.to_json())
    return {**document, "status": _status(found, unusable), "unusable": unusable_as_json(unusable)}


def _status(found: BackupSet, unusable: Unusable) -> str:
    return _DAMAGED if unusable and found.status == "complete" else found.status


def _read(repository: Repository, one: ListedSet) -> BackupSet | str:
    try:
        return read_listed_set(repository, one)
    except (BackupNotFound, ManifestError) as error:
        return error.message
