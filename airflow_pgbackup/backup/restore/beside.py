"""Restore tables into a new schema of a live database, beside the live tables, all or nothing.

The tables are restored into a temporary database of the same server. There they lose their foreign keys, triggers,
rules and policies, which could touch other tables, and move to the new schema. pg_dump writes that schema, with every
reference to it as PostgreSQL itself spells it, and one transaction restores it into the live database. That transaction
only creates the schema and what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import (
    Session,
    fetch_column,
    fetch_value,
    session,
    translated_errors,
)
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.restore.archive import ArchiveLoader, OpenArchive, is_about_database, open_archive
from airflow_pgbackup.backup.restore.beside_selection import foreign_partitions, left_out_partition, select_tables
from airflow_pgbackup.backup.restore.beside_tables import (
    MovedTable,
    analyze_tables,
    copying_statements,
    move_tables,
)
from airflow_pgbackup.backup.restore.fired_triggers import without_fired_triggers
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.new_database import (
    create_like,
    prepare_public_schema,
    read_properties,
    warn_of_time_zone,
)
from airflow_pgbackup.backup.restore.noted_transaction import noted_transaction
from airflow_pgbackup.backup.restore.plan import Loader, check_versions
from airflow_pgbackup.backup.restore.request import RestoreOutcome, RestoreRequest, require_may_create, state_in_errors
from airflow_pgbackup.backup.restore.script import open_script
from airflow_pgbackup.errors import ConfigurationError, RestoreError, ToolError
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.toc import SETTING_KINDS, Toc, TocEntry
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.process import run_tool
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.wording import parameter

LEFT_OUT = "foreign keys, triggers, rules, policies, extended statistics and privileges"
_MAY_TOUCH_OTHERS = frozenset({"FK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "ROW SECURITY"})
_ALONE = {"no_owner": True, "no_privileges": True, "no_tablespaces": True}


def restore_beside(request: RestoreRequest, schema: str) -> RestoreOutcome:
    """Restore tables into a new schema, after all checks have passed.

    :raises PgBackupError: as :func:`airflow_pgbackup.backup.restore.restore`.
    """
    target, cancel = request.target, request.run.cancel
    with session(target.connection, cancel) as connection:
        server = ServerInfo.read(connection, target.connection.label)
        if fetch_value(connection, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", [schema]):
            raise ConfigurationError(
                f'schema "{schema}" already exists in {target.connection.label}',
                hint="Choose another name, or drop that schema if it is left from an earlier restore.",
            )
        _require_closed(connection, request.options.role or server.user)
    require_may_create(server, "The tables pass through a temporary database: grant the user CREATEDB with ALTER ROLE.")
    as_path = request.manifest.artifact.format not in ("plain", "custom")
    with request.checked(request.repository, request.manifest, as_path=as_path) as checked:
        loader = _open_loader(request, checked, server)
        return request.execute(_BesideRestore(request, schema, server, loader))


def _require_closed(connection: Session, owner: str) -> None:
    """Check that nobody else may use a new schema of a role. The tables in it have no row security policies.

    :raises ConfigurationError: the role's default privileges give others access.
    """
    with translated_errors(f"querying the default privileges of {owner}"):
        others = fetch_column(connection, _MAY_USE_SCHEMAS, [owner])
    if others:
        names = ", ".join("PUBLIC" if name is None else quoted(name) for name in others)
        raise ConfigurationError(
            f"default privileges of role {owner} give access to the new schema, without row security, to {names}",
            hint=f"Restore with {parameter('role')}, as a role without such privileges; into a database of its own "
            f"(mode create); or run ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(owner)} REVOKE ALL ON SCHEMAS FROM "
            f"{names}.",
        )


def _open_loader(request: RestoreRequest, checked: CheckedArtifact, server: ServerInfo) -> Loader:
    options = request.options
    if request.manifest.artifact.format == "plain":
        return open_script(request.run, checked, RestoreOptions(), server)

    def select(entries: list[TocEntry]) -> list[TocEntry]:
        selected = select_tables(entries, options.tables, options.schemas)
        for name in foreign_partitions(entries, selected):
            request.run.warn(left_out_partition(name))
        return selected

    alone = RestoreOptions(**_ALONE)  # type: ignore[arg-type]
    return open_archive(request.run, checked, alone, server, select)


class _BesideRestore:
    def __init__(self, request: RestoreRequest, schema: str, server: ServerInfo, loader: Loader) -> None:
        self._request = request
        self._run = request.run
        self._schema = schema
        self._server = server
        self._loader = loader
        self._globals = GlobalsPlan()

    def plan(self) -> list[str]:
        request, target, loader = self._request, self._request.target, self._loader
        check_versions(
            loader.dumped_from, self._server, allow_older=target.allow_older_server, label=request.server_label
        )
        request.check_needs(loader.needs, self._server, self._globals)
        return [
            f'restoring {counted(len(request.options.tables), "table")} into new schema "{self._schema}" of '
            f"{target.connection.label}: {', '.join(request.options.tables)}",
            f"with their rows, indexes, keys and checks; without {LEFT_OUT}",
            *loader.lines(),
            "through a temporary database, then in a single transaction; the live tables are not touched",
        ]

    def run(self, outcome: RestoreOutcome) -> None:
        request, run, target, schema = self._request, self._run, self._request.target, self._schema
        maintenance = target.maintenance(run.cancel)
        with (
            state_in_errors(f'database "{target.database}" was not changed', run.log) as state,
            PrivateDirectory(run.settings.temp_dir) as directory,
            TemporaryDatabases(maintenance, cancel=run.cancel, say=run.log) as temporary,
        ):
            settings = read_properties(run, target.connection, self._server.version_num).settings
            new = create_like(
                run,
                temporary,
                # The tables pass their checks with the target's settings, such as the time zone, or not at all.
                replace(self._loader.properties, statements=tuple(settings)),
                encoding=request.manifest.source.encoding,
                exactly=False,
                is_final=False,
            )
            warn_of_time_zone(run, new, request.manifest.source.time_zone)
            new = without_fired_triggers(run, self._server, new, fires=self._loader.fires_event_triggers)
            public_exists = prepare_public_schema(run, new, self._loader.public)
            with _hinting("does not exist", _NEED_MORE):
                self._loader.load(new, single_transaction=False, public_exists=public_exists)
            with session(new, run.cancel) as connection:
                tables, lost = move_tables(connection, request.options.tables, request.options.schemas, schema)
            for line in lost:
                run.warn(line)
            toc = self._dump(new, directory / "tables.dump")
            run.check()
            archive = OpenArchive(directory / "tables.dump", "custom", toc)
            options = RestoreOptions(**_ALONE, role=request.options.role)  # type: ignore[arg-type]
            final = ArchiveLoader(run, archive, options, self._server)
            after = f'database "{target.database}" has the new schema "{schema}"'
            taken = f'schema "{schema}" already exists'
            with (
                _hinting("does not exist", _LACKS),
                _hinting(taken, "Choose another name: the schema was created during the restore."),
                noted_transaction(run, target.connection, None, state, after=after),
            ):
                final.load(target.connection, single_transaction=True, public_exists=True)
        self._finish(outcome, tables, objects=len(toc.entries))

    def _dump(self, params: ConnectionParams, file: Path) -> Toc:
        """Dump the new schema.

        :raises RestoreError: the dump contains what is not in the schema, or what touches other tables.
        """
        run = self._run
        client = choose_client(self._server.version_num, client_dirs=run.settings.client_dirs)
        options = [
            "--no-password", "--format=custom", "--compress=1", "--no-owner", "--no-privileges", "--no-tablespaces",
            "--strict-names", f"--schema={quoted(self._schema)}", f"--file={file}",
        ]  # fmt: skip
        if not self._schema.isascii():  # pg_dump takes the name in the encoding of its output
            with session(params, run.cancel) as connection:
                if fetch_value(connection, "SHOW server_encoding") != "SQL_ASCII":  # which converts nothing
                    options.append("--encoding=UTF8")
        argv = [str(client.tool("pg_dump")), *options]
        run_tool(argv, env=client_environment(params), cancel=run.cancel, deadline=run.remaining())
        toc = read_archive_toc(file, "custom", run.check)
        for entry in toc.entries:
            inside = entry.schema == self._schema or (entry.kind, entry.name) == ("SCHEMA", self._schema)
            if not (inside or entry.kind in SETTING_KINDS or is_about_database(entry)):  # the last are not restored
                raise RestoreError(f'{entry.label} is not in schema "{self._schema}"', hint=_REPORT)
            if entry.kind in _MAY_TOUCH_OTHERS:
                raise RestoreError(f"{entry.label} could change other tables", hint=_REPORT)
        return toc

    def _finish(self, outcome: RestoreOutcome, tables: list[MovedTable], *, objects: int) -> None:
        """Record what was restored, and how to copy it into the live tables."""
        request, run = self._request, self._run
        outcome.databases.append(request.target.database)
        outcome.objects = objects
        outcome.rows = sum(table.rows for table in tables)
        with session(request.target.connection, run.cancel) as connection:
            with translated_errors(f'reading schema "{self._schema}"'):
                outcome.size = int(fetch_value(connection, _SIZE, [self._schema]) or 0)
                outcome.statements = copying_statements(connection, tables, self._schema)
            if request.analyze:
                analyze_tables(connection, tables, self._schema)


@contextmanager
def _hinting(message: str, hint: str) -> Iterator[None]:
    """Add a hint to an error whose message contains a text."""
    try:
        yield
    except ToolError as error:
        if message in error.message:
            error.hint = hint
        raise


_NEED_MORE = "Restoring these tables needs more of the backup: restore it into a database of its own (mode create)."
_LACKS = (
    "The tables use a type, function or schema that this database lacks: restore that first, or restore the backup "
    "into a database of its own (mode create)."
)
_REPORT = "Restore into a database of its own (mode create), and report this as a defect."
# Default privileges in a schema cannot be those of the new one.
_MAY_USE_SCHEMAS = """
SELECT DISTINCT r.rolname
  FROM pg_catalog.pg_default_acl AS d CROSS JOIN pg_catalog.aclexplode(d.defaclacl) AS acl
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = acl.grantee
 WHERE d.defaclobjtype = 'n' AND acl.grantee <> d.defaclrole AND pg_catalog.pg_get_userbyid(d.defaclrole) = %s
 ORDER BY 1
"""
_SIZE = (
    "SELECT sum(pg_catalog.pg_total_relation_size(c.oid))::bigint FROM pg_catalog.pg_class AS c "
    "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r'"
)
