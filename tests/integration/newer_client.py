"""A client of a PostgreSQL that this package does not know: the programs of 18 behind scripts.

``--version`` says 19.1, ``--help`` lacks some options, and archives have version 1.17 in their header.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

KNOWN, NEWER = 16, 17
"""The minor archive version of the real programs, and that of the faked ones."""

_SCRIPT = """\
import os, subprocess, sys, threading

tool, argv = sys.argv[1], sys.argv[2:]
real = os.path.join({real!r}, tool)

def patch(data, minor):
    return data[:6] + bytes([minor]) + data[7:] if data.startswith(b"PGDMP") else data

def patch_file(path, minor):
    path = os.path.join(path, "toc.dat") if os.path.isdir(path) else path
    with open(path, "r+b") as file:
        head = patch(file.read(8), minor)
        file.seek(0)
        file.write(head)

def copy(source, target, minor):
    with source, target:
        target.write(patch(source.read(8), minor))
        while data := source.read(1 << 16):
            target.write(data)

if argv == ["--version"]:
    print(tool + " (PostgreSQL) 19.1")
elif argv == ["--help"]:
    text = subprocess.run([real, "--help"], capture_output=True, text=True, check=True).stdout
    for flag in {removed!r}:
        text = text.replace(flag, "")
    print(text)
elif tool == "pg_restore" and {old!r}:
    os.execv(real, [real, *argv])
elif tool == "pg_restore" and {minor}:
    path = argv[-1] if os.path.exists(argv[-1]) else None
    if path:
        patch_file(path, {known})
        sys.exit(subprocess.run([real, *argv]).returncode)
    child = subprocess.Popen([real, *argv], stdin=subprocess.PIPE)
    copy(sys.stdin.buffer, child.stdin, {known})
    sys.exit(child.wait())
elif tool == "pg_dump" and {minor}:
    file = next((word[7:] for word in argv if word.startswith("--file=")), None)
    if file:
        status = subprocess.run([real, *argv]).returncode
        patch_file(file, {minor})
        sys.exit(status)
    child = subprocess.Popen([real, *argv], stdout=subprocess.PIPE)
    copy(child.stdout, sys.stdout.buffer, {minor})
    sys.exit(child.wait())
else:
    os.execv(real, [real, *argv])
"""


def newer_client(
    folder: Path,
    bin_dir: Path,
    *,
    archive_version: int = 0,
    without: Collection[str] = (),
    old_pg_restore: bool = False,
) -> Path:
    """Make the client. :return: its directory.

    :param bin_dir: the real programs, of PostgreSQL 18.
    :param archive_version: the minor version in the header of its archives; 0 leaves it.
    :param without: flags that its ``--help`` lacks.
    :param old_pg_restore: its pg_restore does not know that archive version.
    """
    folder.mkdir()
    program = _SCRIPT.format(
        real=os.fspath(bin_dir), removed=sorted(without), minor=archive_version, known=KNOWN, old=old_pg_restore
    )
    (folder / "newer.py").write_text(program)
    for tool in ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        program_and_tool = shlex.join([sys.executable, "-S", os.fspath(folder / "newer.py"), tool])
        (folder / tool).write_text(f'#!/bin/sh\nexec {program_and_tool} "$@"\n')
        (folder / tool).chmod(0o755)
    return folder
