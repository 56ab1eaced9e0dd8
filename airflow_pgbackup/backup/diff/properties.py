"""Compare two manifests: versions, encoding, options, sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from airflow_pgbackup.backup.diff.contents import Contents
from airflow_pgbackup.backup.diff.result import DATABASE_SIZE, Measure, NotCompared, PropertyChange
from airflow_pgbackup.repository.manifest import Manifest


def compare_properties(before: Manifest, after: Manifest) -> Iterator[PropertyChange]:
    """Yield each property of the dumps that differs, options included."""
    old, new = _properties(before), _properties(after)
    for name in {**old, **new}:
        if old.get(name) != new.get(name):
            yield PropertyChange(name, old.get(name), new.get(name))


def compare_locales(before: Contents | str, after: Contents | str) -> Iterator[PropertyChange | NotCompared]:
    """Yield what differs in the locale of the databases, or why it is not known."""
    reasons: dict[str, None] = {}
    locales: list[Mapping[str, str]] = []
    for contents in (before, after):
        if isinstance(contents, str):
            reasons[contents] = None
        elif contents.locale is None:
            reasons["the table of contents has no CREATE DATABASE"] = None
        else:
            locales.append(contents.locale)
    if reasons:
        yield NotCompared("locale", "; ".join(reasons))
        return
    old, new = locales
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield PropertyChange(name.lower(), old.get(name), new.get(name))


def compare_extensions(before: Manifest, after: Manifest) -> Iterator[PropertyChange | NotCompared]:
    """Yield each extension that was added, dropped or updated, or why that is not known."""
    old, new = before.source.extensions, after.source.extensions
    unknown = [each.id for each in (before, after) if each.source.extensions is None]
    if old is None or new is None:
        if before.kind == after.kind == "cluster":
            reason = "they are recorded for backups of single databases only"
        else:
            reason = f"the manifest of {' and '.join(unknown)} does not record them"
        yield NotCompared("extensions and their versions", reason)
        return
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield PropertyChange(name, old.get(name), new.get(name))


def compare_left_out(before: Manifest, after: Manifest) -> Iterator[PropertyChange | NotCompared]:
    """Yield what the options of one dump left out of the database and those of the other did not."""
    old, new = before.left_out, after.left_out
    if old is None and new is None:
        return
    if old is None or new is None:
        which = before.id if old is None else after.id
        yield NotCompared("what the options leave out", f"the manifest of {which} does not record it")
        return
    for item in sorted({*old, *new} - ({*old} & {*new})):
        yield PropertyChange("left out", item if item in old else None, item if item in new else None)


def measures(before: Manifest, after: Manifest) -> Iterator[Measure | NotCompared]:
    """Yield the sizes and durations of both."""
    yield Measure("artifact", "bytes", before.artifact.size, after.artifact.size)
    if before.source.size_bytes is None or after.source.size_bytes is None:
        yield NotCompared(DATABASE_SIZE, "not recorded by both: the dumping role could not see it")
    else:
        yield Measure("database", "bytes", before.source.size_bytes, after.source.size_bytes)
    yield Measure("duration", "seconds", before.duration_seconds, after.duration_seconds)


def versions(manifest: Manifest) -> str:
    """Return the major versions of client and server, for people and for comparing."""
    client, server = _major(manifest.client.version), _major(manifest.source.server_version)
    return f"{manifest.client.tool} {client} from PostgreSQL {server}"


def _properties(manifest: Manifest) -> dict[str, str | None]:
    artifact, source = manifest.artifact, manifest.source
    compression = artifact.compression
    level = f":{compression.level}" if compression.level is not None else ""
    by = f" by {compression.by}" if compression.by else ""
    return {
        "server version": source.server_version,
        "client version": f"{manifest.client.tool} {manifest.client.version}",
        "host": source.host,
        "database": source.database,
        "encoding": source.encoding,
        "format": artifact.format,
        "compression": f"{compression.method or 'none'}{level}{by}",
        **{f"option {name}": _text(value) for name, value in sorted(manifest.options.items())},
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _major(version: str) -> str:
    match = re.match(r"[0-9]{1,3}", version)
    return match[0] if match else version[:20]
