"""Measure programs and this process, for the benchmarks: seconds and peak memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def processor_seconds() -> float:
    """Return the CPU seconds of this process and of the child processes that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def peak_memory() -> int:
    """Return this process's peak memory in bytes. ru_maxrss would include that of the process that forked it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


# ru_maxrss of a program includes the memory of the process that started it, so a small one starts it.
_SMALL = """
import os, sys
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, usage.ru_utime + usage.ru_stime, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
"""


def run_program(
    command: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None
) -> tuple[float, float, int]:
    """Run a program, and discard its standard output.

    :return: its seconds, its CPU seconds, and the peak memory of it or of its largest child process in bytes: 10 MiB
        or more.
    :raises CalledProcessError: it failed.
    """
    argv = [sys.executable, "-I", "-S", "-c", _SMALL, *map(os.fspath, command)]
    began = time.monotonic()
    done = subprocess.run(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    *lines, last = done.stderr.splitlines()
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, argv[5:], stderr="\n".join(lines))
    memory, processor = last.split()
    return seconds, float(processor), int(memory) * 1024
