"""diff: report the changes between two backups.

Only manifests, verifications and tables of contents are read, no data, so it takes seconds for a database of any size.
The result lists what cannot be compared, and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.diff.contents import Contents, read_contents
from airflow_pgbackup.backup.diff.definitions import compare_definitions
from airflow_pgbackup.backup.diff.properties import (
    compare_extensions,
    compare_left_out,
    compare_locales,
    compare_properties,
    measures,
    versions,
)
from airflow_pgbackup.backup.diff.result import Diff, Measure, NotCompared, PropertyChange, Side
from airflow_pgbackup.backup.diff.tables import Counted, compare_tables, counted
from airflow_pgbackup.errors import BackupNotFound
from airflow_pgbackup.quantities import counted as counted_things
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.calendar_time import SKEW
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.evidence import Evidence, read_each
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.wording import command

_UNREAD = "tables of contents are not read here"


def diff(
    *,
    repository: Repository,
    before: Evidence,
    after: Evidence,
    read_artifacts: bool = True,
    context: RunContext | None = None,
) -> Diff:
    """Compare two backups of a repository, of one series or of two.

    :param before, after: the result lists the changes from `before` to `after`; either may be the older one.
    :param read_artifacts: whether to read their tables of contents; without them, definitions are not compared.
    :raises ManifestError: a manifest is invalid.
    :raises RepositoryError: the store does not answer.
    """
    context = context or RunContext()
    old, new = before.require_manifest(), after.require_manifest()
    contents: list[Contents | str] = (
        [_contents(repository, manifest, context) for manifest in (old, new)] if read_artifacts else [_UNREAD, _UNREAD]
    )
    rows = [counted(before, old), counted(after, new)]
    tables = compare_tables((rows[0], contents[0]), (rows[1], contents[1]), (old.id, new.id))
    definitions = compare_definitions(
        contents[0], contents[1], (versions(old), versions(new)), exactly=old.series == new.series
    )
    sequences, unknown_data = _split(_compare_data(contents[0], contents[1]))
    extensions, unknown_extensions = _split(compare_extensions(old, new))
    locales, unknown_locales = _split(compare_locales(contents[0], contents[1]))
    left_out, unknown_left_out = _split(compare_left_out(old, new))
    numbers, unknown_numbers = _numbers(old, new, rows)
    return Diff(
        repository=repository.uri,
        before=_side(before, old, rows[0]),
        after=_side(after, new, rows[1]),
        properties=(*compare_properties(old, new), *locales, *left_out),
        measures=tuple(numbers),
        extensions=tuple(extensions),
        tables=tables.changes,
        tables_unchanged=tables.unchanged,
        definitions=definitions.changes,
        definitions_unchanged=definitions.unchanged,
        not_compared=(
            *tables.not_compared,
            *unknown_data,
            *definitions.not_compared,
            *unknown_extensions,
            *unknown_locales,
            *unknown_left_out,
            *unknown_numbers,
        ),
        notes=tuple(_notes(before, after, contents)),
        sequences=tuple(sequences),
    )


def _compare_data(before: Contents | str, after: Contents | str) -> Iterable[PropertyChange | NotCompared]:
    """Compare the data that is not in tables: values of sequences, and large objects, which only the artifact holds."""
    if isinstance(before, str) or isinstance(after, str):
        yield NotCompared("sequences and large objects", "only a table of contents has them")
        return
    for name in sorted({*before.sequences} & {*after.sequences}):
        if before.sequences[name] != after.sequences[name]:
            yield PropertyChange(name, before.sequences[name], after.sequences[name])
    if before.large_objects or after.large_objects:
        yield NotCompared("content of large objects", "only the data of the artifact shows it")


def last_two(repository: Repository, series: Series, *, before: str | None = None) -> tuple[Evidence, Evidence]:
    """Return the newest two backups of a series whose manifests are valid, the older one first.

    :param before: the id of a backup that is not the newest; None: the one before the newest.
    :raises BackupNotFound: there are fewer than two, or none of that id.
    """
    soon = datetime.now(timezone.utc) + SKEW
    listed = [one for one in read_catalogue(repository, series=[series]).backups if one.started_at <= soon]
    found: list[Evidence] = []
    for evidence in read_each(repository, listed, ahead=2):
        wanted = before is None or not found or evidence.backup.id == before
        if evidence.manifest is not None and wanted:
            found.append(evidence)
        if len(found) == 2:
            return found[1], found[0]
    if before is not None and found:
        what = f"no backup {series}/{before} before the newest"
    else:
        what = f"{counted_things(len(found), 'backup')} of {series} that can be read; two are needed"
    raise BackupNotFound(f"{repository.uri} has {what}", hint=f"Run {command('list --all')} to see the backups.")


def _contents(repository: Repository, manifest: Manifest, context: RunContext) -> Contents | str:
    context.cancel.check()
    if manifest.artifact.format != "plain":
        context.log(f"reading the table of contents of {manifest.name}")
    identities = context.require_identities() if manifest.artifact.encryption else None
    return read_contents(repository, manifest, identities=identities, cancel=context.cancel)


def _side(evidence: Evidence, manifest: Manifest, rows: Counted | None) -> Side:
    return Side(
        series=manifest.series,
        id=manifest.id,
        started_at=manifest.started_at,
        state=evidence.backup.state,
        level=evidence.backup.level,
        format=manifest.artifact.format,
        rows_from=rows.source if rows else None,
    )


def _numbers(old: Manifest, new: Manifest, rows: list[Counted | None]) -> tuple[list[Measure], list[NotCompared]]:
    found = list(measures(old, new))
    numbers = [one for one in found if isinstance(one, Measure)]
    first, second = rows
    if first is not None and second is not None:
        numbers.append(Measure("tables with rows counted", "tables", len(first.rows), len(second.rows)))
        numbers.append(Measure("rows", "rows", sum(first.rows.values()), sum(second.rows.values())))
    return numbers, [one for one in found if isinstance(one, NotCompared)]


def _notes(before: Evidence, after: Evidence, contents: list[Contents | str]) -> Iterable[str]:
    old, new = before.backup, after.backup
    if old.series != new.series:
        yield f"the backups are of two series, {old.series} and {new.series}"
    if new.started_at < old.started_at:
        yield f"{new.id} is older than {old.id}"
    for evidence in (before, after):
        if evidence.backup.state in ("failed", "incomplete"):
            yield f"{evidence.backup.id} {evidence.backup.standing}"
    unchecked = [one.id for one, toc in ((old, contents[0]), (new, contents[1])) if _is_unchecked(toc)]
    if unchecked:
        yield (
            f"the table of contents of {' and '.join(unchecked)} was not checked against a digest, because the "
            "manifest has only the digest of the complete file; pgbackup verify checks it"
        )
    for evidence in (before, after):
        for line in evidence.ignored[:3]:
            yield f"{evidence.backup.id}: ignored {line}"


def _is_unchecked(contents: Contents | str) -> bool:
    return isinstance(contents, Contents) and not contents.is_checked


def _split(found: Iterable[PropertyChange | NotCompared]) -> tuple[list[PropertyChange], list[NotCompared]]:
    each = list(found)
    return (
        [one for one in each if isinstance(one, PropertyChange)],
        [one for one in each if isinstance(one, NotCompared)],
    )
