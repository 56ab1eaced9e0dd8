"""The manifest of an adopted dump. A field that the dump does not state stays empty."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone

from airflow_pgbackup.backup.adopt.plan import PlannedDump
from airflow_pgbackup.backup.restore_command import restore_command
from airflow_pgbackup.repository import layout
from airflow_pgbackup.repository.catalogue import PIN_FILE
from airflow_pgbackup.repository.manifest import Artifact, ClientInfo, DatabaseSource, Manifest, RecordedCompression

_UNKNOWN = "0"
"""The version of a dump that does not state one: older than every client."""


def manifest_of(planned: PlannedDump, repository: str, attempt: str, server: str) -> Manifest:
    """Return the manifest.

    :param repository: its UUID.
    :param attempt: the directory that the artifact is written to.
    """
    dump, content, series, at = planned.dump, planned.dump.content, planned.series, planned.time.at
    by = None if content.format == "plain" else "pg_dump"  # who compressed a script is unknown
    name = _artifact_name(planned, server)
    artifact = Artifact(
        name=name,
        format=content.format,
        compression=RecordedCompression(content.compression, None, by if content.compression else None),
        size=dump.size,
        sha256=dump.sha256,
        files=dump.files if content.format == "directory" else (replace(dump.files[0], path=name),),
        attempt=attempt,
    )
    server_version = content.server_version or _UNKNOWN
    now = datetime.now(timezone.utc).replace(microsecond=0)
    origin = {
        "adopted_from": dump.name,
        "adopted_at": now.isoformat(),
        "time_from": planned.time.source,
        "database_from": planned.database_from,
    }
    if planned.time.note:
        origin["time_note"] = planned.time.note
    return Manifest(
        repository=repository,
        series=series,
        id=planned.id,
        kind="cluster" if content.cluster else "database",
        started_at=at,
        finished_at=at,
        duration_seconds=0.0,
        artifact=artifact,
        source=DatabaseSource(
            database=series.database,
            server_version=server_version,
            server_version_num=_number(server_version),
            size_bytes=None,
            encoding=None,
            host=None,
        ),
        client=ClientInfo("pg_dumpall" if content.cluster else "pg_dump", content.dump_version or _UNKNOWN, ""),
        options={f"{series.scope}_only": True} if series.scope else {},
        origin=origin,
        restore_command=restore_command(
            artifact=artifact.name,
            format=content.format,
            compression=content.compression if content.format == "plain" else None,
            database=series.database,
            create=content.create,
            kind=series.kind,
        ),
    )


def _artifact_name(planned: PlannedDump, server: str) -> str:
    """Return the dump's own name, where a repository allows it: people know their dumps by their names."""
    name, content = planned.dump.name.rpartition("/")[2], planned.dump.content
    taken = name in (layout.MANIFEST_FILE, PIN_FILE) or name.startswith((".", "verification-"))
    if not taken and name.isprintable() and "\\" not in name and layout.is_key(name):
        return name
    return layout.artifact_name(
        layout.DEFAULT_ARTIFACT,
        database=planned.series.database,
        scope=planned.series.scope,
        server=server,
        started_at=planned.time.at,
        format=content.format,
        compression=content.compression if content.format == "plain" else None,
    )


def _number(version: str) -> int:
    """Return a version as ``server_version_num`` has it: ``18.4`` is 180004, ``9.6.24`` is 90624."""
    parts = [int(part) for part in re.findall("[0-9]+", version)] + [0, 0]
    return parts[0] * 10000 + (parts[1] if parts[0] >= 10 else parts[1] * 100 + parts[2])
