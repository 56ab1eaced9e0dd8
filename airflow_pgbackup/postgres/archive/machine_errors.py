"""Tell errors of this machine from damage of an archive: pg_restore exits with 1 after both."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.tools.stderr import errors_of

_HINT = "Resolve the cause on this machine (memory, open files, disks), and retry."

# strerror() of glibc and musl in locale C. What a damaged archive causes (EINVAL, ENOENT, ESPIPE) is not here.
_BY_SYSTEM = (
    r"(?:Cannot allocate memory|[Oo]ut of memory|Too many open files(?: in system)?|No file descriptors available"
    r"|(?:Input/output|I/O) error|Stale (?:NFS )?file handle|Permission denied|Operation not permitted"
    r"|No space left on device|(?:Disk q|Q)uota exceeded|Read-only file system|Resource temporarily unavailable"
    r"|(?:Connection|Operation) timed out|Transport endpoint is not connected|Socket not connected)\Z"
)
# zlib, zstd and lz4, in this process and in pg_restore.
_BY_LIBRARY = r"not enough memory|insufficient memory|ERROR_allocation_failed|\bError -4 while "
_LIBRARY = re.compile(_BY_LIBRARY)
# Only messages that quote nothing of the archive, which could have these words. pg_restore cannot set up a decompressor
# only for lack of memory.
_MESSAGE = re.compile(
    r"(?:pg_restore: error: )?out of memory\Z"
    r"|pg_restore: error: could not initialize compression library"
    r"|pg_restore: error: could not (?:open|close|read|set|determine|stat|uncompress|decompress)"
    rf'[\w ]*(?:"[^"]*"[\w ]*)?: (?:.*{_BY_SYSTEM}|.*(?:{_BY_LIBRARY}))'
    r"|bwrap: "
)


def machine_error(stderr: Sequence[str]) -> bool:
    """Return whether pg_restore, or its sandbox, failed because of this machine.

    :param stderr: its last lines. It ends at its first error, whose further lines are text of the archive.
    """
    return bool(stderr) and all(map(_MESSAGE.match, [*errors_of(stderr), stderr[-1]]))


def lacks_memory(message: str) -> bool:
    """Return whether a library for decompression says that it has too little memory."""
    return _LIBRARY.search(message) is not None


def not_read(what: str, message: str) -> NotProven:
    """Return the error for an archive that this machine could not read.

    :param what: names it.
    :param message: what went wrong.
    """
    return NotProven(f"{what} could not be read on this machine: {message}", hint=_HINT)
