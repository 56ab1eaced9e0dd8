"""The filters, run by an interpreter of their operations, for other machines than this one."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.tools import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
THREAD = 0x3D0F00  # the flags of clone() in pthread_create()
FORK, VFORK = 0x01200011, 0x4111  # the flags of clone() in fork() and posix_spawn()


def answer(program: bytes, arch: int, number: int, first: int = 0) -> int:
    """Run the filter on one system call, by the operations of linux/filter.h."""
    data = struct.pack("=IIQ6Q", number, arch, 0, first, *[0] * 5)
    operations = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator = position = 0
    while True:
        code, when_true, when_false, operand = operations[position]
        position += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
            continue
        true = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}[code]
        position += when_true if true else when_false


def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> bytes:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", "6.1", "#1", machine)))
    return seccomp.no_processes()


@pytest.mark.parametrize(
    ("number", "first", "expected"),
    [
        (0, 0, ALLOW),  # read
        (59, 0, ALLOW),  # execve, of psql itself
        (57, 0, EPERM),  # fork
        (58, 0, EPERM),  # vfork
        (56, FORK, EPERM),
        (56, VFORK, EPERM),
        (56, THREAD, ALLOW),
        (56, 1 << 32 | FORK, EPERM),
        (272, 0x10000000, EPERM),  # unshare, of a user namespace
        (272, 0x20000000, ALLOW),
        (435, THREAD, ENOSYS),  # clone3
        (0x40000000 | 57, 0, EPERM),  # fork of x32
        (0x40000000, 0, EPERM),
    ],
)
def test_x86_64(number: int, first: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = on("x86_64", monkeypatch)
    assert answer(program, X86_64, number, first) == expected
    assert answer(program, I386, number, first) == KILL


@pytest.mark.parametrize(
    ("number", "first", "expected"),
    [
        (63, 0, ALLOW),
        (221, 0, ALLOW),
        (220, FORK, EPERM),
        (220, VFORK, EPERM),
        (220, THREAD, ALLOW),
        (97, 0x10000000, EPERM),
        (435, 0, ENOSYS),
    ],
)
def test_aarch64(number: int, first: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = on("aarch64", monkeypatch)
    assert answer(program, AARCH64, number, first) == expected
    assert answer(program, X86_64, number, first) == KILL


@pytest.mark.parametrize("machine", ["ppc64le", "s390x", "i686", "riscv64"])
def test_other_machines_have_no_filter(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=f"no seccomp filter for Linux on {machine}"):
        on(machine, monkeypatch)


@pytest.mark.parametrize(
    ("number", "first", "expected"),
    [
        (57, 0, ALLOW),
        (56, FORK, ALLOW),
        (56, FORK | 0x10000000, EPERM),
        (56, 1 << 32 | 0x10000000, EPERM),
        (272, 0x7E020000, EPERM),  # every namespace
        (435, 0, ENOSYS),
    ],
)
def test_a_sandbox_allows_processes(number: int, first: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    on("x86_64", monkeypatch)
    program = seccomp.no_user_namespaces()
    assert program is not None
    assert answer(program, X86_64, number, first) == expected


def test_bubblewrap_sets_the_filter_inside() -> None:
    plain, argv = seccomp.applied(["/usr/bin/psql", "--quiet"])
    assert argv == ["/usr/bin/psql", "--quiet"]
    given, argv = seccomp.applied(["prlimit", "--", "/usr/bin/bwrap", "--unshare-pid", "--", "psql"])
    assert argv == ["prlimit", "--", "/usr/bin/bwrap", "--seccomp", "9", "--unshare-pid", "--", "psql"]
    _, argv = seccomp.applied(["bwrap", "--unshare-pid", "--seccomp", "8", "--", "psql", "--seccomp"])
    assert argv == ["bwrap", "--seccomp", "9", "--unshare-pid", "--", "psql", "--seccomp"]
    assert given == f"9@{plain}"
