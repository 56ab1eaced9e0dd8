"""Read what a dump defines before its server is started: some extensions need a server with certain settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from airflow_pgbackup.backup.rehearsal.dump import RehearsedDump
from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.toc import Toc
from airflow_pgbackup.postgres.definitions.database import DatabaseProperties
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSummary, scan_script
from airflow_pgbackup.postgres.definitions.style import DumpStyle
from airflow_pgbackup.postgres.tools.deadline import Deadline


@dataclass(frozen=True)
class Definitions:
    """The table of contents of an archive, or the summary of a plain dump."""

    toc: Toc | None = None
    script: ScriptSummary | None = None

    @property
    def extensions(self) -> frozenset[str]:
        if self.toc:
            return frozenset(entry.name for entry in self.toc.entries if entry.kind == "EXTENSION")
        sections = self.script.sections if self.script else []
        return frozenset(name for section in sections for name in section.requirements.extensions)

    @property
    def tables(self) -> int:
        """The number of tables, or of the database that has the most."""
        if self.toc:
            return sum(entry.kind == "TABLE" for entry in self.toc.entries)
        return max((section.tables for section in (self.script.sections if self.script else ())), default=0)

    @property
    def as_owners(self) -> bool:
        """Whether the owners create the objects of a script, as with ``--use-set-session-authorization``."""
        return any(section.requirements.as_owners for section in (self.script.sections if self.script else ()))

    @property
    def time_zone(self) -> str | None:
        """The time zone that the dumped database sets; None if it sets none, or for a cluster."""
        if self.toc:
            return DatabaseProperties.of_entries(self.toc.entries).time_zone
        if self.script and not self.script.cluster and self.script.sections:
            return self.script.sections[0].properties.time_zone
        return None

    @property
    def style(self) -> DumpStyle:
        """How the definitions are written."""
        if self.script:
            return self.script.style
        style = DumpStyle()
        for entry in self.toc.entries if self.toc else ():
            style.add(entry.definition)
        return style


def read_definitions(dump: RehearsedDump) -> Definitions:
    """Return what a dump defines.

    :raises VerificationFailed: the artifact cannot be read.
    """
    limit = Deadline(dump.deadline, dump.cancel, work="reading the definitions")
    if not dump.is_plain:
        return Definitions(toc=read_archive_toc(dump.artifact, dump.manifest.artifact.format, limit.check))
    # A script is read to its end, since a role that is missing in its last lines would cost a complete restore.
    with open_script(dump) as source:
        return Definitions(script=scan_script(CountingReader(source, lambda size: limit.check())))


@contextmanager
def open_script(dump: RehearsedDump) -> Iterator[Readable]:
    """Open a plain dump, decompressed."""
    compression = dump.manifest.artifact.compression.method or "none"
    with dump.artifact.open("rb") as file:
        yield file if compression == "none" else Decompressed(file, compression, "the dump")
