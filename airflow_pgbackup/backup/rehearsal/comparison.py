"""Compare a restored copy with the archive: rows, sequences, large objects, materialized views, definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from airflow_pgbackup.backup.artifact import table_result
from airflow_pgbackup.backup.databases.extensions import installed_versions, version_differences
from airflow_pgbackup.backup.databases.sessions import without_role
from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.rehearsal.compare_definitions import compare_definitions, dump_copy
from airflow_pgbackup.backup.rehearsal.restore_steps import RestoredCopy
from airflow_pgbackup.backup.rehearsal.sequence_values import requires_value
from airflow_pgbackup.backup.sql_checks import CheckOutcome
from airflow_pgbackup.postgres.archive.reader import ArchiveReader, ArchiveSummary
from airflow_pgbackup.postgres.compare.comparison import (
    compare_large_objects,
    compare_materialized_views,
    compare_sequences,
    compare_tables,
)
from airflow_pgbackup.postgres.compare.database_reader import BY_DIGITS, DatabaseReader
from airflow_pgbackup.postgres.compare.exchanged_fields import exchanged_fields
from airflow_pgbackup.postgres.compare.generated_columns import OUTDATED
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.repository.verification import Difference, TableResult

_SHORTEST_DIGITS = 12
"""Since this version, extra_float_digits = 3 writes the fewest digits that make up a number."""

_PERHAPS_FIRED = "perhaps because of an event trigger, which the restore fires when it fills materialized views"


@dataclass
class Rehearsal:
    """The result of a rehearsal.

    :ivar differences: between the copy and the dump.
    :ivar notes: what was handled specially, and what could not be compared, for the report.
    :ivar unproven: tables and definitions that differ, perhaps not because of the backup.
    :ivar checks: the outcomes of the user's own checks.
    :ivar restore_seconds: the duration of the restore, without reading and comparing: the measured recovery time.
    :ivar server_version: of the server, ``18.1``.
    """

    tables: list[TableResult] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    checks: list[CheckOutcome] = field(default_factory=list)
    restore_seconds: float = 0.0
    server_version: str = ""


def compare_copy(copy: RestoredCopy, archive: ArchiveSummary, open_reader: Callable[[], ArchiveReader]) -> Rehearsal:
    """Compare a restored copy with its archive.

    :param archive: the summary of the first reading.
    :param open_reader: begins another reading, which tables that differ need.
    """
    server = copy.server
    result = Rehearsal(
        server_version=server.version_text,
        restore_seconds=round(copy.seconds, 3),
        notes=[*copy.notes, *server.notes],
    )
    connection = without_role(server.without_login_triggers(copy.connection))
    name = copy.dump.manifest.artifact.name
    databases = archive.databases if copy.database is None else [copy.database]
    manifest = copy.dump.manifest
    has_value = requires_value(manifest.options, adopted="adopted_from" in manifest.origin)
    money: set[tuple[str | None, str, str]] = set()
    with dump_copy(copy, connection, len(databases)) as dumped:
        with copy.dump.begin(f"comparing the copy with {name}", tables_total=len(archive.tables)) as step:
            for database in databases:
                key = database if copy.database is None else None
                with _open_copy(copy, connection.with_database(database), archive.encodings.get(key)) as reader:
                    fired = copy.fired_event_triggers
                    _compare_database(result, reader, archive, key, open_reader, step, has_value, fired=fired)
                    relations = reader.relations().values()
                    settings = copy.dump.other_settings
                    money |= {(key, each.schema, each.name) for each in relations if settings in each.unstable}
        if copy.database is not None:
            with connection.with_database(copy.database).open_session() as session:
                result.notes += version_differences(copy.dump.manifest.source.extensions, installed_versions(session))
        definitions = compare_definitions(copy, connection, dumped, money)
    result.differences += definitions.differences
    result.unproven += definitions.unproven
    result.notes += definitions.notes
    return result


def _open_copy(copy: RestoredCopy, connection: ConnectionParams, encoding: str | None) -> DatabaseReader:
    """Return a reader of the copy that uses the encoding and the number of float digits of the dump.

    :param encoding: that the dump declares; with None, the one that its manifest implies.
    """
    manifest = copy.dump.manifest
    digits = manifest.options.get("extra_float_digits")
    old_digits = manifest.source.server_version_num < _SHORTEST_DIGITS * 10000 and copy.server.major >= _SHORTEST_DIGITS
    return DatabaseReader(
        connection,
        copy.server.directory if copy.server.local else None,
        encoding=encoding or str(manifest.options.get("encoding") or manifest.source.encoding or "UTF8"),
        float_digits=digits if isinstance(digits, int) else 3,
        quote_all_identifiers=bool(manifest.options.get("quote_all_identifiers")),
        other_text=[copy.dump.other_settings, *([BY_DIGITS] if old_digits else [])],
        sessions=copy.server.most_jobs(),
        cancel=copy.dump.cancel,
        deadline=copy.dump.deadline,
    )


def _compare_database(
    result: Rehearsal,
    reader: DatabaseReader,
    archive: ArchiveSummary,
    key: str | None,
    open_reader: Callable[[], ArchiveReader],
    step: Step,
    has_value: Callable[[str, str], bool],
    *,
    fired: bool,
) -> None:
    """Compare tables, sequences, materialized views and large objects of one database.

    :param key: the database's name in the summary of a cluster, else None.
    :param has_value: as for :func:`.compare_sequences`.
    :param fired: event triggers may have changed rows.
    """
    prefix = f"{key}: " if key else ""
    tables = [table for table in archive.tables if table.database == key]
    for compared in compare_tables(reader, tables, lambda found, counted: open_reader().row_sets(found, counted)):
        step.begin_table()
        table = compared.table
        if fired and compared.result == "different" and (table.schema, table.name) in reader.relations():
            compared = replace(
                compared, result="notcompared", detail=f"{compared.detail}, {_PERHAPS_FIRED}", unproven=True
            )
        result.tables.append(table_result(table, compared.result, compared.detail))
        name = f"{prefix}{table.schema}.{table.name}"
        if compared.result == "different":
            result.differences.append(Difference("table data", name, compared.detail or ""))
        elif compared.unproven:
            result.unproven.append(f"{name}: {compared.detail}")
        elif compared.detail:
            result.notes.append(f"{name}: {compared.detail}")
    result.unproven += [f"{prefix}{name}: {detail}" for name, detail in exchanged_fields(reader, tables)]
    advanced: list[tuple[str, str]] = []
    for name, detail in compare_sequences(reader, archive, key, has_value=has_value, advanced=advanced):
        result.differences.append(Difference("sequence value", f"{prefix}{name}", detail))
    drawn, may_draw = reader.drawn_sequences() if advanced else (set[str](), False)
    for name, detail in advanced:
        line = f"{prefix}sequence {name} {detail}"
        if name in drawn:
            result.notes.append(f"{line}, because a materialized view draws from it")
        elif may_draw:
            result.unproven.append(f"{line}, perhaps because a materialized view draws from it")
        elif fired:
            result.unproven.append(f"{line}, {_PERHAPS_FIRED}")
        else:
            result.differences.append(Difference("sequence value", f"{prefix}{name}", detail))
    for name, detail in compare_materialized_views(reader, archive, key):
        result.differences.append(Difference("materialized view data", f"{prefix}{name}", detail))
    result.unproven += [
        f"{prefix}{column.schema}.{column.table}: generated column {column.name} {OUTDATED} in "
        f"{counted(column.rows, 'row')}: its functions depend on other tables, the time or settings"
        for column in reader.outdated_columns()
    ]
    for oid, detail in compare_large_objects(reader, archive, key):
        result.differences.append(Difference("large object", f"{prefix}{oid}", detail))
