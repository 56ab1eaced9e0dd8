"""``pgbackup restore``: restore a backup into a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_pgbackup.backup.choose_backup import LATEST, choose_backup
from airflow_pgbackup.backup.reference import reference_of
from airflow_pgbackup.backup.restore import GlobalsBackup, restore
from airflow_pgbackup.backup.restore.beside import LEFT_OUT
from airflow_pgbackup.backup.restore.target import RestoreTarget, connect_for_cluster
from airflow_pgbackup.cli.arguments import backup_argument, confirm_replacing, connection_argument
from airflow_pgbackup.cli.options import options_of
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.definitions.identifiers import quoted
from airflow_pgbackup.postgres.options import RestoreOptions
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.manifest import Manifest

# The flags that are options of pg_restore, by the option's name; the argument has the flag's name.
_LISTS = {
    "tables": "table",
    "schemas": "schema",
    "exclude_schemas": "exclude_schema",
    "indexes": "index",
    "functions": "function",
    "sections": "section",
}
_VALUES = ("jobs", "use_list", "role")
_SWITCHES = (
    "data_only", "schema_only", "clean", "if_exists", "strict_names", "no_owner", "no_privileges", "no_tablespaces",
)  # fmt: skip


def run(session: Session) -> None:
    arguments = session.arguments
    options = _options(session)
    for flag, given in (("--drop-old", arguments.drop_old), ("--keep-sessions", arguments.keep_sessions)):
        if given and _mode(session) != "replace":
            raise ConfigurationError(f"{flag} is only for --mode replace", hint=f"Add --mode replace, or omit {flag}.")
    repository, evidence, manifest = backup_argument(session)
    target = RestoreTarget(
        connection=_connection(session, manifest),
        mode=_mode(session),
        into_schema=arguments.into_schema,
        keep_old=not arguments.drop_old,
        terminate_sessions=not arguments.keep_sessions,
        maintenance_database=arguments.maintenance_db,
        allow_older_server=arguments.allow_older_server,
    )
    target.validate()
    _confirm(session, manifest, target)
    with session.working(f"restoring {manifest.artifact.name}", makes=True):
        outcome = restore(
            reference=reference_of(repository, evidence),
            repository=repository,
            target=target,
            options=options,
            globals_from=_globals(session, repository),
            analyze=not arguments.no_analyze,
            dry_run=arguments.dry_run,
            context=session.context_for(dry_run=arguments.dry_run),
        )
    session.result(outcome, *_lines(outcome))


def _mode(session: Session) -> str:
    """Return ``--mode``; a new schema is created in an existing database."""
    mode: str | None = session.arguments.mode
    return mode or ("into_existing" if session.arguments.into_schema is not None else "into_empty")


def _options(session: Session) -> RestoreOptions:
    """Return pg_restore's options: those with flags of their own, and those of ``-o``."""
    given = vars(session.arguments)
    texts = [f"{name}={value}" for name, argument in _LISTS.items() for value in given[argument]]
    texts += [f"{name}={given[name]}" for name in _VALUES if given[name] is not None]
    texts += [name for name in _SWITCHES if given[name]]
    return options_of(RestoreOptions, [*texts, *session.arguments.option])[0]


def _connection(session: Session, manifest: Manifest) -> ConnectionParams:
    """Return the target, after saying which it is.

    The name of the database comes from ``--dbname`` or from the backup. PGDATABASE, or a service's dbname, may have
    been set for other work: it would redirect the restore without a word.
    """
    arguments, connection = session.arguments, connection_argument(session)
    ignored = connection.dbname if not arguments.dbname else ""
    if manifest.kind == "cluster":
        connection = connect_for_cluster(connection, arguments.dbname, session.cancel)
        session.log(f"target: the server of {connection.label}; the backup creates its databases itself")
        return connection
    own = manifest.series.database or ""
    connection = connection.with_database(arguments.dbname or own)
    line = f"target: {connection.label}, mode {_mode(session)}"
    if arguments.into_schema:
        line += f', new schema "{arguments.into_schema}"'
    if ignored and ignored != own:
        line += f"; database {ignored} of the environment or service is ignored: --dbname names another target"
    session.log(line)
    return connection


def _confirm(session: Session, manifest: Manifest, target: RestoreTarget) -> None:
    """Ask before a database is replaced with a backup of a database of another name.

    :raises ConfigurationError: the name was not typed, or nobody can be asked.
    """
    arguments, own = session.arguments, manifest.series.database
    if target.mode != "replace" or target.database == own or arguments.dry_run:
        return
    confirm_replacing(session, f'replacing database "{target.database}" with a backup of "{own}"', target.database)


def _globals(session: Session, repository: Repository) -> GlobalsBackup | None:
    """Return the cluster backup of ``--globals``: SERVER/@cluster, or SERVER/@cluster/ID."""
    if not (text := session.arguments.globals):
        return None
    server, _, rest = text.partition("/")
    kind, _, id = rest.partition("/")
    reference = choose_backup(repository, f"{server}/{kind}", id or LATEST, minimum_level="integrity", log=session.log)
    return GlobalsBackup(reference, repository)


def _lines(outcome: Mapping[str, Any]) -> list[str]:
    """Return the result and the next step as lines."""
    if outcome["dry_run"]:
        loss = ["the target now:", *outcome["loss"]] if outcome["loss"] else []
        return ["the backup:", *outcome["about"], *loss, "this would be done:", *outcome["plan"]]
    of_cluster = outcome["database"] is None
    lines = [
        f"restored into {'the server of ' if of_cluster else ''}{outcome['target']} "
        f"in {outcome['duration_seconds']:.1f} s",
        *(f"warning: {line}" for line in outcome["warnings"]),
    ]
    if of_cluster:
        lines.append(f"roles created: {', '.join(outcome['roles_created']) or 'none'}")
        lines.append(f"databases restored: {', '.join(outcome['databases']) or 'none'}")
        if not outcome["databases"]:
            return [*lines, "next: restore the databases"]
    if outcome["replaced"]:
        lines.append(f"the old database is kept as {outcome['replaced']}: drop it when you no longer need it")
    if outcome["statements"]:
        schema = outcome["into_schema"]
        return [
            *lines,
            f'the tables are in schema "{schema}", without {LEFT_OUT}',
            "to copy their rows into the live tables:",
            *outcome["statements"],
            f"then: DROP SCHEMA {quoted(schema)} CASCADE;",
        ]
    lines.append("next: connect an application and check the data; then make the next backup, and verify it")
    return lines
