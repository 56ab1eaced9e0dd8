"""The backup of a whole cluster, restored into a server: its roles and tablespaces, then each database of its own.

pg_dumpall's script makes the databases under their names, one after the other. Here each is made under a temporary
name, and all of them get their own in one transaction at the end, so that a failure in the last leaves none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.databases.temporary_database import TemporaryDatabases
from airflow_pgbackup.backup.restore.globals import GlobalsPlan
from airflow_pgbackup.backup.restore.new_database import apply_statements, create_like, drop_public_schema
from airflow_pgbackup.backup.restore.plan import check_needs, check_versions
from airflow_pgbackup.backup.restore.rename import rename_databases
from airflow_pgbackup.backup.restore.request import RestoreOutcome, RestoreRequest, state_in_errors
from airflow_pgbackup.backup.restore.script import ScriptLoader, open_script
from airflow_pgbackup.backup.restore.target import has_public, require_empty
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSection

# Every server has them; pg_dumpall restores into them instead of making them.
_ALWAYS_THERE = ("postgres", "template1")


def restore_cluster(job: RestoreRequest) -> RestoreOutcome:
    """As :func:`airflow_pgbackup.backup.restore.database.restore_database`.

    What the script has for databases that every server has already goes into those, which must be empty, in one
    transaction each.
    """
    target = job.target
    with session(target.connection, job.run.cancel) as connection:
        server = ServerInfo.read(connection, target.connection.label)
    with job.checked(job.repository, job.manifest) as checked:
        restoring = _Restoring(job, server, open_script(job.run, checked, job.options, server))
        outcome = RestoreOutcome(plan=restoring.plan())
        for line in outcome.plan:
            job.run.say(line)
        if not job.dry_run:
            job.run.check()
            restoring.do(outcome)
        return outcome


@dataclass
class _Part:
    """One database of the script.

    :ivar there: where it goes, if that is there already.
    """

    number: int
    section: ScriptSection
    there: ConnectionParams | None
    single_transaction: bool
    public_exists: bool = True

    @property
    def name(self) -> str:
        return self.section.database


class _Restoring:
    def __init__(self, job: RestoreRequest, server: ServerInfo, loader: ScriptLoader) -> None:
        self._job = job
        self._run = job.run
        self._server = server
        self._loader = loader
        self._globals = GlobalsPlan()
        self._parts: list[_Part] = []

    def plan(self) -> list[str]:
        """:raises ConfigurationError: what would stop it half-way."""
        job, server, contents = self._job, self._server, self._loader.contents
        connection, label = job.target.connection, f"the server of {job.target.connection.label}"
        check_versions(contents.dumped_from, server, allow_older=job.target.allow_older_server, label=label)
        self._globals = job.plan_globals(contents.globals, server, connection)
        for number, section in enumerate(contents.sections):
            always = section.database in _ALWAYS_THERE or not section.creates
            if not (always and section.empty):
                fits = section.requirements.locks <= server.locks // 2
                there = connection.with_database(section.database) if always else None
                self._parts.append(_Part(number, section, there, single_transaction=always or fits))
        new = [part.name for part in self._parts if part.there is None]
        if taken := sorted(set(new) & server.databases):
            raise ConfigurationError(
                f"{label} has databases of these names: {', '.join(taken)}",
                hint="restore the cluster into a server without them, or rename them before",
            )
        if new and not server.may_create:
            raise ConfigurationError(f"{server.user} may not create databases", hint="connect as a superuser")
        for part in self._parts:
            if part.there:
                with session(part.there, self._run.cancel) as checked:
                    require_empty(checked, part.there.label)
                    part.public_exists = has_public(checked)
        needs = self._loader.needs
        for section in contents.sections:
            needs.roles |= {section.properties.owner} - {None}  # type: ignore[arg-type]  # not None any more
        check_needs(
            needs, server, label=label, new_roles=self._globals.created, new_tablespaces=self._globals.tablespaces
        )
        return [f"into {label}, a whole cluster, by psql {self._loader.client}", *self._globals.lines(), *self._lines()]

    def _lines(self) -> list[str]:
        return [
            f"database {part.name}, {'there and empty' if part.there else 'new'}: {part.section.tables} tables with "
            f"{part.section.rows:,} rows, {part.section.objects} statements"
            for part in self._parts
        ]

    def do(self, outcome: RestoreOutcome) -> None:
        job, run = self._job, self._run
        outcome.roles_created, outcome.roles_existing = self._globals.created, self._globals.existing
        job.apply_globals(self._globals, job.target.connection)
        if not self._parts:
            return
        ways = {part.number: part for part in self._parts}
        renames: list[tuple[str, str]] = []
        around = job.target.maintenance(run.cancel)
        with (
            state_in_errors("none of its new databases is there; roles and tablespaces are"),
            TemporaryDatabases(around, cancel=run.cancel, say=run.say) as temporary,
            self._loader.parts(lambda number: _way(ways.get(number))) as parts,
        ):
            for number in range(len(self._loader.contents.sections)):
                stream = parts.part(number)
                if part := ways.get(number):
                    made = self._restore(part, stream, temporary, outcome)
                    renames += [(made, part.name)] if made else []
                while stream.read(1 << 20):  # of what is not restored
                    pass
            run.check()
            if renames:
                rename_databases(around, renames, end_sessions_in=[made for made, _ in renames], cancel=run.cancel)
        run.say_at_last(f"databases {', '.join(name for _, name in renames) or 'none'} are there")

    def _restore(
        self, part: _Part, stream: Readable, temporary: TemporaryDatabases, outcome: RestoreOutcome
    ) -> str | None:
        """:return: the temporary name of a database that is still to get its own."""
        run = self._run
        properties = part.section.properties
        params = part.there
        if params is None:
            encoding = self._job.manifest.source.encoding
            params = create_like(run, temporary, properties, encoding=encoding, exactly=False)
            part.public_exists = drop_public_schema(run, params, makes_public=part.section.makes_public)
        self._loader.run_part(stream, params, single_transaction=part.single_transaction)
        measured = self._job.finish(params)
        outcome.add(part.name, measured)
        run.say(f"database {part.name}: {measured.objects} objects restored")
        if part.there:
            return None
        apply_statements(run, params, properties.others)
        return params.dbname


def _way(part: _Part | None) -> tuple[bool, bool]:
    return (part.single_transaction, part.public_exists) if part else (True, True)
