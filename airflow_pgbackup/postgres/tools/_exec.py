"""Between us and a tool: ``python -I -S _exec.py PARENT FILTER DIRECTORY GO PROGRAM ARGUMENT…``, a script.

Leads the process group of the tool, so that nothing of the tool outlives us: when PARENT is gone, by SIGKILL too, it
kills the group. DIRECTORY is the private directory for the password file, or empty; it is removed when the tool ends,
and before the group is killed. The tool starts when the descriptor GO says so: ``NAME=VALUE`` and a zero byte for each
variable of the tool's environment that it shall have besides ours, and one more zero byte.
``PR_SET_PDEATHSIG`` on the tool itself would not do: the workers of ``pg_dump --jobs`` and the pg_dump under
pg_dumpall are the tool's children, not ours, and it fires when merely the *thread* that started the tool ends.
FILTER is a seccomp filter for the tool, an array of ``struct sock_filter`` in hexadecimal, or empty. Behind FD@ it is
not set here, but can be read from that descriptor, by the ``bwrap --seccomp FD`` that PROGRAM is or becomes.
Exits as the tool does, by the same signal too. Imports little, so that it starts fast.
"""

import ctypes
import os
import resource
import signal
import sys

# At the end: the names of this package must not stand in for those of the standard library.
sys.path.append(os.path.abspath(f"{__file__}/../../../.."))  # noqa: PTH100

from airflow_pgbackup import private_directory

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2


def main(parent: int, seccomp: str, directory: str, go: int, argv: list[str]) -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", lambda *_: 0)  # Linux has it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the password
    # Inherited from a thread or program that blocks signals, or ignores the end of its children.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if directory:
        private_directory.hold(directory)

    def remove_directory() -> None:
        if directory:
            private_directory.remove(directory)

    def check_parent(*_: object) -> None:
        if os.getppid() != parent:
            remove_directory()
            os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGUSR1, check_parent)
    prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1))
    check_parent()
    if not wait_for_go(go):
        remove_directory()
        os._exit(1)

    leader = os.getpid()
    # Held back until the leader ignores them: one that comes at this moment is for the tool, too.
    for_the_tool = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, for_the_tool)
    tool = os.fork()
    if tool == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))  # for the sudden end of the leader alone
        if os.getppid() == leader:
            become(argv, seccomp)
        os._exit(1)

    # What is sent to the group is for the tool, whose end is awaited here.
    for number in for_the_tool:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # The other ends of the tool's pipes must see the tool close them.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)

    status = os.waitstatus_to_exitcode(os.waitpid(tool, 0)[1])
    remove_directory()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(leader, -status)
    os._exit(status)


def wait_for_go(go: int) -> bool:
    """False when there is no tool to start: PARENT has failed, or is gone."""
    message = b""
    while not message.endswith(b"\0\0"):
        piece = os.read(go, 1 << 16)
        if not piece:
            return False
        message += piece
    os.close(go)
    for variable in filter(None, message.split(b"\0")):
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    return True


def become(argv: list[str], seccomp: str) -> None:
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


def confine(seccomp: str) -> None:
    """Set a seccomp filter for what this process becomes, or leave it to that; seccomp(2)."""
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
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
