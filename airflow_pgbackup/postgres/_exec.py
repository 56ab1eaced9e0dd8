"""Between us and a tool: ``python -I -S _exec.py PARENT FILTER PROGRAM ARGUMENT…``, run as a script, never imported.

Leads the process group of the tool, so that nothing of the tool outlives us: when PARENT is gone, by SIGKILL too, it
kills the group, after it removed the folder with the password file (``PGBACKUP_PRIVATE_FOLDER``).
``PR_SET_PDEATHSIG`` on the tool itself would not do: the workers of ``pg_dump --jobs`` and the pg_dump under
pg_dumpall are the tool's children, not ours, and it fires when merely the *thread* that started the tool ends.
FILTER is a seccomp filter for the tool, an array of ``struct sock_filter`` in hexadecimal, or empty.
Exits as the tool does, by the same signal too. Only the standard library, and little of it.
"""

import ctypes
import os
import resource
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
FAREWELL = 0.1  # seconds


def main(parent: int, seccomp: bytes, argv: list[str]) -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)  # Linux has it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the password
    # Inherited from a thread or program that blocks signals, or ignores the end of its children.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    leader = os.getpid()
    tool = os.fork()
    if tool == 0:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))  # for the sudden end of the leader alone
        if os.getppid() == leader:
            become(argv, seccomp)
        os._exit(1)

    # What is sent to the group is for the tool, whose end is awaited here.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # The other ends of the tool's pipes must see the tool close them.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    def check_parent(*_: object) -> None:
        if os.getppid() != parent:
            if private := os.environ.get("PGBACKUP_PRIVATE_FOLDER"):
                import shutil

                shutil.rmtree(private, ignore_errors=True)
            os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGUSR1, check_parent)
    prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1))
    check_parent()

    status = os.waitstatus_to_exitcode(os.waitpid(tool, 0)[1])
    if status != 0 and "PGBACKUP_PRIVATE_FOLDER" in os.environ:
        # When PARENT is killed its pipes close before it is gone, and a tool may fail of that first.
        time.sleep(FAREWELL)
        check_parent()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(leader, -status)
    os._exit(status)


def become(argv: list[str], seccomp: bytes) -> None:
    # Python ignores both signals. SIGPIPE: the tools expect what a shell gives them. SIGXFSZ stays ignored: at a file
    # size limit a tool then says "File too large", where the signal would kill it without a word.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    name = argv[0].rpartition("/")[2]
    if seccomp:
        try:
            confine(seccomp)
        except OSError as error:
            os.write(2, f"{name}: error: cannot set a seccomp filter: {error.strerror}\n".encode())
            os._exit(126)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  that is what this file is for
    except OSError as error:
        os.write(2, f"{name}: error: cannot run {argv[0]}: {error.strerror}\n".encode())
        os._exit(127)


class FilterProgram(ctypes.Structure):
    """``struct sock_fprog`` of linux/filter.h."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine(seccomp: bytes) -> None:
    """Set a seccomp filter for what this process becomes; seccomp(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    program = FilterProgram(len(seccomp) // 8, seccomp)
    one, zero, mode = map(ctypes.c_ulong, (1, 0, SECCOMP_MODE_FILTER))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) or libc.prctl(
        PR_SET_SECCOMP, mode, ctypes.byref(program), zero, zero
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main(int(sys.argv[1]), bytes.fromhex(sys.argv[2]), sys.argv[3:])
