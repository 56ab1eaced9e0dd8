"""The faults of the matrix. Each is armed before an operation starts, or strikes at a moment while it runs, or both."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.campaign.matrix_case import Case
from tests.campaign.matrix_operations import Operation

Child = subprocess.Popen[bytes]
Strike = Callable[[Case, Operation, Child], bool]
Armed = Callable[[Case, Operation], AbstractContextManager[None]]

FOR_EVER = 1 << 30
_PRINTED = 1 << 16  # bytes


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One column of the matrix.

    :param applies: to which operations, in which stores.
    :param armed: in force from before the operation until after it.
    :param strike: called at a random moment while the operation runs; returns whether there was something to strike.
    :param tmpfs: whether the case's files are on a small file system.
    :param share: of the time that the operation takes, in which it strikes: less where it waits for something itself.
    """

    name: str
    applies: Callable[[Operation, tuple[str, ...]], bool]
    armed: Armed = lambda case, operation: nullcontext()
    strike: Strike | None = None
    tmpfs: bool = False
    share: float = 1.0


def anywhere(operation: Operation, stores: tuple[str, ...]) -> bool:
    return True


def on_disk(operation: Operation, stores: tuple[str, ...]) -> bool:
    return "local" in stores


def with_tool(operation: Operation, stores: tuple[str, ...]) -> bool:
    return bool(operation.tools)


def with_server(operation: Operation, stores: tuple[str, ...]) -> bool:
    return operation.server


def writing_s3(operation: Operation, stores: tuple[str, ...]) -> bool:
    return operation.writes and stores[-1] == "s3"


def in_s3(operation: Operation, stores: tuple[str, ...]) -> bool:
    return "s3" in stores


@contextmanager
def file_size_limit(case: Case, operation: Operation) -> Iterator[None]:
    largest = case.world.size(case.encrypted)
    # What the program prints goes to a file, too.
    case.child["fsize"] = _PRINTED + int(largest * case.rng.random() ** 3)
    case.struck = True
    yield


@contextmanager
def last_page(case: Case, operation: Operation) -> Iterator[None]:
    """The limit is within the last page of the artifact that is dumped, copied or read."""
    format = next(
        (one for one in ("custom", "directory", "tar", "plain") if one in operation.name), case.names["format"]
    )
    case.child["fsize"] = case.world.sizes[case.encrypted, format] - case.rng.randint(1, 4096)
    case.struck = True
    yield


@contextmanager
def small_file_system(case: Case, operation: Operation) -> Iterator[None]:
    case.limit_space()
    case.struck = True
    yield


def read_only(case: Case, operation: Operation, child: Child) -> bool:
    """Mount it read-only; while files are open for writing the kernel refuses that, so it is tried until the end."""
    while child.poll() is None:
        if (
            subprocess.run(["mount", "-o", "remount,ro", case.directory], capture_output=True, check=False).returncode
            == 0
        ):
            return True
        time.sleep(0.01)
    return False


@contextmanager
def made_writable(case: Case, operation: Operation) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", case.directory], check=True)


def failing_calls(number: int, where: str) -> Armed:
    """:param where: ``repository`` or ``temporary files``."""

    @contextmanager
    def armed(case: Case, operation: Operation) -> Iterator[None]:
        local = [name for name, store in zip(("here", "there"), case.stores, strict=False) if store == "local"]
        path = case.tmp if where == "temporary files" else case.directory / case.rng.choice(local)
        most = 30 if where == "temporary files" else 100  # about as many as most operations have
        first, times = int(1 + most * case.rng.random() ** 2), case.rng.choice([1, FOR_EVER])
        case.child["faulty"] = [str(path), number, first, times]
        case.struck = True
        yield

    return armed


def signal_program(number: signal.Signals) -> Strike:
    def strike(case: Case, operation: Operation, child: Child) -> bool:
        if child.poll() is not None:
            return False
        child.send_signal(number)
        return True

    return strike


def signal_tool(number: signal.Signals, *, group: bool) -> Strike:
    """Wait for a program of PostgreSQL, and signal it, or its group."""

    def strike(case: Case, operation: Operation, child: Child) -> bool:
        while child.poll() is None:
            for process in descendants(child):
                with suppress(psutil.Error, OSError):
                    if Path(process.exe()).name in operation.tools and "--version" not in process.cmdline():
                        time.sleep(case.rng.random() ** 2 * 0.5)
                        if group:
                            os.killpg(os.getpgid(process.pid), number)
                        else:
                            process.send_signal(number)
                        return True
            time.sleep(0.005)
        return False

    return strike


def kill_all(case: Case, operation: Operation, child: Child) -> bool:
    """Kill the program and its supervisors together: the tools have to end without anybody's help."""
    if child.poll() is not None:
        return False
    processes = [one for one in descendants(child) if is_python(one)]
    child.kill()
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    return True


def descendants(child: Child) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(child.pid).children(recursive=True)
    return []


def is_python(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        return Path(process.exe()).name.startswith("python")
    return False


def terminate_backend(case: Case, operation: Operation, child: Child) -> bool:
    while child.poll() is None:
        if case.world.server.terminate_backend(case.rng):
            return True
        time.sleep(0.01)
    return False


def stop_server(case: Case, operation: Operation, child: Child) -> bool:
    case.world.server.stop_immediately()
    return child.poll() is None


def stall_server(case: Case, operation: Operation, child: Child) -> bool:
    case.world.relay.stall()
    case.limit = 3.0
    return child.poll() is None


@contextmanager
def locked(case: Case, operation: Operation) -> Iterator[None]:
    with case.world.server.params.with_database("app").connect(autocommit=False) as session:
        session.execute("LOCK TABLE wide")
        case.struck = True
        yield
        session.rollback()


def of_store(kind: str, *, times: int | None = None, **how: object) -> Armed:
    """Arm a fault of the proxy from a random request on.

    :param times: how often; None: once to three times.
    """

    @contextmanager
    def armed(case: Case, operation: Operation) -> Iterator[None]:
        often = case.rng.choice([1, 2, 3]) if times is None else times
        skip = int(10 * case.rng.random() ** 2)
        fault = case.proxy.fault("*", kind, skip=skip, times=often, **how)
        if how.get("seconds", 0.0) == FOR_EVER:
            case.limit = 5.0
        yield
        case.struck = fault.hits > 0

    return armed


def of_writes(kind: str, **how: object) -> Armed:
    """Arm a fault of one or two requests that change something."""

    @contextmanager
    def armed(case: Case, operation: Operation) -> Iterator[None]:
        skip, often = case.rng.randint(0, 3), case.rng.choice([1, 2])
        writes = ("PutObject", "UploadPart", "CompleteMultipartUpload", "CreateMultipartUpload", "CopyObject")
        changes = (*writes, "DeleteObjects", "DeleteObject", "AbortMultipartUpload")
        fault = case.proxy.fault("*", kind, skip=skip, times=often, when=lambda call: call.operation in changes, **how)
        yield
        case.struck = fault.hits > 0

    return armed


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
FAULTS = [
    Fault(name="none", applies=anywhere),
    Fault(name="disk full: size limit", applies=anywhere, armed=file_size_limit),
    Fault(name="disk full: last page", applies=on_disk, armed=last_page),
    Fault(name="disk full: file system", applies=anywhere, armed=small_file_system, tmpfs=True),
    Fault(name="read-only file system", applies=on_disk, armed=made_writable, strike=read_only, tmpfs=True),
    *(
        Fault(
            name=f"{os.strerror(number)}, {where}",
            applies=on_disk if where == "repository" else anywhere,
            armed=failing_calls(number, where),
        )
        for number in (errno.EIO, errno.ENOSPC)
        for where in ("repository", "temporary files")
    ),
    *(Fault(name=f"{one.name} to the program", applies=anywhere, strike=signal_program(one)) for one in SIGNALS),
    *(
        Fault(name=f"{one.name} to the tool", applies=with_tool, strike=signal_tool(one, group=False), share=0.2)
        for one in SIGNALS
    ),
    *(
        Fault(name=f"{one.name} to the tool's group", applies=with_tool, strike=signal_tool(one, group=True), share=0.2)
        for one in SIGNALS
    ),
    Fault(name="SIGKILL to program and supervisors", applies=anywhere, strike=kill_all),
    Fault(name="backend terminated", applies=with_server, strike=terminate_backend, share=0.6),
    Fault(name="server stopped immediately", applies=with_server, strike=stop_server),
    Fault(name="connection stalled", applies=with_server, strike=stall_server),
    Fault(
        name="lock never granted",
        applies=lambda operation, stores: "pg_dump" in operation.tools and operation.server,
        armed=locked,
    ),
    Fault(name="S3: 503", applies=in_s3, armed=of_store("answer")),
    Fault(name="S3: 503 from then on", applies=in_s3, armed=of_store("answer", times=FOR_EVER)),
    Fault(name="S3: connection reset", applies=in_s3, armed=of_store("reset")),
    Fault(name="S3: stall of 2 s", applies=in_s3, armed=of_store("stall", seconds=2.0)),
    Fault(name="S3: stall without end", applies=in_s3, armed=of_store("stall", times=FOR_EVER, seconds=FOR_EVER)),
    Fault(
        name="S3: 200 with an error body",
        applies=writing_s3,
        armed=of_writes("lie", code="InternalError"),
    ),
    Fault(
        name="S3: 200 with an error body, applied",
        applies=writing_s3,
        armed=of_writes("lie-after", code="InternalError"),
    ),
    Fault(name="S3: applied, reply lost", applies=writing_s3, armed=of_writes("lose")),
    Fault(name="S3: applied twice", applies=writing_s3, armed=of_writes("twice")),
    Fault(name="S3: reply repeated", applies=in_s3, armed=of_store("repeat")),
    Fault(name="S3: reply cut", applies=in_s3, armed=of_store("cut")),
    Fault(
        name="S3: expired credentials",
        applies=in_s3,
        armed=of_store(
            "answer",
            times=FOR_EVER,
            status=400,
            code="ExpiredToken",
            message="The provided token has expired.",
        ),
    ),
]
