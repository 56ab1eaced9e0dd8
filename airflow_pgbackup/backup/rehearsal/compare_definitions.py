"""Compare the definitions of a restored copy with those of the dump, by a dump of the copy with the same options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_pgbackup.backup.rehearsal.definitions import open_script
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.repeated_options import repeated_options
from airflow_pgbackup.backup.rehearsal.restore_steps import RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.archive.toc import is_about, iterate_toc
from airflow_pgbackup.postgres.compare.database_reader import BY_SETTINGS
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.definitions import old_names
from airflow_pgbackup.postgres.definitions.database import is_standard_comment
from airflow_pgbackup.postgres.definitions.objects import (
    OF_PLPGSQL,
    Key,
    ObjectDifference,
    Objects,
    compare_objects,
    script_objects,
    toc_objects,
    unequal,
    without,
)
from airflow_pgbackup.postgres.tools.client_choice import choose_same_major
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import ToolProcess
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Difference

_PUBLIC = ("SCHEMA", None, "public")


@dataclass(frozen=True, kw_only=True)
class ComparedDefinitions:
    """How the definitions of a copy differ from those of the dump.

    :param differences: those that are the backup's fault.
    :param unproven: those that may not be.
    :param notes: on how they were searched.
    """

    differences: list[Difference]
    unproven: list[str]
    notes: list[str]


@contextmanager
def dump_copy(copy: RestoredCopy, connection: ConnectionParams, databases: int) -> Iterator[ToolProcess]:
    """Dump the copy without its rows, with the options of the original dump.

    The tool reads the catalogs at once, and then waits until its output is read.

    :param connection: to the copy's server.
    :param databases: how many are compared meanwhile, each within the deadline.
    """
    client = _dump_client(copy)
    options = repeated_options(copy.dump.manifest, create=copy.script_creates)
    params = connection if copy.database is None else connection.with_database(copy.database)
    with (
        client_environment(params) as env,
        ToolProcess(
            [client.tool(options.tool), "--no-password", *options.argv(client)],
            env=_with_strings_of(copy.dump, env),
            cancel=copy.dump.cancel,
            deadline=(1 + databases) * copy.dump.deadline,
            within=copy.server.sandbox_command(client.bin_dir),
        ) as process,
    ):
        yield process


def _with_strings_of(dump: RehearsedDump, env: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment in which pg_dump writes strings as in the dump, which only the database's setting says."""
    if not dump.old_strings:
        return env
    return {**env, "PGOPTIONS": f"{env.get('PGOPTIONS', '')} -c standard_conforming_strings=off".strip()}


def compare_definitions(
    copy: RestoredCopy,
    connection: ConnectionParams,
    dumped: ToolProcess,
    money: Collection[tuple[str | None, str, str]],
) -> ComparedDefinitions:
    """Compare the definition of every object.

    :param connection: to the copy's server.
    :param dumped: of :func:`dump_copy`.
    :param money: as for :func:`.compare_objects`.
    """
    manifest = copy.dump.manifest
    notes: list[str] = []
    exact, reason = _same_versions(manifest, copy.server)
    if not exact:
        notes.append(f"definitions compared by kind and name: {reason}")
    if manifest.options.get("filters"):
        notes.append(
            "the dump used filter files, which the manifest does not contain: objects missing from the dump "
            "were not searched"
        )
    if manifest.series.database is None:
        notes.append("owners, privileges and comments of large objects are not compared in the dump of a cluster")
    archived, restored = _both_sides(copy, connection, dumped)
    old_client = manifest.client.version if not exact and manifest.client.major <= old_names.LAST else ""
    if old_client:
        archived = old_names.in_new_names(archived, restored)
    adopted = copy.dump.other_settings == BY_SETTINGS
    found = compare_objects(archived, restored, definitions=exact, money=money, all_settings=adopted)
    ignore_added = bool(manifest.options.get("filters"))
    why = copy.dump.other_settings
    differences, unproven = _separate_unproven(found, why, ignore_added=ignore_added, old_client=old_client)
    return ComparedDefinitions(differences=differences, unproven=unproven, notes=notes)


def _both_sides(copy: RestoredCopy, connection: ConnectionParams, dumped: ToolProcess) -> tuple[Objects, Objects]:
    """Return the definitions in the dump and in the copy without what cannot be compared."""
    skipped = toc_objects(entry for entry in copy.entries if entry.dump_id in copy.skipped)
    archived, restored, equal = _unequal(copy, dumped)
    archived, restored = (
        without(side, [key for key in side if key[1] == "DATABASE" and key[3] in copy.in_locale_c])
        for side in (archived, restored)
    )
    for database in {key[0] for key in archived.keys() | skipped.keys() if key[1:] == _PUBLIC}:
        if (database, *_PUBLIC) not in restored:
            archived = without(archived, _of_public(archived, database))
    for database in {key[0] for key in restored}:
        # With quote_all_identifiers, pg_dump does not write the removal of this comment.
        restored = without(restored, _standard_comments(restored, database) - archived.keys())
    archived = without(archived, [key for key in archived.keys() - restored.keys() if key[1:] in OF_PLPGSQL])
    created = [key for key in restored if key[1] == "SCHEMA" and key[3] in copy.schemas]
    restored = without(restored, [*skipped, *created])
    if copy.dump.manifest.series.database is None:
        return _comparable(archived, connection.user), _comparable(restored, connection.user)
    # Large objects are compared by their contents, or were not dumped.
    common = archived.keys() & restored.keys()
    archived, restored = (
        without(side, [key for key in side if key[1] == "LARGE OBJECT" and key not in common])
        for side in (archived, restored)
    )
    if not equal["LARGE OBJECT"] and not any(key[1] == "LARGE OBJECT" for key in archived):
        restored = without(restored, _of_large_objects(restored))
    if not copy.created_by_dump:
        archived, restored = (without(side, _of_the_database(side)) for side in (archived, restored))
    return archived, restored


def _separate_unproven(
    every: Iterable[ObjectDifference], other_settings: str, *, ignore_added: bool, old_client: str
) -> tuple[list[Difference], list[str]]:
    """Return the differences that are the backup's fault, and those that may not be.

    :param other_settings: why values may differ.
    :param ignore_added: ignore objects that only the copy has.
    :param old_client: the version of the pg_dump that wrote the dump, if it named objects otherwise; '' if not.
    """
    differences: list[Difference] = []
    unproven: list[str] = []
    for found in every:
        if found.only_money:
            unproven.append(
                f"{found.kind.lower()} {found.label} differs, perhaps because of {other_settings}: {found.detail}"
            )
        elif old_client:
            unproven.append(
                f"{found.kind.lower()} {found.label} {found.detail}, perhaps because pg_dump {old_client} names it "
                "otherwise"
            )
        elif not (ignore_added and found.added):
            differences.append(Difference(found.kind.lower(), found.label, found.detail))
    return differences, unproven


def _same_versions(manifest: Manifest, server: RehearsalServer) -> tuple[bool, str]:
    """Return whether definitions can be compared literally, or else why not."""
    source, client = manifest.source.server_version_num // 10000, manifest.client.major
    if source != server.major:
        return False, f"the dumped server has version {source}, the rehearsal's {server.major}"
    if client != server.major:
        return False, f"the dump was made by pg_dump {client}, the rehearsal's server has version {server.major}"
    return True, ""


def _dump_client(copy: RestoredCopy) -> Client:
    """Return the client that dumps the copy: the major version that wrote the dump, as its output is compared."""
    major = copy.dump.manifest.client.major
    tools = ("pg_dump", "pg_dumpall")
    clients = find_clients(copy.dump.settings.client_dirs)
    same = choose_same_major(clients, major, tools) if major >= copy.server.major else None
    client = same or copy.server.programs
    if not client.has(*tools):
        raise NotProven(
            f"{client.bin_dir} lacks {' or '.join(tools)}", hint="Install the client programs of that version."
        )
    return client


def _unequal(copy: RestoredCopy, dumped: ToolProcess) -> tuple[Objects, Objects, Counter[str]]:
    """Return the definitions in the dump and in the copy: of an archive, those that are not equal, as :func:`.unequal`
    does."""
    if not copy.dump.is_plain:
        entries = (entry for entry in copy.entries if entry.dump_id not in copy.skipped)
        # The table of contents comes first, so large objects need not be read.
        return unequal(entries, iterate_toc(dumped.stdout))
    with open_script(copy.dump) as source:
        archived = script_objects(source)
    restored = script_objects(dumped.stdout)
    dumped.wait()
    return archived, restored, Counter()


def _comparable(objects: Objects, superuser: str) -> Objects:
    """Return the objects of a cluster without the rehearsal's own superuser, and without large objects.

    pg_dumpall has no option to dump large objects without their data.
    """
    ours = [key for key in objects if key[1] == "GLOBAL" and superuser in key[3]]
    return without(objects, [*ours, *_of_large_objects(objects)])


def _of_the_database(objects: Objects) -> list[Key]:
    """Return the keys of definitions that concern the database itself and contain its name."""
    about_it = ("DATABASE", "DATABASE PROPERTIES")
    return [key for key in objects if key[1] in about_it or is_about("DATABASE", *key[1:])]


def _of_public(objects: Objects, database: str | None) -> list[Key]:
    """Return the keys of schema public, its removal and its standard comment.

    pg_dump writes these only where an option or a filter file names the schema, and the dump of the copy may have been
    made without: filter files are not repeated, nor are the options of an adopted dump known.
    """
    dropped = ("DROP SCHEMA IF EXISTS public", 'DROP SCHEMA IF EXISTS "public"')
    keys: list[Key] = [(database, *_PUBLIC), *((database, "GLOBAL", None, statement) for statement in dropped)]
    return [*keys, *_standard_comments(objects, database)]


def _standard_comments(objects: Objects, database: str | None) -> set[Key]:
    """Return the keys of the comment that every new database has on schema public."""
    keys: list[Key] = [(database, "COMMENT", None, f"SCHEMA {name}") for name in ("public", '"public"')]
    return {key for key in keys if all(map(is_standard_comment, objects.get(key, ())))}


def _of_large_objects(objects: Objects) -> list[Key]:
    """Return the keys of large objects and their comments and privileges."""
    return [key for key in objects if key[1] == "LARGE OBJECT" or is_about("LARGE OBJECT", *key[1:])]
