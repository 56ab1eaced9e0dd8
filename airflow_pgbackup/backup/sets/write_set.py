"""write_set: tie the backups of one run together, and record what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.databases.source_identity import seed_for
from airflow_pgbackup.backup.reference import SEED, load_evidence, seed_digest
from airflow_pgbackup.backup.sets.discover import Discovery
from airflow_pgbackup.errors import BackupNotFound, ManifestError, PartialSet
from airflow_pgbackup.interruption import request_threads
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.backup_set import Absent, BackupSet, SetMember
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.evidence import Evidence
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.set_files import ListedSet, list_sets, read_listed_set
from airflow_pgbackup.repository.set_files import write_set as store_set
from airflow_pgbackup.text import first_of, printable
from airflow_pgbackup.wording import complete_set

NOT_MADE = "no backup was made"
NAMED = 5
"""Missing databases that an error names; the set lists all."""


def write_set(
    *,
    repository: Repository,
    server: str,
    discovery: Discovery,
    backups: Sequence[Mapping[str, object]],
    globals_backup: Mapping[str, object] | None = None,
    with_globals: bool = True,
    minimum_level: str | None = "archive",
    reasons: Mapping[str | None, str] = MappingProxyType({}),
    set_id: str | None = None,
    objection: Callable[[Mapping[str, object]], str | None] = lambda origin: None,
    context: RunContext | None = None,
) -> BackupSet:
    """Write the backup set of a run: complete, or partial with what is missing and why.

    What counts is read from the repository, never taken from the references: a member is complete, of its series, and
    verified at `minimum_level`. A second call with the same seed and server adds to the set of the first, if it has the
    same discovery or a backup of that set; otherwise it begins a set of its own. A complete set stays complete.

    :param server: the first part of the series of all members.
    :param discovery: what was to be dumped.
    :param backups: references to the backups of databases, in any order. A database may have none.
    :param globals_backup: the reference to the backup of roles and tablespaces; None: it failed.
    :param with_globals: whether the globals are part of the set.
    :param minimum_level: None accepts each complete backup that has not failed a verification.
    :param reasons: why a database, or None for the globals, has no reference.
    :param set_id: of the set, as for a copy in another repository; by default from the seed and the discovery. A
        backup that is older than this set is not a member: an earlier attempt copied it.
    :param objection: returns why a backup with this origin cannot be a member, or None.
    :raises PartialSet: the set exists and is complete, and this one would be partial. Nothing was written.
    :raises RepositoryMismatch: a reference was made in another repository.
    :raises RepositoryError: the repository does not answer, or cannot be written.
    """
    layout.check_level(minimum_level)
    context = context or RunContext()
    if context.seed and discovery.source:
        context = replace(context, seed=seed_for(context.seed, discovery.source))
    read = _read(repository, [*backups, *([globals_backup] if globals_backup else [])])
    since = layout.parse_backup_id(set_id) if set_id else None
    made = {series: _Judged(evidence, minimum_level, since, objection) for series, evidence in read.items()}
    members: list[SetMember] = []
    missing = list(discovery.missing)
    for found in discovery.databases:
        judged = made.get(Series(server, found.name))
        if judged is not None and judged.reason is None:
            members.append(judged.member())
        else:
            absent = reasons.get(found.name, NOT_MADE)
            missing.append(Absent(found.name, absent if judged is None else judged.reason or ""))
    globals_member = globals_missing = None
    if with_globals:
        judged = made.get(Series(server, None, "globals"))
        globals_missing = judged.reason if judged else reasons.get(None, NOT_MADE)
        globals_member = judged.member() if judged and judged.reason is None else None
    others = list_sets(repository, server)
    all_members = [*members, *([globals_member] if globals_member else [])]
    id = set_id or _id(repository, others, discovery, all_members, context)
    seed = {SEED: seed_digest(context.seed)} if context.seed else {}
    wanted = BackupSet(
        id=id,
        server=server,
        status="partial" if missing or globals_missing else "complete",
        started_at=layout.parse_backup_id(id) or discovery.started_at,
        finished_at=discovery.started_at,
        server_version=discovery.server_version,
        origin={**context.origin, **seed},
        globals=globals_member,
        globals_missing=globals_missing,
        databases=tuple(members),
        missing=tuple(missing),
        left_out=discovery.left_out,
        dropped=_dropped(repository, others, id, discovery, context),
    )
    if wanted.status == "partial" and any(one.id == id and one.status == "complete" for one in others):
        raise PartialSet(
            f"complete backup set {wanted.location} in {repository.uri} was not replaced by a partial one: "
            f"{_gaps(wanted)}",
            hint=complete_set(),
        )
    written = store_set(repository, wanted)
    _log(repository, written, context)
    return written


def require_complete(*sets: tuple[Repository, BackupSet]) -> None:
    """Check that nothing is missing from the sets of a run: the set, and its copies.

    :raises PartialSet: something is; one error that names it.
    """
    partial = [f"{one.location} in {repository.uri} is partial: {_gaps(one)}" for repository, one in sets if _gaps(one)]
    if partial:
        raise PartialSet(
            f"backup set {'; '.join(partial)}",
            hint=complete_set(),
        )


def as_json(repository: Repository, one: BackupSet) -> dict[str, object]:
    """Return a set as plain JSON, small, for XCom: names and numbers, and what is missing."""
    return {
        "repository": repository.uri,
        "repository_uuid": repository.uuid,
        "server": one.server,
        "id": one.id,
        "set": one.location,
        "status": one.status,
        "databases": len(one.databases),
        "size": sum(member.size for member in one.members),
        "missing": [{"database": each.database, "reason": each.reason} for each in one.missing],
        "globals_missing": one.globals_missing,
        "left_out": len(one.left_out),
        "dropped": list(one.dropped),
    }


class _Judged:
    """A backup as its files prove it. :ivar reason: why it cannot be a member; None if it can."""

    def __init__(
        self,
        evidence: Evidence | str,
        minimum_level: str | None,
        since: datetime | None,
        objection: Callable[[Mapping[str, object]], str | None],
    ) -> None:
        self.evidence = evidence
        self.reason = evidence if isinstance(evidence, str) else _too_little(evidence, minimum_level)
        if isinstance(evidence, Evidence) and since and evidence.backup.started_at < since - SKEW:
            self.reason = f"backup {evidence.backup.id} is older than the set"
        if self.reason is None and isinstance(evidence, Evidence):
            why = objection(evidence.require_manifest().origin)
            self.reason = why and f"backup {evidence.backup.id} {why}"

    def member(self) -> SetMember:
        assert isinstance(self.evidence, Evidence)  # noqa: S101
        return SetMember.of(self.evidence.require_manifest(), self.evidence.backup.level)


def _too_little(evidence: Evidence, minimum: str | None) -> str | None:
    backup = evidence.backup
    enough = minimum is None or layout.reaches(backup.level, minimum)
    if enough and backup.state not in ("incomplete", "unreadable", "failed"):
        return None
    return f"backup {backup.id} {backup.standing}"


def _read(repository: Repository, references: Sequence[Mapping[str, object]]) -> dict[Series, Evidence | str]:
    """Return the evidence of each backup by its series, the newest where there are two; or why it cannot be read."""

    def read(reference: Mapping[str, object]) -> Evidence | str:
        try:
            return load_evidence(repository, reference)
        except (BackupNotFound, ManifestError) as error:
            return error.message

    found: dict[Series, Evidence | str] = {}
    ordered = sorted(references, key=lambda one: str(one.get("id")))
    with request_threads() as pool:
        for reference, evidence in zip(ordered, pool.map(read, ordered), strict=True):
            found[Series.parse(str(reference["series"]))] = evidence
    return found


def _id(
    repository: Repository,
    others: Sequence[ListedSet],
    discovery: Discovery,
    members: Sequence[SetMember],
    context: RunContext,
) -> str:
    """Reuse the id of a set of this seed that has this discovery, or one of these backups.

    Otherwise (the whole run was cleared) return a new id; the earlier set stays.
    """
    seed = context.seed
    backups = {(one.series, one.id) for one in members}
    for listed in others:
        if seed and listed.id.endswith(f"-{layout.id_suffix(seed)}"):
            found = _readable(repository, listed, context)
            if found is None or found.origin.get(SEED) != seed_digest(seed):
                continue
            if listed.started_at == discovery.started_at or not backups.isdisjoint(
                (one.series, one.id) for one in found.members
            ):
                return listed.id
    return layout.backup_id(discovery.started_at, seed)


def _dropped(
    repository: Repository, others: Sequence[ListedSet], id: str, discovery: Discovery, context: RunContext
) -> tuple[str, ...]:
    """Return the databases of the previous set that the server no longer has."""
    previous = next((one for one in others if one.id < id), None)
    before = _readable(repository, previous, context) if previous else None
    if before is None:
        return ()
    here = {each.name for each in discovery.databases}
    here |= {each.database for each in (*discovery.missing, *discovery.left_out)}
    names = [*(each.database or "" for each in before.databases), *(each.database for each in before.missing)]
    return tuple(sorted({name for name in names if name not in here}))


def _readable(repository: Repository, listed: ListedSet, context: RunContext) -> BackupSet | None:
    try:
        return read_listed_set(repository, listed)
    except (BackupNotFound, ManifestError) as error:
        context.log(f"ignoring backup set {listed.location}: {error.message}")
        return None


def _gaps(one: BackupSet) -> str:
    """Name what is missing in a set, for an error; nothing if it is complete."""
    gaps = [f"globals ({one.globals_missing})"] if one.globals_missing else []
    gaps += [f"{each.database} ({each.reason})" for each in one.missing]
    return f"missing {first_of(gaps, NAMED)}" if gaps else ""


def _log(repository: Repository, written: BackupSet, context: RunContext) -> None:
    for absent in written.missing:
        context.log(f"missing {printable(absent.database)}: {absent.reason}")
    if written.globals_missing:
        context.log(f"missing the globals: {written.globals_missing}")
    for name in written.dropped:
        context.log(f"{printable(name)} no longer exists; its backups age out by the retention policy")
    size = human_bytes(sum(member.size for member in written.members))
    beside = "globals and " if written.globals else ""
    context.log(
        f"backup set {written.location} in {repository.uri} is {written.status}: {beside}"
        f"{counted(len(written.databases), 'database')}, {size}; they are not one snapshot"
    )
