"""The leader of a tool's process group: ``python -I -S _leader.py ORDER PROGRAM ARGUMENT…``, run as a script.

Leads the group so that nothing of the tool outlives the worker: when the worker dies, it kills the group. For the
protocol see :mod:`airflow_pgbackup.supervision`. ``PR_SET_PDEATHSIG`` on the tool itself would not do: the workers of
``pg_dump --jobs`` and the pg_dump under pg_dumpall are the tool's children.

ORDER has ``directory``, the private directory for the password file, or ``""``; and ``seccomp``, a filter for the tool,
an array of ``struct sock_filter`` in hexadecimal, or ``""``. With the prefix ``FD@`` the leader does not set the
filter, but provides it on descriptor FD, from which ``bwrap --seccomp FD`` reads it; PROGRAM is or becomes that bwrap.

The first message has the variables that the tool's environment gets in addition; the tool starts then. The directory is
removed when the tool ends, and before the group is killed. Then what the tool left in its group is killed and reaped.
Exits as the tool does, by the same signal too; with 125 if it cannot start the tool.
"""

import ctypes
import os
import resource
import signal
import sys

# At the end, so that no module of this package hides one of the standard library.
sys.path.append(os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100

from airflow_pgbackup import private_directory, supervision

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
NOT_STARTED = 125
"""Exit status if the tool did not start, as of env(1): no tool of PostgreSQL exits with it."""


def main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the password
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited from a program that ignores the end of its children
    worker = supervision.Worker()
    directory, seccomp, argv = worker.order["directory"], worker.order["seccomp"], sys.argv[2:]
    if directory:
        private_directory.hold(directory)

    def remove_directory() -> None:
        if directory:
            private_directory.remove(directory)

    def kill_group() -> None:
        remove_directory()
        os.killpg(0, signal.SIGKILL)

    worker.watch(kill_group)
    variables = worker.receive()
    if variables is None:  # the worker failed before it could start the tool
        remove_directory()
        os._exit(NOT_STARTED)
    os.environ.update(variables)
    worker.close()

    leader = os.getpid()
    supervision.adopt_orphans()
    # Held back until the leader ignores them: a signal that arrives meanwhile is for the tool, too.
    for_the_tool = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, for_the_tool)
    tool = os.fork()
    if tool == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        supervision.set_death_signal(signal.SIGKILL)  # for a death of the leader alone
        if os.getppid() == leader:
            become(argv, seccomp)
        os._exit(NOT_STARTED)

    # Signals to the group are for the tool; the leader waits for its end.
    for number in for_the_tool:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Whoever reads the tool's pipes must see their end when the tool closes them.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    status = os.waitstatus_to_exitcode(os.waitpid(tool, 0)[1])
    remove_directory()
    supervision.kill_orphans(group=leader)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(leader, -status)
    os._exit(status)


def become(argv: list[str], seccomp: str) -> None:
    # Python ignores SIGPIPE and SIGXFSZ. The tools expect SIGPIPE as a shell sets it. SIGXFSZ stays ignored: at a file
    # size limit a tool then reports "File too large"; the signal would kill it without a message.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    name = argv[0].rpartition("/")[2]
    if seccomp:
        try:
            confine(seccomp)
        except OSError as error:
            os.write(2, f"{name}: error: cannot set a seccomp filter: {error.strerror}\n".encode())
            os._exit(126)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  no shell, on purpose
    except OSError as error:
        os.write(2, f"{name}: error: cannot run {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


class FilterProgram(ctypes.Structure):
    """``struct sock_fprog`` of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(seccomp: str) -> None:
    """Set a seccomp filter for the program that this process becomes, or pass it on by descriptor; seccomp(2)."""
    descriptor, _, operations = seccomp.rpartition("@")
    filter = bytes.fromhex(operations)
    if descriptor:
        file = os.memfd_create("seccomp")
        os.write(file, filter)
        os.lseek(file, 0, os.SEEK_SET)
        os.dup2(file, int(descriptor))
        return
    libc = ctypes.CDLL(None, use_errno=True)
    program = FilterProgram(len(filter) // 8, filter)
    one, zero, mode = map(ctypes.c_ulong, (1, 0, SECCOMP_MODE_FILTER))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) or libc.prctl(
        PR_SET_SECCOMP, mode, ctypes.byref(program), zero, zero
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001
        os.write(2, f"{sys.argv[2].rpartition('/')[2]}: error: cannot start: {error}\n".encode())
        os._exit(NOT_STARTED)
