"""Choose a backup of a series by a selector, when no upstream task passes a reference.

Operators and the command line use the same rules. A selector is

- ``latest``: the newest backup whose files prove that it is verified, at the minimum level of the caller if it has one;
- ``latest-verified``: the same, but never a backup that is not verified;
- a date, ``2026-11-20``: the newest that started on that day, UTC;
- an id, or the beginning of an id if no other id of the series begins with it.

The log names newer backups that failed or are not verified; only a date or an id chooses one of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timezone
from itertools import takewhile

from airflow_pgbackup.backup.context import discard
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.series_selection import nearest
from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import Backup, read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, may_count, read_each, read_evidence
from airflow_pgbackup.repository.layout import LEVELS, SCOPES, SPECIAL_FOLDERS, Series, check_level, parse_backup_id
from airflow_pgbackup.repository.retention import counts
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import command

LATEST = "latest"
LATEST_VERIFIED = "latest-verified"

_MOST_NAMED = 3
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_BEGINNING = re.compile(r"\d[\dTZ]*(-[\da-f]*)?", re.ASCII | re.IGNORECASE)


def _list_hint() -> str:
    return f"Run {command('list')} to see the backups of this repository."


_SELECTOR_HINT = f"Write an id or the beginning of one, a date as 2026-11-20, {LATEST} or {LATEST_VERIFIED}."


def choose_backup(
    repository: Repository,
    series: str,
    selector: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """Return the reference of a backup; see :func:`choose_evidence`."""
    return reference_of(repository, choose_evidence(repository, series, selector, minimum_level=minimum_level, log=log))


def choose_evidence(
    repository: Repository,
    series: str,
    selector: str = LATEST,
    *,
    minimum_level: str | None = "archive",
    log: Callable[[str], None] | None = None,
) -> Evidence:
    """Return a backup with the evidence of its state.

    :param series: ``server/database``, or ``server/@cluster`` or another series of pg_dumpall, as in the repository's
        folders and ``pgbackup list``.
    :param selector: see above. ``latest`` and ``latest-verified`` choose the newest that is verified at
        `minimum_level`; everything else chooses a backup in any state.
    :param minimum_level: None: ``latest`` is the newest that has not failed, verified or not.
    :param log: called with a line for each backup that is newer than the chosen one, with the reason.
    :raises BackupNotFound: no backup matches; the message or hint names those that exist.
    :raises ManifestError: the backup with that id has an invalid manifest.
    :raises ConfigurationError: the series, selector or level is invalid, or several ids begin with the selector.
    """
    check_level(minimum_level)
    wanted = parse_series(series)
    if selector == LATEST_VERIFIED:
        selector, minimum_level = LATEST, minimum_level or LEVELS[0]
    if parse_backup_id(selector):
        return _by_id(repository, wanted, selector)
    listed = _listed(repository, wanted)
    say = log or discard
    if selector == LATEST:
        return _latest(repository, wanted, listed, minimum_level, say)
    if _DATE.fullmatch(selector):
        return _of_day(repository, wanted, listed, selector, say)
    return _readable(read_evidence(repository, wanted, _beginning_with(wanted, listed, selector)))


def newest_backup(repository: Repository, series: str) -> Evidence:
    """Return the newest backup in any state, as verify needs it; backups with an invalid manifest are skipped.

    :raises BackupNotFound: the series has no backup.
    :raises ConfigurationError: the series is invalid.
    """
    wanted = parse_series(series)
    listed = _listed(repository, wanted)
    started = _started(listed)
    for evidence in read_each(repository, started):
        if evidence.manifest is not None:
            return evidence
    if not started:
        raise BackupNotFound(
            f"all backups of {wanted} in {repository.uri} start in the future: "
            + first_of([one.id for one in listed], _MOST_NAMED),
            hint="Check the clocks of the machines that made them.",
        )
    raise BackupNotFound(f"no backup of {wanted} in {repository.uri} has a valid manifest", hint=_list_hint())


def parse_series(text: str) -> Series:
    """Parse ``server/database``, or ``server/@cluster`` or another series of pg_dumpall.

    :raises ConfigurationError: the text is not a series.
    """
    try:
        return Series.parse(text)
    except ValueError:
        special = ", ".join(f"server/@{kind}" for kind in ("cluster", *SCOPES))
        raise ConfigurationError(
            f"{text!r} is not a series",
            hint=_encoded_hint(text) or f"Write server/database, or for backups by pg_dumpall {special}.",
        ) from None


def _encoded_hint(text: str) -> str | None:
    """Return a hint for a series whose names are not percent-encoded."""
    server, _, database = text.rpartition("/")
    unknown = database.startswith("@") and database not in SPECIAL_FOLDERS
    if not server or not database or unknown or parse_backup_id(database):
        return None
    try:
        encoded = Series(server, None if database in SPECIAL_FOLDERS else database, SPECIAL_FOLDERS.get(database)).path
    except ConfigurationError:
        return None
    return f"Write server/database with the names percent-encoded, as {command('list')} shows them: {encoded}."


def _listed(repository: Repository, wanted: Series) -> Sequence[Backup]:
    """Return the backups of a series, newest first.

    :raises BackupNotFound: there is none.
    """
    listed = read_catalogue(repository, series=[wanted]).backups
    if not listed:
        raise BackupNotFound(f"no backup of {wanted} is in {repository.uri}", hint=_series_hint(repository, wanted))
    return listed


def _by_id(repository: Repository, wanted: Series, id: str) -> Evidence:
    try:
        return _readable(read_evidence(repository, wanted, id))
    except BackupNotFound:
        raise _unknown(wanted, _listed(repository, wanted), id) from None


def _beginning_with(wanted: Series, listed: Sequence[Backup], selector: str) -> str:
    if not _BEGINNING.fullmatch(selector):
        raise ConfigurationError(f"{selector!r} does not select a backup", hint=_SELECTOR_HINT)
    found = [backup for backup in listed if backup.id.lower().startswith(selector.lower())]
    if not found:
        raise _unknown(wanted, listed, selector)
    if len(found) > 1:
        raise ConfigurationError(
            f"{len(found)} backups of {wanted} begin with {selector}",
            hint=f"Write more of the id: {first_of([backup.id for backup in found], _MOST_NAMED)}.",
        )
    return found[0].id


def _of_day(
    repository: Repository, wanted: Series, listed: Sequence[Backup], selector: str, say: Callable[[str], None]
) -> Evidence:
    try:
        day = date.fromisoformat(selector)
    except ValueError:
        raise ConfigurationError(f"{selector} is not a date", hint="Write year, month and day: 2026-11-20.") from None
    found: list[Evidence] = []
    for evidence in read_each(repository, [backup for backup in listed if backup.started_at.date() == day]):
        found.append(evidence)
        if evidence.backup.level:
            break
    if not found:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc)
        nearest = sorted(listed, key=lambda backup: abs(backup.started_at - noon))
        raise BackupNotFound(
            f"no backup of {wanted} in {repository.uri} started on {day} (UTC)",
            hint=f"The nearest {'are' if len(nearest) > 1 else 'is'} {_ids(nearest)}.",
        )
    chosen, last = found[0], found[-1]
    if chosen is not last and last.backup.level:
        say(
            f"warning: the newest backup of {wanted} of that day, {chosen.backup.id}, {chosen.backup.standing}; "
            f"{last.backup.id} is verified at level {last.backup.level}"
        )
    return _readable(chosen)


def _latest(
    repository: Repository,
    wanted: Series,
    listed: Sequence[Backup],
    minimum_level: str | None,
    say: Callable[[str], None],
) -> Evidence:
    skipped: list[tuple[str, str]] = []
    for backup, read in _newest_first(repository, listed, minimum_level):
        if read and counts(read.backup, minimum_level):
            for id, why in skipped[:_MOST_NAMED]:
                say(f"warning: newer backup {wanted}/{id} {why}; using {read.backup.id}")
            if len(skipped) > _MOST_NAMED:
                say(f"warning: {counted(len(skipped) - _MOST_NAMED, 'more newer backup')} of {wanted} cannot be used")
            return read
        skipped.append((backup.id, _reason(backup, read)))
    state = f"is verified at level {minimum_level}" if minimum_level else "can be used"
    raise BackupNotFound(
        f"no backup of {wanted} in {repository.uri} {state}; the newest of {len(listed)}, {', '.join(skipped[0])}",
        hint=f"Verify a backup with {command('verify')}, or give its id, such as {listed[0].id}, to use it in any "
        "state.",
    )


def _newest_first(
    repository: Repository, listed: Sequence[Backup], minimum_level: str | None
) -> Iterator[tuple[Backup, Evidence | None]]:
    """Yield each backup with its evidence; None if its file names rule it out, or it starts in the future."""
    readable = {backup.id for backup in _started(listed) if may_count(backup, minimum_level)}
    found = read_each(repository, [backup for backup in listed if backup.id in readable])
    for backup in listed:
        yield backup, next(found) if backup.id in readable else None


def _started(listed: Sequence[Backup]) -> list[Backup]:
    soon = datetime.now(timezone.utc) + SKEW
    return [backup for backup in listed if backup.started_at <= soon]


def _readable(evidence: Evidence) -> Evidence:
    evidence.require_manifest()
    return evidence


def _reason(backup: Backup, evidence: Evidence | None) -> str:
    if evidence is None:
        return backup.standing if _started([backup]) else "starts in the future; check the clocks"
    ignored = f" ({evidence.ignored[0]})" if evidence.ignored else ""
    return f"{evidence.backup.standing}{ignored}"


def _unknown(wanted: Series, listed: Sequence[Backup], selector: str) -> BackupNotFound:
    def in_common(backup: Backup) -> int:
        pairs = zip(backup.id.lower(), selector.lower(), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    nearest = sorted(listed, key=in_common, reverse=True)
    return BackupNotFound(
        f"backup {wanted}/{selector} does not exist",
        hint=f"The nearest of {len(nearest)} {'are' if len(nearest) > 1 else 'is'} {_ids(nearest)}.",
    )


def _ids(backups: Sequence[Backup]) -> str:
    return ", ".join(backup.id for backup in backups[:_MOST_NAMED])


def _series_hint(repository: Repository, wanted: Series) -> str:
    """Return the names of series that are in the repository, the nearest first."""
    server, _, folder = wanted.path.partition("/")
    servers = repository.folders("")
    if server in servers:
        near = [f"{server}/{name}" for name in nearest(folder, repository.folders(server))]
    else:
        near = [f"{name}/{folder}" for name in nearest(server, servers) if folder in repository.folders(name)]
        near = near or [f"{name}/…" for name in nearest(server, servers)]
    return f"There {'are' if len(near) > 1 else 'is'} {', '.join(near)}. {_list_hint()}" if near else _list_hint()
