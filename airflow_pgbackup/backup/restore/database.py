"""Restore the backup of one database: in a single transaction, or into a new database that is renamed at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial

from airflow_pgbackup.backup.checked import CheckedArtifact
from airflow_pgbackup.backup.databases.extensions import version_differences
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session, with_option
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases, require_may_own
from airflow_pgbackup.backup.restore.access import give_access
from airflow_pgbackup.backup.restore.archive import needs_path, open_archive
from airflow_pgbackup.backup.restore.fired_triggers import without_fired_triggers
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.named_views import warn_of_empty_views
from airflow_pgbackup.backup.restore.new_database import (
    apply_statements,
    change_existing,
    count_contents,
    create_like,
    give_public_schema,
    prepare_public_schema,
    read_properties,
    warn_of_time_zone,
)
from airflow_pgbackup.backup.restore.noted_transaction import noted_transaction
from airflow_pgbackup.backup.restore.plan import Loader, RestoreStrategy, check_versions, choose_strategy, major_version
from airflow_pgbackup.backup.restore.preconditions import database_oids, require_replaceable
from airflow_pgbackup.backup.restore.rename import (
    dated_name,
    drop_replaced,
    dropped_meanwhile,
    is_dated_name,
    rename_databases,
)
from airflow_pgbackup.backup.restore.request import (
    RestoreOutcome,
    RestoreRequest,
    StateText,
    require_may_create,
    state_in_errors,
)
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, find_marker, set_marker
from airflow_pgbackup.backup.restore.script import open_globals, open_script
from airflow_pgbackup.backup.restore.target import MODES
from airflow_pgbackup.backup.restore.target_state import CREATEDB_HINT, TargetState, inspect_target
from airflow_pgbackup.errors import DeadlineExceeded, RestoreError, ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.text import first_of
from airflow_pgbackup.wording import parameter

_NAMED = 20
_SAME_OWNER = (
    "SELECT old.datdba OPERATOR(pg_catalog.=) new.datdba FROM pg_catalog.pg_database AS old, "
    "pg_catalog.pg_database AS new WHERE old.datname = %s AND new.datname = %s"
)


def restore_database(request: RestoreRequest) -> RestoreOutcome:
    """Restore the backup of a database, after all checks have passed.

    :raises PgBackupError: as :func:`airflow_pgbackup.backup.restore.restore`.
    """
    state = inspect_target(request)
    if state.earlier:
        return _completed_earlier(request, state, state.earlier)
    as_path = request.manifest.artifact.format != "plain" and needs_path(request.manifest, request.options)
    with request.checked(request.repository, request.manifest, as_path=as_path) as checked:
        return request.execute(_DatabaseRestore(request, state, _open_loader(request, checked, state.server)))


def _completed_earlier(request: RestoreRequest, state: TargetState, marker: RetryMarker) -> RestoreOutcome:
    """Return the outcome of an earlier attempt whose result was lost; drop the old database if that is left to do."""
    run, target = request.run, request.target
    line = (
        f"nothing to do: an earlier attempt of this task has restored {marker.series}/{marker.id} into "
        f"{target.database}"
    )
    run.log(line)
    outcome = RestoreOutcome(plan=[line], earlier=marker)
    if request.dry_run:
        return outcome
    if marker.begun:
        if target.with_properties:
            run.warn(
                f"the earlier attempt ended early: database {target.database} may lack owner, settings, privileges, "
                "limits or comment of the dumped one"
            )
        set_marker(run, target.connection, replace(marker, begun=False, transaction=0))
    if state.maintenance or marker.replaced:
        _end_rename(request, state.maintenance or target.maintenance(run.cancel), marker, outcome)
    counts = count_contents(run, target.connection)
    outcome.add(target.database, replace(counts, rows=None) if target.mode == "into_existing" else counts)
    return outcome


def _end_rename(
    request: RestoreRequest, maintenance: ConnectionParams, marker: RetryMarker, outcome: RestoreOutcome
) -> None:
    """Do, or warn of, what an earlier attempt may have left to do after it gave its database the final name."""
    run, target = request.run, request.target
    warn_of_empty_views(maintenance, target.connection, run.warn, run.cancel)
    if not marker.replaced:
        return
    with session(maintenance, run.cancel) as connection:
        exists = database_oids(connection, [marker.replaced]).get(marker.replaced) == marker.oid
        if exists and _was_replaced(connection, marker.replaced, target.database):
            outcome.replaced = marker.replaced
        elif exists:
            run.warn(
                f'keeping database {marker.replaced}: the comment of database "{target.database}" says that a '
                "restore replaced it, but its name is not one that a restore gives, or its owner differs"
            )
    _drop_replaced(request, maintenance, outcome)


def _was_replaced(connection: Session, name: str, database: str) -> bool:
    """Return whether a database can be the one that another has replaced: the comment that says so is its owner's."""
    return is_dated_name(name, database) and bool(fetch_value(connection, _SAME_OWNER, [name, database]))


def _drop_replaced(request: RestoreRequest, maintenance: ConnectionParams, outcome: RestoreOutcome) -> None:
    """Drop the database that the restored one has replaced, unless it is to be kept."""
    target = request.target
    if outcome.replaced and not (target.mode == "replace" and target.keep_old):
        outcome.replaced = drop_replaced(
            request.run, maintenance, outcome.replaced, only_if_empty=target.mode == "into_empty"
        )


def _open_loader(request: RestoreRequest, checked: CheckedArtifact, server: ServerInfo) -> Loader:
    if request.manifest.artifact.format == "plain":
        return open_script(request.run, checked, request.options, server)
    loader = open_archive(request.run, checked, request.options, server)
    # In mode replace a missing name is an error: afterwards only the restored objects are left.
    loader.check_names(required=request.target.mode == "replace")
    return loader


class _DatabaseRestore:
    def __init__(self, request: RestoreRequest, state: TargetState, loader: Loader) -> None:
        self._request = request
        self._run = request.run
        self._target = request.target
        self._state = state
        self._loader = loader
        self._dumped = loader.properties
        self._globals = GlobalsPlan()
        self._strategy = RestoreStrategy(new_database=False, single_transaction=True)
        self._maintenance = request.target.connection

    # -- plan

    def plan(self) -> list[str]:
        request, loader, server, target = self._request, self._loader, self._state.server, self._target
        check_versions(loader.dumped_from, server, allow_older=target.allow_older_server, label=request.server_label)
        self._strategy = choose_strategy(target, request.options, server, loader.needs)
        if self._strategy.single_transaction:
            loader.check_single_transaction()
            if not self._strategy.new_database:
                loader.check_rows()
        if self._strategy.new_database:
            self._maintenance = self._connect_elsewhere()
        if request.globals_from:
            repository, manifest = request.globals_from
            of_roles = major_version(manifest.source.server_version)
            check_versions(of_roles, server, allow_older=target.allow_older_server, label=request.server_label)
            with request.checked(repository, manifest) as checked:
                statements = open_globals(request.run, checked)
            self._globals = request.plan_globals(statements, server, self._maintenance)
        needs = loader.needs
        if target.mode == "create":
            self._leave_out_roles()
            for statement in self._dumped.statements:
                needs.add(statement.about(target.database))
            if self._dumped.owner is not None:
                needs.roles.add(self._dumped.owner)
                self._require_may_own(self._dumped.owner)
        request.check_needs(needs, server, self._globals)
        versions = version_differences(request.manifest.source.extensions, server.extensions, names=needs.extensions)
        return [*self._globals.lines(), *self._lines(), *versions]

    def _leave_out_roles(self) -> None:
        """With no_owner, leave out the settings of roles that the server lacks."""
        if self._request.options.no_owner:
            known = self._state.server.roles | set(self._globals.created)
            for role in sorted({each.role for each in self._dumped.statements if each.role} - known):
                self._run.warn(f'the settings of role "{role}" in the database are left out: the role does not exist')
                self._dumped = self._dumped.without_role(role)

    def _require_may_own(self, owner: str) -> None:
        """Check that the user may create a database of the dumped owner, unless that is created before."""
        if owner not in self._globals.created:
            with session(self._maintenance, self._run.cancel) as connection:
                require_may_own(connection, owner, hint=f" Or restore with {parameter('no_owner', True)}.")

    def _connect_elsewhere(self) -> ConnectionParams:
        """Return the database to connect to while the target is replaced."""
        if self._state.maintenance is None:  # into_empty, but not in a single transaction
            self._target.check_may_be_replaced(
                f"It can only be filled in a single transaction, but {self._strategy.reason}: restore without jobs and "
                f"transaction_size, with single_transaction, or with {parameter('mode', 'create')} under another name."
            )
            require_may_create(self._state.server, CREATEDB_HINT)
            self._state.maintenance = self._target.maintenance(self._run.cancel)
            with session(self._state.maintenance, self._run.cancel) as connection:
                require_replaceable(connection, self._state.server, self._target)
        return self._state.maintenance

    def _lines(self) -> list[str]:
        target, strategy = self._target, self._strategy
        lines = [f"restoring {MODES[target.mode]}: {target.connection.label}", *self._loader.lines()]
        if target.mode == "create" and self._dumped.create is None:
            self._run.warn(
                "the dump lacks owner, locale, settings, privileges and limits of its database, so those are the "
                f"server's defaults, and everybody may connect: dump with {parameter('create', True)} next time"
            )
        if target.with_properties:
            lines.append(f"with owner, settings, privileges, limits and comment of database {target.database}")
        if strategy.single_transaction:
            lines.append("in a single transaction")
        if strategy.new_database and target.mode == "into_empty":
            lines.append(f"into a new database that replaces the empty one, because {strategy.reason}")
        elif strategy.new_database:
            lines.append("under a temporary name, renamed when complete")
        if target.mode == "replace":
            lines.append(f"the old database is {'renamed, with the date' if target.keep_old else 'dropped'}")
            if target.terminate_sessions:
                lines.append("sessions in the old database are ended at the rename")
        return lines

    # -- run

    def run(self, outcome: RestoreOutcome) -> None:
        if self._request.globals_from:
            self._request.apply_globals(self._globals, self._maintenance, outcome)
        restore = self._into_new_database if self._strategy.new_database else self._in_place
        if created := [*self._globals.created, *self._globals.tablespaces]:
            with state_in_errors(f"roles and tablespaces were created: {first_of(created, _NAMED)}", self._run.log):
                restore(outcome)
        else:
            restore(outcome)

    def _in_place(self, outcome: RestoreOutcome) -> None:
        target = self._target
        connection = self._quiet(target.connection) if target.mode == "into_empty" else target.connection
        if target.with_properties:  # the dumped database may set a role
            connection = with_option(connection, f"role={self._state.server.user}")
        before = count_contents(self._run, connection)
        marker = self._marker()
        if not set_marker(self._run, connection, marker and replace(marker, begun=True)):
            marker = None
        with state_in_errors(f'database "{target.database}" was not changed', self._run.log) as state:
            if target.with_properties and self._loader.properties.settings:
                state.text = f'database "{target.database}" has settings of the dumped one, and is otherwise unchanged'
                change_existing(self._run, connection, self._loader.properties, settings=True)
            warn_of_time_zone(self._run, connection, self._request.manifest.source.time_zone)
            after_it = f'database "{target.database}" was restored'
            with noted_transaction(self._run, connection, marker, state, after=after_it):
                self._loader.load(connection, single_transaction=True, public_exists=self._state.public_exists)
            self._run.log(f"restored objects and rows into {target.database}")
            public = self._loader.public if target.mode == "into_empty" and self._state.public_exists else None
            if public and public.owner is not None:
                give_public_schema(self._run, connection, public.owner)
            if target.with_properties:
                change_existing(self._run, connection, self._loader.properties, settings=False)
            if marker:
                set_marker(self._run, connection, marker)
            after = self._request.finish(connection)
        if target.mode == "into_existing" and self._loader.drops:  # what was dropped counted before
            counts = replace(after, rows=None)
        else:
            rows = None if after.rows is None else after.rows - (before.rows or 0)
            counts = replace(after, objects=after.objects - before.objects, rows=rows)
        outcome.add(target.database, counts)

    def _into_new_database(self, outcome: RestoreOutcome) -> None:
        request, run, target = self._request, self._run, self._target
        exists = target.mode != "create"
        unchanged = "was not changed" if exists else "was not created"
        with (
            state_in_errors(f'database "{target.database}" {unchanged}', run.log) as state,
            TemporaryDatabases(self._maintenance, cancel=run.cancel, say=run.log) as temporary,
        ):
            properties = self._properties()
            new = self._fill(temporary, properties)
            run.log(f"restored objects and rows into {new.dbname}")
            counts = request.finish(new)
            if exists:  # the old database's properties may have changed during the restore
                properties = self._properties()
                apply_statements(run, new, properties.settings)
            apply_statements(run, new, properties.descriptions)
            outcome.replaced = self._rename(new, state, properties, exists=exists)
        outcome.add(target.database, counts)
        _drop_replaced(request, self._maintenance, outcome)

    def _fill(self, temporary: TemporaryDatabases, properties: DatabaseProperties) -> ConnectionParams:
        """Restore into a new database.

        Several jobs restore in another order than the archive's, and a CHECK constraint that reads another table, for
        example, then fails. So an error with several jobs counts only if one job fails too.
        """
        run, loader = self._run, self._loader
        exactly, encoding = self._target.mode != "create", self._request.manifest.source.encoding
        while True:
            new = self._quiet(create_like(run, temporary, properties, encoding=encoding, exactly=exactly))
            warn_of_time_zone(run, new, self._request.manifest.source.time_zone)
            public_exists = prepare_public_schema(run, new, loader.public)
            try:
                single = self._strategy.single_transaction
                loader.load(new, single_transaction=single, public_exists=public_exists)
            except (ToolKilled, DeadlineExceeded):
                raise
            except ToolError as error:
                if not loader.fall_back_to_one_job():
                    raise
                run.warn(f"restoring again with one job, because several jobs failed: {error.message}")
                temporary.drop()
            else:
                return new

    def _quiet(self, params: ConnectionParams) -> ConnectionParams:
        fires = self._loader.fires_event_triggers
        return without_fired_triggers(self._run, self._state.server, params, fires=fires)

    def _properties(self) -> DatabaseProperties:
        """Return the properties for the new database: those of the existing one, or of the dumped one."""
        if self._target.mode == "create":
            return self._dumped
        return read_properties(self._run, self._target.connection, self._state.server.version_num)

    def _marker(self, replaced: str = "", oid: int = 0) -> RetryMarker | None:
        """Return the marker for the restored database, None if nobody will retry."""
        digest, manifest = self._request.retry_digest, self._request.manifest
        return RetryMarker(digest, manifest.series.path, manifest.id, replaced, oid) if digest else None

    def _rename(
        self, new: ConnectionParams, state: StateText, properties: DatabaseProperties, *, exists: bool
    ) -> str | None:
        """Give the new database its final name, and admit others.

        :param state: takes the state after that.
        :return: the new name of the old database, None if there is none.
        """
        run, target = self._run, self._target
        run.log(f"renaming {new.dbname} to {target.database}, with its privileges and limits")
        run.check()
        rename = partial(
            rename_databases,
            self._maintenance,
            state=state,
            warn=run.warn,
            then=partial(give_access, database=target.database, own=properties, warn=run.warn),
            cancel=run.cancel,
        )
        if exists:
            return self._swap(new, rename)
        set_marker(run, new, self._marker())
        created = f'database "{target.database}" was created'
        rename([(new.dbname, target.database)], end_sessions_in=[new.dbname], after=created)
        run.log_after_commit(f"renamed {new.dbname} to {target.database}")
        return None

    def _swap(self, new: ConnectionParams, rename: Callable[..., None]) -> str:
        """Give the new database the name of the old one.

        :param rename: :func:`.rename_databases`, with what it needs in any case.
        :return: the new name of the old database.
        :raises RestoreError: somebody else has replaced or dropped the old one.
        """
        run, target = self._run, self._target
        with session(self._maintenance, run.cancel) as connection:
            oids = database_oids(connection, [target.database])
            found = find_marker(connection, target.database)
            old = dated_name(connection, target.database, datetime.now(timezone.utc))
        if found and not found.begun and found.request == self._request.retry_digest:
            raise RestoreError(
                f'another attempt of this task has replaced database "{target.database}" in the meantime',
                hint="Retry the task: it recognizes the completed restore.",
            )
        if target.database not in oids:
            raise dropped_meanwhile(target.database)
        set_marker(run, new, self._marker(old, oids[target.database]))
        rename(
            [(target.database, old), (new.dbname, target.database)],
            end_sessions_in=[new.dbname, target.database] if target.terminate_sessions else [new.dbname],
            after=f'database "{target.database}" was replaced',
            expected=oids,
        )
        renamed_old = f", and the old database to {old}" if target.mode == "replace" else ""
        run.log_after_commit(f"renamed {new.dbname} to {target.database}{renamed_old}")
        return old
