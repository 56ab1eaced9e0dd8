"""Compare the definitions of a restored copy with those of the dump, by a dump of the copy with the same options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_pgbackup.backup.rehearsal.definitions import open_script
from airflow_pgbackup.backup.rehearsal.restore_steps import RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.errors import NotProven, OptionError
from airflow_pgbackup.postgres.archive.toc import iterate_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.objects import (
    Key,
    Objects,
    compare_objects,
    script_objects,
    take_equal,
    toc_objects,
    without,
)
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.client_choice import choose_same_major
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Difference

# Options of the original dump that concern its rows, its file or its time, not its definitions.
_NOT_REPEATED = frozenset(
    {
        "compress",
        "create",
        "data_only",
        "filters",
        "format",
        "include_foreign_data",
        "jobs",
        "lock_wait_timeout",
        "restrict_key",
        "schema_only",
        "sections",
        "sequence_data",
        "serializable_deferrable",
        "snapshot",
        "statistics",
        "strict_names",
        "verbose",
        "no_data",
        "rows_per_insert",
        "inserts",
        "column_inserts",
        "on_conflict_do_nothing",
        "exclude_table_data",
        "exclude_table_data_and_children",
        "role",
        "database",
        "enable_row_security",
    }
)


def compare_definitions(copy: RestoredCopy, connection: ConnectionParams) -> tuple[list[Difference], list[str]]:
    """Compare the definition of every object.

    :param connection: to the copy's server.
    :return: the differences, and notes on how they were searched.
    """
    manifest = copy.dump.manifest
    notes: list[str] = []
    exact, reason = _same_versions(manifest, copy.server)
    if not exact:
        notes.append(f"definitions compared by kind and name: {reason}")
    options = _repeated_options(manifest)
    if manifest.options.get("filters"):
        notes.append(
            "the dump used filter files, which the manifest does not contain: objects missing from the dump "
            "were not searched"
        )
    archived = _archived(copy)
    # A dump of the schemas that an option names writes CREATE SCHEMA public also for initdb's own.
    skipped = toc_objects(entry for entry in copy.entries if entry.dump_id in copy.skipped)
    found, equal = _dump_again(copy, options, connection, archived)
    restored = without(found, skipped)
    if manifest.series.database is None:
        archived, restored = _comparable(archived, connection.user), _comparable(restored, connection.user)
        notes.append("owners, privileges and comments of large objects are not compared in the dump of a cluster")
    else:
        # Large objects are compared by their contents, or were not dumped.
        common = archived.keys() & restored.keys()
        archived, restored = (
            without(side, [key for key in side if key[1] == "LARGE OBJECT" and key not in common])
            for side in (archived, restored)
        )
        if not equal["LARGE OBJECT"] and not any(key[1] == "LARGE OBJECT" for key in archived):
            restored = without(restored, _of_large_objects(restored))
        if not copy.server.keeps_database_name:
            archived, restored = (without(side, _of_the_database(side)) for side in (archived, restored))
    differences = [
        Difference(found.kind.lower(), found.label, found.detail)
        for found in compare_objects(archived, restored, definitions=exact)
        if not (manifest.options.get("filters") and found.added)
    ]
    return differences, notes


def _same_versions(manifest: Manifest, server: RehearsalServer) -> tuple[bool, str]:
    """Return whether definitions can be compared literally, or else why not."""
    source, client = manifest.source.server_version_num // 10000, int(manifest.client.version.split(".")[0])
    if source != server.major:
        return False, f"the dumped server has version {source}, the rehearsal's {server.major}"
    if client != server.major:
        return False, f"the dump was made by pg_dump {client}, the rehearsal's server has version {server.major}"
    return True, ""


def _dump_client(copy: RestoredCopy) -> Client:
    """Return the client that dumps the copy: the major version that wrote the dump, as its output is compared."""
    major = int(copy.dump.manifest.client.version.split(".")[0])
    tools = ("pg_dump", "pg_dumpall")
    clients = find_clients(copy.dump.settings.client_dirs)
    same = choose_same_major(clients, major, tools) if major >= copy.server.major else None
    client = same or copy.server.programs
    if not client.has(*tools):
        raise NotProven(
            f"{client.bin_dir} lacks {' or '.join(tools)}", hint="Install the client programs of that version."
        )
    return client


def _repeated_options(manifest: Manifest) -> DumpOptions | DumpAllOptions:
    """Return the options for the dump of the copy: those of the original dump, without rows."""
    given: Mapping[str, Any] = {n: v for n, v in manifest.options.items() if n not in _NOT_REPEATED}
    try:
        if manifest.series.database is None:
            return DumpAllOptions(**given)
        form = "plain" if manifest.artifact.format == "plain" else "custom"
        create = bool(manifest.options.get("create")) and form == "plain"
        clean = dict.fromkeys(("clean", "if_exists"), False) if form == "custom" else {}
        options = replace(DumpOptions(**{**given, **clean}), format=form, create=create)
        # schema_only would exclude the owners and privileges of large objects.
        bare = manifest.options.get("schema_only") or manifest.options.get("no_data")
        return replace(options, schema_only=True) if bare else replace(options, exclude_table_data=["*.*"])
    except (TypeError, OptionError) as error:
        raise NotProven(
            f"the dump was made with options that this release does not know: {error}",
            hint="Upgrade airflow-pgbackup.",
        ) from None


def _archived(copy: RestoredCopy) -> Objects:
    """Return the definitions in the dump."""
    if not copy.dump.is_plain:
        return toc_objects(entry for entry in copy.entries if entry.dump_id not in copy.skipped)
    with open_script(copy.dump) as source:
        return script_objects(source)


def _dump_again(
    copy: RestoredCopy, options: DumpOptions | DumpAllOptions, connection: ConnectionParams, archived: Objects
) -> tuple[Objects, Counter[str]]:
    """Return the definitions in the copy, and the number of those by kind that were equal and removed from `archived`,
    as :func:`.take_equal` does."""
    client = _dump_client(copy)
    params = connection if copy.database is None else connection.with_database(copy.database)
    if isinstance(options, DumpAllOptions):
        scoped = any((options.globals_only, options.roles_only, options.tablespaces_only))
        options = options if scoped else replace(options, schema_only=True)
    elif options.format == "custom":
        options = replace(options, compress="none")
    with (
        client_environment(params) as env,
        ToolProcess(
            [client.tool(options.tool), "--no-password", *options.argv(client)],
            env=env,
            cancel=copy.dump.cancel,
            deadline=copy.dump.deadline,
            within=copy.server.sandbox_command(client.bin_dir),
        ) as process,
    ):
        if isinstance(options, DumpOptions) and options.format == "custom":
            # The table of contents comes first, so large objects need not be read.
            return take_equal(archived, iterate_toc(process.stdout, what="the dump of the copy"))
        found = script_objects(process.stdout)
        process.wait()
        return found, Counter()


def _comparable(objects: Objects, superuser: str) -> Objects:
    """Return the objects of a cluster without the rehearsal's own superuser, and without large objects.

    pg_dumpall has no option to dump large objects without their data.
    """
    ours = [key for key in objects if key[1] == "GLOBAL" and superuser in key[3]]
    return without(objects, [*ours, *_of_large_objects(objects)])


def _of_the_database(objects: Objects) -> list[Key]:
    """Return the keys of definitions that concern the database itself and contain its name."""
    about_it = ("DATABASE", "DATABASE PROPERTIES")
    return [key for key in objects if key[1] in about_it or (not key[2] and key[3].startswith("DATABASE "))]


def _of_large_objects(objects: Objects) -> list[Key]:
    """Return the keys of large objects and their comments and privileges."""
    return [key for key in objects if key[1] == "LARGE OBJECT" or (not key[2] and key[3].startswith("LARGE OBJECT "))]
