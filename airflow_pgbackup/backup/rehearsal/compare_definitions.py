"""The definitions of a rehearsed copy against those of the dump: by a dump of the copy, with the same options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_pgbackup.backup.rehearsal.restore_copy import RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.errors import NotProven, OptionError
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions.objects import (
    Key,
    Objects,
    compare_objects,
    script_objects,
    toc_objects,
    without,
)
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.client_choice import choose_same_major
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Difference
from airflow_pgbackup.settings import Settings

# Options of the original dump that concern its data, its file or its moment, not what its definitions are.
_NOT_AGAIN = frozenset(
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


def compare_definitions(
    artifact: Path,
    manifest: Manifest,
    loaded: RestoredCopy,
    server: ConnectionParams,
    place: RehearsalServer,
    settings: Settings,
    *,
    deadline: float,
    cancel: Cancel,
) -> tuple[list[Difference], list[str]]:
    """Every object's definition.

    :return: the differences, and notes on how they were looked for.
    """
    notes: list[str] = []
    exact, why = _same_versions(manifest, place)
    if not exact:
        notes.append(f"definitions compared by kind and name: {why}")
    client = _dumper(manifest, place, settings)
    options = _options_again(manifest)
    if manifest.options.get("filters"):
        notes.append("filter files of the dump are not kept: what the dump left out was not looked for")
    archived = _archived(artifact, manifest, loaded)
    within = place.within(client.bin_dir)
    restored = _dump_again(options, loaded, server, client, within, deadline, cancel)
    if manifest.series.database is None:
        archived, restored = _known(archived, server.user), _known(restored, server.user)
        notes.append("owners, grants and comments of large objects are not compared in a cluster's dump")
    else:
        # Whether they are there is a matter of their contents, which are compared as such, or were not dumped.
        there = archived.keys() & restored.keys()
        archived, restored = (
            without(side, [key for key in side if key[1] == "LARGE OBJECT" and key not in there])
            for side in (archived, restored)
        )
        if not any(key[1] == "LARGE OBJECT" for key in archived):
            restored = without(restored, _of_large_objects(restored))
        if not place.own_names:
            archived, restored = (without(side, _of_the_database(side)) for side in (archived, restored))
    differences = [
        Difference(found.kind.lower(), found.label, found.detail)
        for found in compare_objects(archived, restored, definitions=exact)
        if not (manifest.options.get("filters") and found.added)
    ]
    return differences, notes


def _same_versions(manifest: Manifest, place: RehearsalServer) -> tuple[bool, str]:
    server, client = manifest.source.server_version_num // 10000, int(manifest.client.version.split(".")[0])
    if server != place.major:
        return False, f"the server was {server}, the rehearsal's is {place.major}"
    if client != place.major:
        return False, f"the dump is by pg_dump {client}, the rehearsal's is {place.major}"
    return True, ""


def _dumper(manifest: Manifest, place: RehearsalServer, settings: Settings) -> Client:
    """The newest patch of the major version that wrote the dump; its words are the ones to compare with."""
    major = int(manifest.client.version.split(".")[0])
    tools = ("pg_dump", "pg_dumpall")
    same = choose_same_major(find_clients(settings.client_dirs), major, tools) if major >= place.major else None
    found = same or place.programs
    if not found.has(*tools):
        raise NotProven(f"no {' and '.join(tools)} in {found.bin_dir}")
    return found


def _options_again(manifest: Manifest) -> DumpOptions | DumpAllOptions:
    given: Mapping[str, Any] = {n: v for n, v in manifest.options.items() if n not in _NOT_AGAIN}
    try:
        if manifest.series.database is None:
            return DumpAllOptions(**given)
        form = "plain" if manifest.artifact.format == "plain" else "custom"
        create = bool(manifest.options.get("create")) and form == "plain"
        clean = dict.fromkeys(("clean", "if_exists"), False) if form == "custom" else {}
        options = replace(DumpOptions(**{**given, **clean}), format=form, create=create)
        # schema_only would leave out who owns large objects and may read them.
        bare = manifest.options.get("schema_only") or manifest.options.get("no_data")
        return replace(options, schema_only=True) if bare else replace(options, exclude_table_data=["*.*"])
    except (TypeError, OptionError) as error:
        raise NotProven(
            f"the dump was made with options this release does not know: {error}", hint="upgrade airflow-pgbackup"
        ) from None


def _archived(artifact: Path, manifest: Manifest, loaded: RestoredCopy) -> Objects:
    if manifest.artifact.format != "plain":
        return toc_objects(entry for entry in loaded.entries if entry.dump_id not in loaded.left_out)
    with artifact.open("rb") as file:
        compression = manifest.artifact.compression.method or "none"
        source: Readable = file if compression == "none" else Decompressed(file, compression, "the dump")
        return script_objects(source)


def _dump_again(
    options: DumpOptions | DumpAllOptions,
    loaded: RestoredCopy,
    server: ConnectionParams,
    client: Client,
    within: Sequence[str],
    deadline: float,
    cancel: Cancel,
) -> Objects:
    where = server.with_database(loaded.database) if loaded.database is not None else server
    if isinstance(options, DumpAllOptions):
        scoped = any((options.globals_only, options.roles_only, options.tablespaces_only))
        options = options if scoped else replace(options, schema_only=True)
    elif options.format == "custom":
        options = replace(options, compress="none")
    with (
        client_environment(where) as env,
        ToolProcess(
            [client.tool(options.tool), "--no-password", *options.argv(client)],
            env=env,
            cancel=cancel,
            deadline=deadline,
            within=within,
        ) as process,
    ):
        if isinstance(options, DumpOptions) and options.format == "custom":
            toc, _ = read_toc(process.stdout, what="the dump of the restored copy")
            return toc_objects(toc.entries)  # which come first: large objects behind them are not waited for
        found = script_objects(process.stdout)
        process.wait()
        return found


def _known(objects: Objects, superuser: str) -> Objects:
    """Without what the rehearsal brings itself, and what pg_dumpall has no option to dump again without data."""
    ours = [key for key in objects if key[1] == "GLOBAL" and superuser in key[3]]
    return without(objects, [*ours, *_of_large_objects(objects)])


def _of_the_database(objects: Objects) -> list[Key]:
    """What is about the database as a whole, and bears its name."""
    about_it = ("DATABASE", "DATABASE PROPERTIES")
    return [key for key in objects if key[1] in about_it or (not key[2] and key[3].startswith("DATABASE "))]


def _of_large_objects(objects: Objects) -> list[Key]:
    return [key for key in objects if key[1] == "LARGE OBJECT" or (not key[2] and key[3].startswith("LARGE OBJECT "))]
