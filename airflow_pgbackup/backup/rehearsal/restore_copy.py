"""Restore the dump of a rehearsal with PostgreSQL's own tools, and judge errors."""

from __future__ import annotations

import re

import psycopg

from airflow_pgbackup.backup.databases.extensions import available_versions, version_differences
from airflow_pgbackup.backup.databases.session_owners import as_owners_hint
from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.rehearsal.definitions import Definitions
from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.backup.rehearsal.restore_archive import ArchiveRestore
from airflow_pgbackup.backup.rehearsal.restore_script import ScriptRestore
from airflow_pgbackup.backup.rehearsal.restore_steps import RestoredCopy
from airflow_pgbackup.backup.rehearsal.server import RehearsalServer
from airflow_pgbackup.backup.rehearsal.verdict import judge, lacking_privilege
from airflow_pgbackup.errors import ConnectError, DeadlineExceeded, NotProven, PgBackupError, ToolError, ToolKilled
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSummary

# Errors on a scratch server because of its own roles: an owner of event triggers, for example, must be a superuser.
_ROLE_TOO_WEAK = re.compile(
    r"must be (?:a )?superuser|permission denied|query would be affected by row-level security", re.IGNORECASE
)


def restore_copy(dump: RehearsedDump, definitions: Definitions, server: RehearsalServer) -> RestoredCopy:
    """Restore a dump into a rehearsal's server, stopping at the first error.

    :raises NotProven: the server lacks what the database needs, or the restore failed for another reason that need not
        be the backup's fault.
    :raises VerificationFailed: the dump cannot be restored.
    """
    server.name_encoding = dump.manifest.source.encoding or "UTF8"
    server.set_time_zone(dump.manifest.source.time_zone or definitions.time_zone)
    try:
        return _restore(dump, definitions, server)
    except (DeadlineExceeded, ToolKilled):
        raise
    except ToolError as error:
        lacking = server.plain_roles and lacking_privilege(error, server.sqlstate)
        if not lacking:
            raise _judge(error, dump, definitions, server) from None
    # The role may have had the privileges as a superuser or by a membership: is there any other fault?
    dump.log(f"restoring again with superusers as owners: {lacking}")
    server.make_superusers()
    try:
        _restore(dump, definitions, server)
    except (DeadlineExceeded, ToolKilled):
        raise
    except ToolError as error:
        raise _judge(error, dump, definitions, server) from None
    raise NotProven(
        f"it restores only if a role that owns some of its objects has privileges that the dump does not contain: "
        f"{lacking}",
        hint=as_owners_hint()
        if definitions.as_owners
        else "A real restore fails in the same way, unless that role is a superuser or a member of one that may: grant "
        "them to it in the source and dump again, or rehearse on a scratch server that has the roles of the source.",
    )


def _restore(dump: RehearsedDump, definitions: Definitions, server: RehearsalServer) -> RestoredCopy:
    if definitions.toc:
        return ArchiveRestore(dump, server, definitions.toc).run()
    return ScriptRestore(dump, server, definitions.script or ScriptSummary()).run()


def _judge(error: ToolError, dump: RehearsedDump, definitions: Definitions, server: RehearsalServer) -> PgBackupError:
    """Return the error to raise instead of a program's error."""
    text = "\n".join(error.stderr)
    if not server.keeps_database_name and (match := _ROLE_TOO_WEAK.search(text)):
        line = next(line for line in error.stderr if match[0] in line)
        return NotProven(
            f"a role on {server.label} lacks the privileges to own its objects: {line.strip()}",
            hint="Give the role there the attributes and memberships that it has on the source.",
        )
    versions = _version_differences(dump, server, definitions)
    return judge(
        error,
        server.label,
        server.sqlstate,
        versions,
        is_part=dump.is_part,
        other_locale=server.other_locale,
        other_zone=server.other_zone,
        other_source=_other_source(dump, server),
        service=dump.manifest.source.service or "",
        money=definitions.style.money,
        generated=definitions.style.generated,
        renamed=definitions.style.uses_database_name and not server.keeps_database_name,
    )


def _other_source(dump: RehearsedDump, server: RehearsalServer) -> str:
    """Return the major version of the dumped server, '' if it is unknown or the rehearsal's own."""
    source = dump.manifest.source.server_version_num // 10000
    return str(source) if source not in (0, server.major) else ""


def _version_differences(dump: RehearsedDump, server: RehearsalServer, definitions: Definitions) -> list[str]:
    """Return a line for each extension of the dump whose version differs between source and server."""
    try:
        with session(server.params) as connection:
            available = available_versions(connection)
    except (ConnectError, psycopg.Error):  # the server has ended, which not_proven_if_lost() reports
        return []
    return version_differences(dump.manifest.source.extensions, available, names=definitions.extensions)
