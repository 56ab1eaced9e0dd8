"""What a dump defines, read before a server is made for it: some extensions want a server of their own kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_pgbackup.byte_streams import CountingReader, Readable
from airflow_pgbackup.postgres.archive.archive_file import read_archive_toc
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.toc import Toc
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSummary, scan_script
from airflow_pgbackup.postgres.tools.cancel import Cancel
from airflow_pgbackup.postgres.tools.deadline import Deadline
from airflow_pgbackup.repository.manifest import Manifest


@dataclass(frozen=True)
class Definitions:
    """Of an archive its table of contents, of a plain dump what reading it through has found."""

    toc: Toc | None = None
    script: ScriptSummary | None = None

    @property
    def extensions(self) -> frozenset[str]:
        if self.toc:
            return frozenset(entry.name for entry in self.toc.entries if entry.kind == "EXTENSION")
        sections = self.script.sections if self.script else []
        return frozenset(name for section in sections for name in section.requirements.extensions)


def read_definitions(artifact: Path, manifest: Manifest, *, cancel: Cancel, deadline: float) -> Definitions:
    """Read them.

    :param deadline: seconds.
    :raises VerificationFailed: the artifact cannot be read so far.
    """
    limit = Deadline(deadline, cancel, work="reading the definitions")
    if manifest.artifact.format != "plain":
        return Definitions(toc=read_archive_toc(artifact, manifest.artifact.format, limit.check))
    # A script says what it needs as it goes; a role that is missed in its last lines would cost the whole restore.
    with open_script(artifact, manifest) as source:
        return Definitions(script=scan_script(CountingReader(source, lambda size: limit.check())))


@contextmanager
def open_script(artifact: Path, manifest: Manifest) -> Iterator[Readable]:
    """A plain dump, decompressed."""
    compression = manifest.artifact.compression.method or "none"
    with artifact.open("rb") as file:
        yield file if compression == "none" else Decompressed(file, compression, "the dump")
