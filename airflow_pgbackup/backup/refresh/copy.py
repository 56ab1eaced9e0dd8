"""One refresh: plan it, fill the new database, and swap it with the old one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, session, translated_errors
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.refresh.foreign_servers import foreign_options, restore_foreign_options
from airflow_pgbackup.backup.refresh.kept_copies import WORD, drop_old_copies, mark_kept
from airflow_pgbackup.backup.refresh.masked import MaskedLoad
from airflow_pgbackup.backup.refresh.own_grants import (
    OwnGrants,
    Reapplied,
    apply_event_trigger_owners,
    apply_own_grants,
    owned,
    read_own_grants,
)
from airflow_pgbackup.backup.refresh.public_rights import public_objects, revoke_default_rights
from airflow_pgbackup.backup.refresh.sections import SectionLoader
from airflow_pgbackup.backup.restore.access import give_access
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.new_database import apply_statements, create_like
from airflow_pgbackup.backup.restore.plan import check_versions
from airflow_pgbackup.backup.restore.preconditions import database_oids
from airflow_pgbackup.backup.restore.rename import dated_name, rename_databases
from airflow_pgbackup.backup.restore.request import RestoreOutcome, RestoreRequest, StateText, state_in_errors
from airflow_pgbackup.backup.restore.retry_marker import RetryMarker, find_marker, set_marker
from airflow_pgbackup.backup.restore.target_state import TargetState
from airflow_pgbackup.backup.sql_checks import SQL_CHECK, SqlCheck, run_checks
from airflow_pgbackup.backup.subset import TableCount
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.quantities import counted
from airflow_pgbackup.text import first_problem

_NAMED = 5
_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(737261, pg_catalog.hashtext(%s))"


@dataclass
class Refreshed:
    """What a refresh did beside the restore.

    :ivar not_reapplied: a line for each object that lost its owner or grants.
    :ivar new_objects: tables and other objects that the old database did not have; our role owns them.
    :ivar kept: the earlier copies, the newest first.
    :ivar masked_columns: how many columns the rules have masked.
    :ivar subset: the rows of each table that has fewer than the backup.
    :ivar foreign_keys_left_out: foreign keys that the copy lacks because a table they need is not restored.
    :ivar searched_values: for how many values of the source the copy was searched.
    :ivar checks: a line for each SQL check, with its result.
    """

    reapplied: int = 0
    not_reapplied: list[str] = field(default_factory=list)
    new_objects: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    masked_columns: int = 0
    searched_values: int = 0
    checks: list[str] = field(default_factory=list)
    subset: list[TableCount] = field(default_factory=list)
    foreign_keys_left_out: list[str] = field(default_factory=list)


class RefreshedCopy:
    """Restores into a new database and lets it take the place of the target.

    :param masked: masks the rows; None loads them as they are.
    :param checks: SQL that must be true in the new database.
    :param keep: earlier copies to keep.
    """

    def __init__(
        self,
        request: RestoreRequest,
        state: TargetState,
        loader: SectionLoader,
        *,
        masked: MaskedLoad | None,
        checks: tuple[SqlCheck, ...],
        keep: int,
    ) -> None:
        if state.maintenance is None:
            raise RuntimeError("a refresh needs a database to connect to meanwhile")
        self._request = request
        self._run = request.run
        self._target = request.target
        self._server = state.server
        self._maintenance: ConnectionParams = state.maintenance
        self._loader = loader
        self._masked = masked
        self._checks = checks
        self._keep = keep
        self.refreshed = Refreshed()

    # -- plan

    def plan(self) -> list[str]:
        request, loader, target = self._request, self._loader, self._target
        check_versions(
            loader.dumped_from, self._server, allow_older=target.allow_older_server, label=request.server_label
        )
        request.check_needs(loader.needs, self._server, GlobalsPlan())
        own = self._read_own()
        grants = sum(entry.kind == "ACL" for entry in own.entries)
        kept = (
            f"and the {counted(self._keep, 'newest earlier copy', 'newest earlier copies')}" if self._keep else "only"
        )
        return [
            f"refreshing {target.connection.label}, which stays in use until the swap",
            *loader.lines(),
            self._masked.line if self._masked else "no masking rules: rows are copied as they are",
            f"re-applied from {target.database}: owners, the grants of {counted(grants, 'object')}, "
            f"{counted(len(own.database.settings), 'setting')}, comment, default privileges",
            f"kept afterwards: {target.database} {kept}",
        ]

    # -- run

    def run(self, outcome: RestoreOutcome) -> None:
        run, target = self._run, self._target
        with (
            state_in_errors(f'database "{target.database}" was not changed', run.log) as state,
            self._alone(),
            TemporaryDatabases(self._maintenance, cancel=run.cancel, say=run.log) as temporary,
        ):
            new = self._create(temporary)
            self._fill(new)
            counts = self._request.finish(new)
            counts = replace(counts, objects=counts.objects + self._loader.event_triggers)
            if self._masked:
                self._masked.search(new)
                self.refreshed.searched_values = self._masked.values
            self._check(new)
            own = self._give_own(new)
            outcome.replaced = self._swap(new, own, state)
        outcome.add(target.database, counts)
        self.drop_old_copies(outcome)

    def drop_old_copies(self, outcome: RestoreOutcome) -> None:
        """Drop the earlier copies that are not to be kept."""
        self.refreshed.kept = drop_old_copies(
            self._run, self._maintenance, self._target.database, self._keep, outcome.replaced
        )
        if outcome.replaced not in self.refreshed.kept:
            outcome.replaced = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold a lock on the refresh of the target, because a second, concurrent one would be wasted."""
        with session(self._maintenance, self._run.cancel) as connection:
            if not fetch_value(connection, _LOCK, [self._target.database]):
                raise RestoreError(
                    f'another refresh of database "{self._target.database}" is running',
                    hint="Wait for its end, or stop it first.",
                    retry="later",
                )
            yield

    def _create(self, temporary: TemporaryDatabases) -> ConnectionParams:
        """Create a database of our own: the target's owner may see it once its rows are masked and checked."""
        own = replace(self._read_own().database, owner=None)
        return create_like(self._run, temporary, own, encoding=self._request.manifest.source.encoding, exactly=True)

    def _fill(self, new: ConnectionParams) -> None:
        loader, run, masked = self._loader, self._run, self._masked
        loader.load_definitions(new)
        run.log(f"restored definitions into {new.dbname}")
        self._select_rows(new)
        if masked:
            masked.begin(new)
            self.refreshed.masked_columns = masked.columns
        with masked.hinting() if masked else nullcontext():
            loader.load_rows(new)
        run.log(f"restored rows into {new.dbname}")
        if masked:
            masked.end(new)
        self._reduce(new)
        with masked.hinting() if masked else nullcontext():
            loader.load_rest(new)
        for table in loader.foreign_rows:
            run.warn(f"left out the rows of foreign table {table}: they would be written to its foreign server")
        for view in loader.unpopulated:
            run.warn(f"materialized view {view} reads a foreign table, so it has no rows until somebody refreshes it")
        run.log(f"restored indexes, constraints and triggers into {new.dbname}")

    def _check(self, new: ConnectionParams) -> None:
        """Run the user's own checks.

        :raises RestoreError: one that is required is not true, or cannot run.
        """
        if not self._checks:
            return
        run, started_at = self._run, self._request.manifest.started_at
        problems = []
        for outcome in run_checks(new, self._checks, started_at=started_at, cancel=run.cancel):
            line = f"{SQL_CHECK} {outcome.check.name!r}: {outcome.detail}"
            self.refreshed.checks.append(f"{line} ({outcome.result})")
            if outcome.result == "pass":
                run.log(line)
            elif outcome.check.required:
                problems.append(line)
            else:
                run.warn(line)
        if problems:
            raise RestoreError(first_problem(problems), hint="Check the data of the backup, or correct the check.")

    def _select_rows(self, new: ConnectionParams) -> None:
        if subset := self._loader.subset:
            with session(new, self._run.cancel) as connection:
                subset.install(connection)

    def _reduce(self, new: ConnectionParams) -> None:
        if subset := self._loader.subset:
            with session(new, self._run.cancel) as connection:
                self.refreshed.subset = subset.reduce(connection)
            self.refreshed.foreign_keys_left_out = subset.left_out
            for count in self.refreshed.subset:
                self._run.log(f"kept {count.after:,} of {counted(count.before, 'row')} of {count.table}")

    def _read_own(self) -> OwnGrants:
        return read_own_grants(self._run, self._target.connection, self._server.version_num)

    def _give_own(self, new: ConnectionParams) -> OwnGrants:
        """Give the new database the owner, grants and settings of the old one, except the right to connect."""
        run, database = self._run, self._target.database
        own = self._read_own()
        apply_statements(run, new, own.database.settings)
        apply_statements(run, new, own.database.descriptions)
        self._revoke_default_rights(new)
        done = apply_own_grants(run, new, own, without_mappings=self._restore_foreign_options(new))
        self._note(done)
        self.refreshed.new_objects = sorted(
            f"{kind} {schema}.{name}" if schema else f"{kind} {name}"
            for kind, schema, name in owned(self._loader.entries) - own.objects
        )
        run.log(f"re-applied {counted(done.count, 'owner or grant', 'owners and grants')} of {database}")
        if new_objects := self.refreshed.new_objects:
            more = ", …" if len(new_objects) > _NAMED else ""
            run.warn(
                f"{counted(len(new_objects), 'object')} that {database} did not have belong to {self._server.user}, "
                f"without grants: {', '.join(new_objects[:_NAMED])}{more}"
            )
        return own

    def _add_event_triggers(self, new: ConnectionParams, own: OwnGrants) -> None:
        """Restore the event triggers last, as they may refuse what a refresh does before."""
        with session(new, self._run.cancel) as connection:  # a login trigger may refuse later sessions
            self._loader.load_event_triggers(new)
            self._note(apply_event_trigger_owners(self._run, connection, own))

    def _note(self, done: Reapplied) -> None:
        """Note what was re-applied. :raises RestoreError: the server refused something."""
        done.require_complete(self._target.database)
        self.refreshed.reapplied += done.count
        self.refreshed.not_reapplied += done.lines()
        for line in done.lines()[:_NAMED]:
            self._run.warn(line)

    def _revoke_default_rights(self, new: ConnectionParams) -> None:
        with session(self._target.connection, self._run.cancel) as connection:
            old = public_objects(connection)
        with session(new, self._run.cancel) as connection:
            revoke_default_rights(connection, old)

    def _restore_foreign_options(self, new: ConnectionParams) -> set[str]:
        with session(self._target.connection, self._run.cancel) as connection:
            old = foreign_options(connection)
        with session(new, self._run.cancel) as connection:
            return restore_foreign_options(connection, old)

    def _swap(self, new: ConnectionParams, own: OwnGrants, state: StateText) -> str:
        """Rename the old database and the new one, and admit those who could connect to the old one.

        :param state: takes the state after that.
        :return: the new name of the old database.
        """
        run, target = self._run, self._target
        run.check()
        digest, manifest = self._request.retry_digest, self._request.manifest
        with session(self._maintenance, run.cancel) as connection:
            oids = database_oids(connection, [target.database])
            found = find_marker(connection, target.database)
            old = dated_name(connection, target.database, datetime.now(timezone.utc), WORD)
        if found and digest and found.request == digest:
            raise RestoreError(
                f'another attempt of this task has refreshed database "{target.database}" in the meantime',
                hint="Retry the task: it recognizes the completed refresh.",
            )
        if target.database not in oids:
            raise RestoreError(
                f'database "{target.database}" was dropped or renamed during the refresh',
                hint="Find out who did that; the next refresh needs the database.",
            )
        marker = RetryMarker(digest, manifest.series.path, manifest.id, old, oids[target.database]) if digest else None
        set_marker(run, new, marker)
        self._add_event_triggers(new, own)

        def finish(connection: Session) -> None:
            give_access(connection, target.database, own.database, run.warn)
            mark_kept(connection, old, target.database)

        with translated_errors("swapping the databases"):
            rename_databases(
                self._maintenance,
                [(target.database, old), (new.dbname, target.database)],
                end_sessions_in=[new.dbname, target.database] if target.terminate_sessions else [new.dbname],
                state=state,
                after=f'database "{target.database}" was replaced',
                warn=run.warn,
                expected=oids,
                then=finish,
                cancel=run.cancel,
            )
        run.log_after_commit(f"renamed {target.database} to {old}, and {new.dbname} to {target.database}")
        return old
