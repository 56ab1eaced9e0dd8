"""The backup of one database, restored in one of two ways: all in one transaction, or as a new database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from airflow_pgbackup.backup.checked import Checked
from airflow_pgbackup.backup.databases.extensions import version_differences
from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.restore.archive import needs_path, open_archive
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.new_database import (
    apply_statements,
    count_contents,
    create_like,
    drop_public_schema,
    read_properties,
)
from airflow_pgbackup.backup.restore.plan import Loader, RestoreStrategy, check_needs, check_versions, choose_strategy
from airflow_pgbackup.backup.restore.rename import dated_name, drop_replaced, rename_databases
from airflow_pgbackup.backup.restore.request import RestoreOutcome, RestoreRequest, state_in_errors
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, find_marker, set_marker
from airflow_pgbackup.backup.restore.script import open_globals, open_script
from airflow_pgbackup.backup.restore.target import (
    MODES,
    has_public,
    oids_of,
    require_empty,
    require_replaceable,
    staying,
)
from airflow_pgbackup.errors import ConfigurationError, DeadlineExceeded, RestoreError, ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties


def restore_database(job: RestoreRequest) -> RestoreOutcome:
    """Check everything, then do it.

    :raises PgBackupError: as :func:`airflow_pgbackup.backup.restore.restore`.
    """
    place = _look(job)
    if place.earlier:
        return _done_earlier(job, place, place.earlier)
    as_path = job.manifest.artifact.format != "plain" and needs_path(job.manifest, job.options)
    with (
        job.checked(job.repository, job.manifest, as_path=as_path) as checked,
        _opened(job, checked, place.server) as loader,
    ):
        restoring = _Restoring(job, place, loader)
        outcome = RestoreOutcome(plan=restoring.plan())
        for line in outcome.plan:
            job.run.say(line)
        if not job.dry_run:
            job.run.check()
            restoring.do(outcome)
        return outcome


@dataclass
class _Place:
    """The target as it is.

    :ivar around: a database to be in while the target is made, renamed or dropped; None where it only is filled.
    :ivar earlier: what an earlier try of this request has done.
    """

    server: ServerInfo
    around: ConnectionParams | None
    public_exists: bool = True
    earlier: RetryMarker | None = None


def _done_earlier(job: RestoreRequest, place: _Place, mark: RetryMarker) -> RestoreOutcome:
    """Its success was reported to nobody. What may be left of it is to drop the old database."""
    run, target = job.run, job.target
    line = f"an earlier try of this task restored {mark.series}/{mark.id} into {target.database}: nothing to do"
    run.say(line)
    outcome = RestoreOutcome(plan=[line], earlier=mark)
    if job.dry_run or place.around is None:
        return outcome
    with session(place.around, run.cancel) as connection:
        if oids_of(connection, [mark.replaced]).get(mark.replaced) == mark.oid:
            outcome.replaced = mark.replaced
    if outcome.replaced and not target.keep_old:
        outcome.replaced = drop_replaced(run, place.around, outcome.replaced, only_if_empty=False)
    outcome.add(target.database, count_contents(run, target.connection))
    return outcome


def _look(job: RestoreRequest) -> _Place:
    """:raises ConfigurationError: the target is not as the mode wants it."""
    target, cancel = job.target, job.run.cancel
    if target.mode in ("into_empty", "into_existing"):
        with session(target.connection, cancel) as connection:
            server = ServerInfo.read(connection, target.connection.label)
            if target.mode == "into_empty":
                require_empty(connection, target.connection.label)
            return _Place(server, None, has_public(connection))
    around = target.maintenance(cancel)
    with session(around, cancel) as connection:
        server = ServerInfo.read(connection, target.connection.label)
        exists = target.database in server.databases
        if target.mode == "create" and exists:
            raise ConfigurationError(
                f"database {target.database} is there already",
                hint="restore under another name, or with mode='replace' to take its place",
            )
        if target.mode == "replace" and not exists:
            raise ConfigurationError(
                f"there is no database {target.database} to replace", hint="restore with mode='create'"
            )
        if target.mode == "replace" and job.request:
            mark = find_marker(connection, target.database)
            if mark and mark.request == job.request:
                return _Place(server, around, earlier=mark)
        _require_may_create(server)
        if exists:
            require_replaceable(connection, server, target)
            for what in staying(connection, target.database):
                job.run.warn(f"{what} stays with the old database")
    return _Place(server, around)


def _require_may_create(server: ServerInfo) -> None:
    if not server.may_create:
        raise ConfigurationError(
            f"{server.user} may not create databases",
            hint=f"ALTER ROLE {server.user} CREATEDB, or restore with mode='into_empty' and without jobs",
        )


@contextmanager
def _opened(job: RestoreRequest, checked: Checked, server: ServerInfo) -> Iterator[Loader]:
    if job.manifest.artifact.format == "plain":
        yield open_script(job.run, checked, job.options, server)
    else:
        with open_archive(job.run, checked, job.options, server) as loader:
            yield loader


class _Restoring:
    """What is decided, and its doing."""

    def __init__(self, job: RestoreRequest, place: _Place, loader: Loader) -> None:
        self._job = job
        self._run = job.run
        self._place = place
        self._loader = loader
        self._globals = GlobalsPlan()
        self._way = RestoreStrategy(fresh=False, single_transaction=True)
        self._around: ConnectionParams

    # -- deciding

    def plan(self) -> list[str]:
        """Decide, and say how.

        :raises ConfigurationError: what would stop it half-way.
        """
        job, loader, server, target = self._job, self._loader, self._place.server, self._job.target
        label = f"the server of {target.connection.label}"
        check_versions(loader.dumped_from, server, allow_older=target.allow_older_server, label=label)
        self._way = choose_strategy(target, job.options, server, loader.needs)
        self._around = self._go_around()
        if job.globals_from:
            repository, manifest = job.globals_from
            with job.checked(repository, manifest) as checked:
                statements = open_globals(job.run, checked)
            self._globals = job.plan_globals(statements, server, self._around)
        needs = loader.needs
        if target.mode == "create":
            for statement in loader.properties.statements:
                needs.add(statement.about(target.database))
            needs.roles |= {loader.properties.owner} - {None}  # type: ignore[arg-type]  # not None any more
        check_needs(
            needs, server, label=label, new_roles=self._globals.created, new_tablespaces=self._globals.tablespaces
        )
        versions = version_differences(job.manifest.source.extensions, server.extensions, names=needs.extensions)
        return [*self._globals.lines(), *self._lines(), *versions]

    def _go_around(self) -> ConnectionParams:
        """Where to be meanwhile; a database that is filled in one transaction can be that itself."""
        target = self._job.target
        if not self._way.fresh:
            return target.connection
        if self._place.around is None:  # into_empty, and no transaction
            _require_may_create(self._place.server)
            self._place.around = target.maintenance(self._run.cancel)
            with session(self._place.around, self._run.cancel) as connection:
                require_replaceable(connection, self._place.server, target)
        return self._place.around

    def _lines(self) -> list[str]:
        target, way = self._job.target, self._way
        lines = [f"into {target.connection.label}, mode {target.mode}: {MODES[target.mode]}", *self._loader.lines()]
        if way.single_transaction:
            lines.append("in a single transaction")
        if way.fresh and target.mode == "into_empty":
            lines.append(f"as a new database that takes the place of the empty one, because of {way.why}")
        elif way.fresh:
            lines.append("as a new database that gets its name when it is whole")
        if target.mode == "replace":
            lines.append("the old database is kept under a dated name" if target.keep_old else "the old one is dropped")
            if target.terminate_sessions:
                lines.append("sessions in the old database are ended at the swap")
        return lines

    # -- doing

    def do(self, outcome: RestoreOutcome) -> None:
        outcome.roles_created, outcome.roles_existing = self._globals.created, self._globals.existing
        if self._job.globals_from:
            self._job.apply_globals(self._globals, self._around)
        if self._way.fresh:
            self._as_new_database(outcome)
        else:
            self._in_place(outcome)

    def _in_place(self, outcome: RestoreOutcome) -> None:
        target = self._job.target
        before = count_contents(self._run, target.connection)
        with state_in_errors(f"database {target.database} is as it was"):
            self._loader.load(target.connection, single_transaction=True, public_exists=self._place.public_exists)
        self._run.say(f"objects and rows restored into {target.database}")
        after = self._job.finish(target.connection)
        rows = None if after.rows is None else after.rows - (before.rows or 0)
        outcome.add(target.database, replace(after, objects=after.objects - before.objects, rows=rows))

    def _as_new_database(self, outcome: RestoreOutcome) -> None:
        job, run, target = self._job, self._run, self._job.target
        exists = target.mode != "create"
        state = f"database {target.database} is as it was" if exists else f"there is no database {target.database}"
        with state_in_errors(state), TemporaryDatabases(self._around, cancel=run.cancel, say=run.say) as temporary:
            properties = self._properties()
            fresh = self._filled(temporary, properties)
            run.say(f"objects and rows restored into {fresh.dbname}")
            measured = job.finish(fresh)
            if exists:  # hours may have passed
                properties = self._properties()
                apply_statements(run, fresh, properties.settings)
            apply_statements(run, fresh, properties.others)
            run.say("privileges, comment and limits of the database applied")
            outcome.replaced = self._swap(fresh, exists=exists)
        outcome.add(target.database, measured)
        if outcome.replaced and not (target.mode == "replace" and target.keep_old):
            outcome.replaced = drop_replaced(
                run, self._around, outcome.replaced, only_if_empty=target.mode == "into_empty"
            )

    def _filled(self, temporary: TemporaryDatabases, properties: DatabaseProperties) -> ConnectionParams:
        """A new database with what the backup holds.

        Several jobs restore in another order than the archive's, which a CHECK that reads another table, say, does not
        stand. So an error is no verdict before one job has tried.
        """
        run, loader = self._run, self._loader
        exactly, encoding = self._job.target.mode != "create", self._job.manifest.source.encoding
        while True:
            fresh = create_like(run, temporary, properties, encoding=encoding, exactly=exactly)
            public_exists = drop_public_schema(run, fresh, makes_public=loader.makes_public)
            try:
                loader.load(fresh, single_transaction=self._way.single_transaction, public_exists=public_exists)
            except (ToolKilled, DeadlineExceeded):
                raise
            except ToolError as error:
                if not loader.to_one_job():
                    raise
                run.warn(f"restoring again with one job, as several failed: {error.message}")
                temporary.drop()
            else:
                return fresh

    def _properties(self) -> DatabaseProperties:
        """A database that is there goes on as it is; a new one is as it was dumped."""
        target = self._job.target
        if target.mode == "create":
            return self._loader.properties
        return read_properties(self._run, target.connection, self._place.server.version_num)

    def _swap(self, made: ConnectionParams, *, exists: bool) -> str | None:
        """:return: what the old database is called now."""
        run, target, fresh = self._run, self._job.target, made.dbname
        run.check()
        if not exists:
            set_marker(run, made, None)
            rename_databases(self._around, [(fresh, target.database)], end_sessions_in=[fresh], cancel=run.cancel)
            run.say(f"database {target.database} is there")
            return None
        with session(self._around, run.cancel) as connection:
            oids = oids_of(connection, [target.database])
            mark = find_marker(connection, target.database)
            old = dated_name(connection, target.database, datetime.now(timezone.utc))
        request, manifest = self._job.request, self._job.manifest
        if mark and mark.request == request:
            raise RestoreError(
                f"another try of this task has replaced {target.database} meanwhile", hint="Retry: it finds that."
            )
        mine = None
        if request and target.mode == "replace":
            mine = RetryMarker(request, manifest.series.path, manifest.id, old, oids[target.database])
        set_marker(run, made, mine)
        rename_databases(
            self._around,
            [(target.database, old), (fresh, target.database)],
            end_sessions_in=[fresh, target.database] if target.terminate_sessions else [fresh],
            expected=oids,
            cancel=run.cancel,
        )
        with_old = f"; the old one is {old}" if target.mode == "replace" else ""
        # From here on it has happened: a line that cannot be logged must not look like a failure.
        run.say_at_last(f"database {target.database} is the restored one now{with_old}")
        return old
