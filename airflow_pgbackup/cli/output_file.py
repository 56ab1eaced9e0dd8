"""A file that a command writes for another program: checked before the work, replaced at once after it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from airflow_pgbackup.errors import ConfigurationError, DiskError


def output_file(path: str | None, flag: str) -> Path | None:
    """Return the file that an option names, before anything is done.

    :param flag: the option, for the error.
    :raises ConfigurationError: no file can be there.
    """
    if path is None:
        return None
    output = Path(path)
    if output.is_dir() or not output.parent.is_dir():
        what = f"{output} is a directory" if output.is_dir() else f"{output.parent} is not a directory"
        raise ConfigurationError(what, hint=f"Name a file in an existing directory with {flag}.")
    return output


def replace_file(output: Path, data: bytes, *, for_all: bool = False) -> None:
    """Replace a file atomically, so that its reader gets either the old content or the new one.

    :param for_all: all users can read it, whatever the umask: its reader runs as another one.
    :raises DiskError: it cannot be written; the old file stays.
    """
    # Not its own suffix: node_exporter would read a half-written *.prom.
    temporary = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if for_all:
                temporary.chmod(0o644)
            temporary.replace(output)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DiskError(
            f"cannot write {output}: {os.strerror(error.errno or 0)}",
            hint="Check the permissions of its directory and the space on its disk.",
        ) from None
