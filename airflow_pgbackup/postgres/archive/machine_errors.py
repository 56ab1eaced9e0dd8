"""Tell errors of this machine from damage of an archive: pg_restore exits with 1 after both."""

from __future__ import annotations

import re

from airflow_pgbackup.errors import NotProven

_HINT = "Resolve the cause on this machine (memory, open files, disks), and retry."

# strerror() of glibc and musl in locale C. What a damaged archive causes (EINVAL, ENOENT, ESPIPE) is not here.
_BY_SYSTEM = re.compile(
    r"(?:Cannot allocate memory|[Oo]ut of memory|Too many open files(?: in system)?|No file descriptors available"
    r"|(?:Input/output|I/O) error|Stale (?:NFS )?file handle|Permission denied|Operation not permitted"
    r"|No space left on device|(?:Disk q|Q)uota exceeded|Read-only file system|Resource temporarily unavailable"
    r"|(?:Connection|Operation) timed out|Transport endpoint is not connected|Socket not connected)$"
)
# zlib, zstd and lz4, in this process and in pg_restore, which cannot set up a decompressor only for lack of memory.
_BY_LIBRARY = re.compile(
    r"not enough memory|insufficient memory|ERROR_allocation_failed|\bError -4 while "
    r"|could not initialize compression library"
)
_BY_SANDBOX = re.compile("bwrap: ")


def machine_error(line: str) -> bool:
    """Return whether a message of pg_restore, its sandbox or a library for decompression is about this machine."""
    return bool(_BY_SYSTEM.search(line) or _BY_LIBRARY.search(line) or _BY_SANDBOX.match(line))


def not_read(what: str, message: str) -> NotProven:
    """Return the error for an archive that this machine could not read.

    :param what: names it.
    :param message: what went wrong.
    """
    return NotProven(f"{what} could not be read on this machine: {message}", hint=_HINT)
