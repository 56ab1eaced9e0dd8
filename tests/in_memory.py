"""What makes the tests' servers cheap: files in memory, and a data directory that is copied from initdb's first one.

A thousand new files for each of thousands of servers cost ext4 more time than PostgreSQL needs for all the rest.
PostgreSQL's own tests copy a data directory as well, see ``src/test/perl/PostgreSQL/Test/Cluster.pm``. The programs
that tests start, ``pgbackup`` and Airflow, run initdb.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_pgbackup.postgres.server import throwaway
from airflow_pgbackup.postgres.server.supervised import SupervisedProcess
from airflow_pgbackup.postgres.server.unprivileged import as_plain_user

_MEMORY = Path("/dev/shm")
_GIB = 1 << 30


def keep_temporary_files_in_memory() -> None:
    """Set TMPDIR to a place in memory, unless it is set, or there is little memory."""
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory >= 16 * _GIB and shutil.disk_usage(_MEMORY).free >= 8 * _GIB:
        os.environ["TMPDIR"] = os.fspath(_MEMORY)
        tempfile.tempdir = None  # Python asks for it once


def run_initdb_once(folder: Path) -> None:
    """Let the servers of this process copy their data directories from `folder`, which other processes may share."""

    class WithCopiedData(SupervisedProcess):
        def __init__(self, initdb: Sequence[Any], *steps: Sequence[Any], **rest: Any) -> None:
            copied = _copy(list(map(str, initdb)), rest["env"], folder)
            super().__init__(["true"] if copied else initdb, *steps, **rest)

    throwaway.SupervisedProcess = WithCopiedData  # type: ignore[misc]


def _copy(command: list[str], env: Mapping[str, str], folder: Path) -> bool:
    """Fill the data directory of an initdb command; False, and it is empty, where that has to be done by initdb."""
    (at,) = (n for n, word in enumerate(command) if Path(word).name == "initdb")
    program, *arguments, _, data = command[at:]
    password = "".join(Path(one.partition("=")[2]).read_text() for one in arguments if one.startswith("--pwfile="))
    arguments = [one for one in arguments if not one.startswith("--pwfile=")]
    if Path(program).read_bytes()[:2] == b"#!":
        return False  # a test's own
    original = folder / hashlib.sha256("\0".join([program, *arguments, password]).encode()).hexdigest()[:16]
    if not original.exists() and not _make(original, program, arguments, password, env):
        return False
    owner = Path(data).stat()
    if subprocess.run(["cp", "-RT", original, data], capture_output=True).returncode:
        for entry in Path(data).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        return False
    subprocess.run(["chown", "-R", f"{owner.st_uid}:{owner.st_gid}", data], check=True)
    Path(data).chmod(0o700)
    return True


def _make(original: Path, program: str, arguments: list[str], password: str, env: Mapping[str, str]) -> bool:
    original.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        data, pwfile = Path(directory, "data"), Path(directory, "pwfile")
        data.mkdir(mode=0o700)
        pwfile.write_text(password)
        prefix = as_plain_user(Path(program).parent, Path(directory), [data, pwfile])
        given = [f"--pwfile={pwfile}"] if password else []
        command = [*prefix, program, *arguments, *given, "-D", os.fspath(data)]
        if subprocess.run(command, env={**env, "HOME": directory}, capture_output=True).returncode:
            return False  # the server's own initdb says why
        # initdb tries what works where it runs; a server in a sandbox has no shared memory of the host.
        settings = data / "postgresql.conf"
        settings.write_text(re.sub(r"(?m)^(dynamic_shared_memory_type =) \w+", r"\1 mmap", settings.read_text()))
        moved = Path(tempfile.mkdtemp(dir=original.parent)) / "data"
        shutil.move(data, moved)
    try:
        moved.rename(original)
    except OSError:  # another process was first
        shutil.rmtree(moved)
    moved.parent.rmdir()
    return True
