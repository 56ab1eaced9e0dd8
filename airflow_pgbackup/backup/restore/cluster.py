"""Restore the backup of a cluster: its roles and tablespaces, then each of its databases.

pg_dumpall's script creates the databases under their names, one after the other. Here each is created under a temporary
name, and one transaction renames all of them at the end: if the last one fails, none of them exists. Databases that
initdb creates are restored in place, one after the other, and keep what was restored into them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, session, with_option
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.restore.access import give_access
from airflow_pgbackup.backup.restore.fired_triggers import without_fired_triggers
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.new_database import (
    apply_statements,
    change_existing,
    create_like,
    prepare_public_schema,
    warn_of_time_zone,
)
from airflow_pgbackup.backup.restore.noted_transaction import noted_transaction
from airflow_pgbackup.backup.restore.plan import check_versions, major_version
from airflow_pgbackup.backup.restore.preconditions import has_public_schema, require_empty
from airflow_pgbackup.backup.restore.rename import rename_databases
from airflow_pgbackup.backup.restore.request import (
    RestoreOutcome,
    RestoreRequest,
    StateText,
    doubt,
    require_may_create,
    state_in_errors,
)
from airflow_pgbackup.backup.restore.retry_marker import set_marker
from airflow_pgbackup.backup.restore.script import ScriptLoader, open_script
from airflow_pgbackup.byte_streams import PIECE, Readable
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSection
from airflow_pgbackup.quantities import counted, noun

# initdb creates them, and pg_dumpall's script restores into them. Some services drop postgres.
_MAYBE_EXIST = ("postgres", "template1")

_GLOBALS_CREATED = "its roles and tablespaces were created"


def restore_cluster(request: RestoreRequest) -> RestoreOutcome:
    """Restore the backup of a cluster, after all checks have passed.

    Databases that every server has must be empty, and are restored in a single transaction each.

    :raises PgBackupError: as :func:`airflow_pgbackup.backup.restore.restore`.
    """
    target = request.target
    with session(target.connection, request.run.cancel) as connection:
        server = ServerInfo.read(connection, target.connection.label)
    with request.checked(request.repository, request.manifest) as checked:
        loader = open_script(request.run, checked, request.options, server)
        return request.execute(_ClusterRestore(request, server, loader))


@dataclass
class _Part:
    """One database of the script.

    :param existing: its connection, if the server has the database already.
    """

    number: int
    section: ScriptSection
    existing: ConnectionParams | None
    single_transaction: bool
    public_exists: bool = True

    @property
    def name(self) -> str:
        return self.section.database


class _ClusterRestore:
    def __init__(self, request: RestoreRequest, server: ServerInfo, loader: ScriptLoader) -> None:
        self._request = request
        self._run = request.run
        self._server = server
        self._loader = loader
        self._globals = GlobalsPlan()
        self._parts: list[_Part] = []
        self._maintenance = request.target.connection
        self._changes: list[tuple[ConnectionParams, DatabaseProperties]] = []
        self._in_place: list[str] = []

    def plan(self) -> list[str]:
        request, server, contents = self._request, self._server, self._loader.contents
        connection, label = request.target.connection, request.server_label
        dumped_from = contents.dumped_from or major_version(request.manifest.source.server_version)
        check_versions(dumped_from, server, allow_older=request.target.allow_older_server, label=label)
        self._globals = request.plan_globals(contents.globals, server, connection)
        for number, section in enumerate(contents.sections):
            exists = section.database in server.databases if section.database in _MAYBE_EXIST else not section.creates
            existing = connection.with_database(section.database) if exists else None
            if existing and section.properties.changes():
                quiet = without_fired_triggers(self._run, server, existing, fires=False)
                own = with_option(quiet, f"role={server.user}")  # the dumped database may set a role
                self._changes.append((own, section.properties))
            if not (exists and section.empty):
                fits = section.requirements.locks <= server.locks // 2
                self._parts.append(_Part(number, section, existing, single_transaction=exists or fits))
        for part in self._parts:
            if part.single_transaction:
                part.section.check_single_transaction()
        self._check_databases()
        if self._parts:
            self._maintenance = request.target.maintenance_of_cluster(self._run.cancel)
        needs = self._loader.needs
        needs.roles |= {owner for section in contents.sections if (owner := section.properties.owner) is not None}
        request.check_needs(needs, server, self._globals)
        return [
            f"restoring a cluster into {label} with psql {self._loader.client}",
            *self._globals.lines(),
            *self._lines(),
        ]

    def _check_databases(self) -> None:
        new = [part.name for part in self._parts if part.existing is None]
        if taken := sorted(set(new) & self._server.databases):
            raise ConfigurationError(
                f"{self._request.server_label} already has {noun(len(taken), 'database')} {', '.join(taken)}",
                hint="Restore the cluster into a server without databases of these names, or rename them first.",
            )
        if new:
            require_may_create(self._server, "Connect as a superuser.")
        for part in self._parts:
            if part.existing:
                with session(part.existing, self._run.cancel) as connection:
                    require_empty(connection, part.existing.label)
                    part.public_exists = has_public_schema(connection)

    def _lines(self) -> list[str]:
        return [
            f"{'existing, empty' if part.existing else 'new'} database {part.name}: "
            f"{counted(part.section.tables, 'table')} with {counted(part.section.rows, 'row')}, "
            f"{counted(part.section.objects, 'statement')}"
            for part in self._parts
        ] + [
            f"owner, settings, privileges, limits and comment of database {params.dbname}"
            for params, _ in self._changes
        ]

    def run(self, outcome: RestoreOutcome) -> None:
        self._request.apply_globals(self._globals, self._request.target.connection, outcome)
        for params, properties in self._changes:
            if properties.settings:
                change_existing(self._run, params, properties, settings=True)
                self._run.log(f"gave database {params.dbname} the settings of the dumped one")
        if self._parts:
            self._restore_databases(outcome)
        for params, properties in self._changes:
            change_existing(self._run, params, properties, settings=False)
            set_marker(self._run, params, None)

    def _restore_databases(self, outcome: RestoreOutcome) -> None:
        request, run = self._request, self._run
        if any(part.section.properties.time_zone is None for part in self._parts):
            warn_of_time_zone(run, request.target.connection, request.manifest.source.time_zone)
        parts = {part.number: part for part in self._parts}
        renames: list[tuple[str, str]] = []
        maintenance = self._maintenance
        with (
            state_in_errors(f"{_GLOBALS_CREATED}, but none of its databases", run.log) as state,
            TemporaryDatabases(maintenance, cancel=run.cancel, say=run.log) as temporary,
            self._loader.parts(lambda number: _how(parts.get(number))) as streams,
        ):
            for number in range(len(self._loader.contents.sections)):
                stream = streams.part(number)
                if part := parts.get(number):
                    created = self._restore(part, stream, temporary, outcome, state)
                    renames += [(created, part.name)] if created else []
                while stream.read(PIECE):  # skips databases that are not restored
                    pass
            run.check()
            if renames:
                rename_databases(
                    maintenance,
                    renames,
                    end_sessions_in=[temporary_name for temporary_name, _ in renames],
                    state=state,
                    after=f"{_GLOBALS_CREATED}, and its databases",
                    warn=run.warn,
                    then=self._admit,
                    cancel=run.cancel,
                )
        run.log_after_commit(f"created databases: {', '.join(name for _, name in renames) or 'none'}")

    def _restore(
        self,
        part: _Part,
        stream: Readable,
        temporary: TemporaryDatabases,
        outcome: RestoreOutcome,
        state: StateText,
    ) -> str | None:
        """Restore one database.

        :param state: takes the state after that.
        :return: the temporary name, if the database is new.
        """
        run = self._run
        properties = part.section.properties
        params = part.existing
        if params is None:
            encoding = self._request.manifest.source.encoding
            params = create_like(run, temporary, properties, encoding=encoding, exactly=False)
            part.public_exists = prepare_public_schema(run, params, self._loader.public_of(part.number))
        params = without_fired_triggers(run, self._server, params, fires=part.section.fires_event_triggers)
        with self._noted(part, params, state):
            self._loader.run_part(stream, params, single_transaction=part.single_transaction)
        if part.existing:
            self._in_place.append(part.name)
        counts = self._request.finish(params)
        outcome.add(part.name, counts)
        run.log(f"restored {counted(counts.objects, 'object')} into database {part.name}")
        if part.existing:
            return None
        apply_statements(run, params, properties.descriptions)
        set_marker(run, params, None)  # of an earlier restore of the dumped database
        return params.dbname

    def _admit(self, connection: Session) -> None:
        """Admit others to the new databases."""
        for part in self._parts:
            if part.existing is None:
                give_access(connection, part.name, part.section.properties, self._run.warn)

    def _noted(self, part: _Part, params: ConnectionParams, state: StateText) -> AbstractContextManager[None]:
        """Note the transaction that fills an existing database."""
        if part.existing is None:
            return nullcontext()
        return noted_transaction(
            self._run,
            params,
            None,
            state,
            after=f"{_GLOBALS_CREATED}, but no new database; restored: {', '.join([*self._in_place, part.name])}",
            unknown=f"{state.text}; {doubt(f'{part.name} was restored')}",
        )


def _how(part: _Part | None) -> tuple[bool, bool]:
    return (part.single_transaction, part.public_exists) if part else (True, True)
