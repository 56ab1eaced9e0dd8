"""What a dump defines, read before a server is made for it: some extensions want a server of their own kind."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.decompression import Decompressed
from airflow_pgbackup.postgres.archive.streams import Limits, Watched
from airflow_pgbackup.postgres.archive.toc import Toc, read_toc
from airflow_pgbackup.postgres.definitions.script_scan import ScriptSummary, scan_script
from airflow_pgbackup.postgres.sql.window import Readable
from airflow_pgbackup.postgres.tools.cancel import Cancel
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
    if manifest.artifact.format != "plain":
        with _toc_file(artifact, manifest.artifact.format) as file:
            return Definitions(toc=read_toc(file, what="the archive")[0])
    # A script says what it needs as it goes; a role that is missed in its last lines would cost the whole restore.
    with open_script(artifact, manifest) as source:
        return Definitions(script=scan_script(Watched(source, Limits(cancel, deadline), None)))


@contextmanager
def open_script(artifact: Path, manifest: Manifest) -> Iterator[Readable]:
    """A plain dump, decompressed."""
    compression = manifest.artifact.compression.method or "none"
    with artifact.open("rb") as file:
        yield file if compression == "none" else Decompressed(file, compression, "the dump")


@contextmanager
def _toc_file(artifact: Path, format: str) -> Iterator[Readable]:
    if format == "tar":
        with tarfile.open(artifact) as tar:
            member = tar.extractfile("toc.dat")
            if member is None:
                raise VerificationFailed("the tar file lacks toc.dat, its table of contents")
            yield member
        return
    with (artifact / "toc.dat" if format == "directory" else artifact).open("rb") as file:
        yield file
