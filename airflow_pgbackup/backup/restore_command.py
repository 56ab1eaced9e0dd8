"""The exact command that restores an artifact with PostgreSQL's own tools, without this package.

The manifest holds it, so it is available when nothing else is.
"""

from __future__ import annotations

import shlex

from airflow_pgbackup.repository.manifest import ENCRYPTED, Manifest

_TEST = {"zstd": "zstd -tq", "gzip": "gzip -t", "lz4": "lz4 -tq", "bzip2": "bzip2 -t", "xz": "xz -t"}
_DECOMPRESS = {"zstd": "zstd -dc", "gzip": "gzip -dc", "lz4": "lz4 -dc", "bzip2": "bzip2 -dc", "xz": "xz -dc"}

# A string instead of dollar quotes, which a shell would expand. Objects of users have OIDs from 16384 on
# (FirstNormalObjectId in src/include/access/transam.h).
_REQUIRE_NEW_SERVER = (
    "psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname postgres --command "
    "\"DO 'BEGIN IF EXISTS (SELECT FROM pg_database WHERE datname NOT IN (''postgres'', ''template0'', ''template1'')) "
    "OR EXISTS (SELECT FROM pg_class WHERE oid >= 16384) "
    "THEN RAISE EXCEPTION ''this server already has databases: restore a cluster into a new server''; END IF; END'\""
)
"""A command that fails unless the server is new: it has no database but those of initdb, and postgres is empty."""


KEY_FILE = "key.txt"
"""The file with an identity in the command for an encrypted artifact, as age-keygen writes it."""


def restore_command(
    *,
    artifact: str,
    format: str,
    compression: str | None,
    database: str | None,
    create: bool,
    kind: str = "cluster",
    encrypted: bool = False,
) -> str:
    """Return a shell line to run in the directory that holds the artifact; libpq's variables name the server.

    :param compression: the compression around a plain dump; None where pg_restore decompresses. The line first tests
        the file completely, since psql would take a truncated script for a complete one.
    :param database: the database that was dumped; None for a cluster.
    :param kind: of a dump without `database`: ``cluster``, or what it is limited to (``globals``, ``roles``,
        ``tablespaces``). Only a cluster needs a new server: roles and tablespaces that exist are reported.
    :param create: the dump creates the database itself (``--create`` in plain format).
    :param encrypted: decrypt it first, completely, for the same reason.
    """
    if encrypted:
        plain = artifact.removesuffix(ENCRYPTED)
        rest = restore_command(
            artifact=plain, format=format, compression=compression, database=database, create=create, kind=kind
        )
        return f"{_decrypt(_path(artifact), _path(plain), format)} && {rest}"
    name = _path(artifact)
    if format == "plain":
        into = "postgres" if database is None or create else _restored(database)
        psql = f"psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname {shlex.quote(_dbname(into))}"
        if database is None:
            # ON_ERROR_STOP would end at CREATE ROLE of the bootstrap superuser. psql reports existing roles. Without
            # that setting it would also continue if databases already exist, and double the rows of tables without a
            # key.
            psql = f"psql --no-psqlrc --dbname {into}"
        test = f"{_TEST[compression]} {name} && " if compression else ""
        feed = f"{_DECOMPRESS[compression]} {name} | {psql}" if compression else f"{psql} --file {name}"
        if database is None and kind == "cluster":
            return f"{test}{_REQUIRE_NEW_SERVER} && {feed}"
        return f"{test}{feed}" if into == "postgres" else f"{test}{_createdb(into)} && {feed}"
    into = _restored(database or "")
    return f"{_createdb(into)} && pg_restore --exit-on-error --dbname {shlex.quote(_dbname(into))} {name}"


def restore_command_of(manifest: Manifest, *, decrypted: bool = False) -> str:
    """Return the command for a backup, from the checked fields of its manifest.

    :param decrypted: for a copy that was decrypted already.

    The command in the manifest is untrusted text, which a person may paste into a shell. It only decides what no other
    field says: whether a plain dump creates its database itself.
    """
    artifact = manifest.artifact.plain if decrypted else manifest.artifact
    without, creating = (
        restore_command(
            artifact=artifact.name,
            encrypted=artifact.encryption is not None,
            format=artifact.format,
            compression=artifact.compressed_around,
            database=manifest.series.database,
            create=create,
            kind=manifest.series.kind,
        )
        for create in (False, True)
    )
    last = creating.rpartition(" && ")[2]  # which names the database
    return creating if manifest.restore_command.endswith(last) else without


def _path(name: str) -> str:
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def _decrypt(encrypted: str, plain: str, format: str) -> str:
    age = f"age --decrypt --identity {KEY_FILE} --output"
    if format != "directory":
        return f"{age} {plain} {encrypted}"
    each = f'{age} {plain}/"$(basename "$file" {ENCRYPTED})" "$file"'
    return f"mkdir -m 700 {plain} && (for file in {encrypted}/*; do {each} || exit; done)"


def _restored(database: str) -> str:
    # NAMEDATALEN: the server truncates a longer name to 63 bytes, and the rest may be the name of the source.
    return database.encode()[: 63 - len("_restored")].decode(errors="ignore") + "_restored"


def _createdb(name: str) -> str:
    # --template template0: an object in template1 would collide with an object of the dump.
    return f"createdb --template template0 -- {shlex.quote(name)}"


def _dbname(name: str) -> str:
    """Return a value for ``--dbname``, which libpq parses as a connection string if it looks like one; quoted, it does
    not."""
    if "=" in name or name.startswith(("postgres://", "postgresql://")):
        escaped = name.replace("\\", "\\\\").replace("'", "\\'")
        return f"dbname='{escaped}'"
    return name
