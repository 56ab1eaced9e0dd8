"""Seccomp filters against starting processes and making user namespaces; seccomp(2), on x86_64 and aarch64.

psql may start no process while it runs a script from outside. ``\\restrict`` forbids meta-commands, but psql evaluates
the argument of ``\\unrestrict``, which can have a command in backticks. What runs in a sandbox may make no user
namespace: in its own namespace every user has all capabilities, and so much more of the kernel to attack.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from airflow_pgbackup.errors import ConfigurationError

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2

# linux/seccomp.h: the results of a filter.
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000  # and the number of the error

# linux/bpf_common.h, linux/filter.h: the operations of a filter.
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_BITS = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# struct seccomp_data: offsets in bytes. Both machines are little-endian, so the lower half of an argument comes first.
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16

_FD = 9  # a descriptor that _leader.py does not use

_CLONE3 = 435  # on every machine
_CLONE_THREAD = 0x00010000
_CLONE_NEWUSER = 0x10000000
_X32 = 0x40000000  # a second table of system calls on x86_64, by the same architecture


@dataclass(frozen=True)
class _Machine:
    """The system calls of an architecture.

    :param arch: its AUDIT_ARCH of linux/audit.h.
    :param forks: the numbers of fork and vfork, if it has them.
    """

    arch: int
    clone: int
    unshare: int
    forks: tuple[int, ...] = ()
    has_x32: bool = False


_MACHINES = {
    "x86_64": _Machine(0xC000003E, clone=56, unshare=272, forks=(57, 58), has_x32=True),
    "aarch64": _Machine(0xC00000B7, clone=220, unshare=97),
}


def no_processes() -> bytes:
    """Return a filter against starting processes for this machine, an array of ``struct sock_filter``.

    Threads are allowed: libcurl in libpq starts them. clone3 fails with ENOSYS, because its flags are behind a pointer
    that a filter cannot follow; the C library then tries clone.

    :raises ConfigurationError: this machine or its kernel has no such filters.
    """
    machine = _this_machine()
    if machine is None:
        raise ConfigurationError(
            f"cannot prevent programs from starting processes on this machine: no seccomp filter for "
            f"{os.uname().sysname} on {os.uname().machine}",
            hint="Use Linux on x86_64 or aarch64, or dumps in custom format, which restore without psql.",
        )
    return _packed([*_common(machine), *_without_forks(machine), *_without_namespaces(machine)])


def no_user_namespaces() -> bytes | None:
    """Return a filter against making user namespaces; None if this machine or its kernel has no such filters."""
    machine = _this_machine()
    return _packed([*_common(machine), *_without_namespaces(machine)]) if machine else None


def applied(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the filter and the arguments to give to ``_leader.py`` for a program that may not start processes.

    bubblewrap itself must start processes; it sets the filter for the program inside.
    """
    operations = no_processes().hex()
    for number, word in enumerate(argv, 1):
        if PurePath(word).name == "bwrap":
            options = list(argv[number:])
            if "--seccomp" in options[: options.index("--")]:  # the sandbox's own filter, which this one includes
                at = options.index("--seccomp")
                del options[at : at + 2]
            return f"{_FD}@{operations}", [*argv[:number], "--seccomp", str(_FD), *options]
    return operations, list(argv)


_Operation = tuple[int, int, int, int]
"""Operation, operations to skip if true, operations to skip if false, operand."""


def _common(machine: _Machine) -> Iterator[_Operation]:
    """Yield the beginning of every filter, which ends by loading the number of the system call."""
    yield _LOAD, 0, 0, _ARCH
    yield _IF_EQUAL, 1, 0, machine.arch
    yield _RETURN, 0, 0, _KILL_PROCESS
    yield _LOAD, 0, 0, _NUMBER
    if machine.has_x32:
        yield _IF_AT_LEAST, 0, 1, _X32
        yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    yield _IF_EQUAL, 0, 1, _CLONE3
    yield _RETURN, 0, 0, _ERRNO | errno.ENOSYS


def _without_forks(machine: _Machine) -> Iterator[_Operation]:
    for number in machine.forks:
        yield _IF_EQUAL, 0, 1, number
        yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    yield _IF_EQUAL, 0, 4, machine.clone
    yield _LOAD, 0, 0, _FIRST_ARGUMENT
    yield _IF_BITS, 1, 0, _CLONE_THREAD
    yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    yield _LOAD, 0, 0, _NUMBER


def _without_namespaces(machine: _Machine) -> Iterator[_Operation]:
    """Yield the end of every filter: everything else is allowed."""
    yield _IF_EQUAL, 1, 0, machine.clone
    yield _IF_EQUAL, 0, 3, machine.unshare
    yield _LOAD, 0, 0, _FIRST_ARGUMENT
    yield _IF_BITS, 0, 1, _CLONE_NEWUSER
    yield _RETURN, 0, 0, _ERRNO | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW


def _packed(operations: Sequence[_Operation]) -> bytes:
    return b"".join(struct.pack("=HBBI", *operation) for operation in operations)


def _this_machine() -> _Machine | None:
    machine = _MACHINES.get(os.uname().machine) if os.uname().sysname == "Linux" else None
    return machine if machine and _kernel_filters() else None


def _kernel_filters() -> bool:
    """Return whether the kernel has filters: it then fails with EFAULT for a null pointer; seccomp(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), zero, zero, zero)
    return ctypes.get_errno() == errno.EFAULT
