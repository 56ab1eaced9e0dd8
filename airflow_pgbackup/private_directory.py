"""Private directories, for password files, servers and copies: the only module that makes and sweeps them.

A private directory has a lock file. Each process that uses the directory holds a shared flock(2) on that file, which
the kernel releases when the process ends, by SIGKILL too. A directory whose lock nobody holds is a leftover, however
young, and :func:`sweep` removes it; one whose lock is held stays, however old.

Imports only what starts fast: the supervisors of tools and servers use this module too.
"""

from __future__ import annotations

import fcntl
import os
import time

TYPE_CHECKING = False  # as in typing, whose import takes longer than all the others
if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

PREFIX = "pgbackup-private-"
GRACE = 3600.0
"""Seconds for which a directory without a lock file is kept: a process may be about to make that file."""

_LOCK = ".lock"
_NEW_LOCK = ".lock.new"
_PATIENCE = 60.0  # seconds for emptying a directory; another process can be filling it
_ATTEMPTS = 5
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateDirectory:
    """A new directory of mode 0700 for the length of a ``with``, whose value is its path.

    If this process is killed, another process that holds the directory removes it, or the next :func:`sweep`.

    :param parent: the directory in which it is made; default the directory for temporary files.
    :param hint: of an error, if another setting than ``temp_dir`` names the parent.
    :raises DiskError: the directory cannot be made or locked there.
    """

    def __init__(self, parent: str | os.PathLike[str] | None = None, *, hint: str | None = None) -> None:
        self._parent = parent
        self._hint = hint
        self._path: Path | None = None
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Path:
        from pathlib import Path

        parent = Path(self._parent or temporary_directory()).absolute()
        # The path is stored before the directory is made, so that an interrupt in between does not leave it behind.
        self._path = path = parent / f"{PREFIX}{os.urandom(8).hex()}"
        try:
            path.mkdir(mode=0o700)
            self._lock = _make_lock(path)
        except OSError as error:
            from airflow_pgbackup.errors import DiskError
            from airflow_pgbackup.wording import setting

            self.remove()
            name = f"{setting('temp_dir')}, or TMPDIR," if self._parent else "TMPDIR"
            raise DiskError(
                f"cannot make a private directory in {parent}: {error.strerror}",
                hint=self._hint or f"Set {name} to a writable directory on a local disk.",
            ) from error
        except BaseException:
            self.remove()
            raise
        return path

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the directory now; a second call does nothing."""
        path, lock, self._path, self._lock = self._path, self._lock, None, None
        if path is not None:
            remove(path)
        if lock is not None:
            lock.close()


def temporary_directory() -> str:
    """Return the directory for temporary files: that of TMPDIR, or a usual one.

    :raises DiskError: none of them is writable. The setting ``temp_dir`` does not help: password files are never there.
    """
    import tempfile

    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        from airflow_pgbackup.errors import DiskError

        raise DiskError(
            f"no writable directory for temporary files: {error.strerror}",
            hint="Set TMPDIR to a writable directory on a local disk, as of an emptyDir in Kubernetes.",
        ) from error


def hold(path: str | os.PathLike[str]) -> None:
    """Lock a private directory against :func:`sweep` until this process ends; nothing happens if it does not exist."""
    try:
        lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # sweep() is removing it
        os.close(lock)


def remove(path: str | os.PathLike[str]) -> bool:
    """Remove a directory and everything in it, of any depth, without following symbolic links.

    The lock file is removed last, so that :func:`sweep` recognizes what is left after an interrupt.

    :return: True if the directory does not exist any more.
    """
    try:
        directory = os.open(path, _OPEN)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return _remove(directory, path)
    except OSError:  # a bad disk
        return False
    finally:
        os.close(directory)


def sweep(*parents: str | os.PathLike[str]) -> list[str]:
    """Remove the private directories in `parents` that processes of this user left behind when they were killed.

    Raises no error: a directory that cannot be removed stays.

    :return: the paths that were removed.
    """
    swept = []
    for parent in dict.fromkeys(map(os.path.realpath, parents)):
        try:
            names = os.listdir(parent)
        except OSError:
            continue
        paths = [os.path.join(parent, name) for name in names if name.startswith(PREFIX)]
        swept += [path for path in paths if _sweep(path)]
    return swept


def _make_lock(path: Path) -> IO[bytes]:
    new = path / _NEW_LOCK
    lock = open(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "rb+", buffering=0)  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        new.rename(path / _LOCK)  # only now, as sweep() removes a directory whose lock is not held
    except BaseException:
        lock.close()
        raise
    return lock


def _sweep(path: str) -> bool:
    try:
        directory = os.open(path, _OPEN)
    except OSError:  # already removed, a symbolic link, a file, or another user's
        return False
    try:
        found = os.fstat(directory)
        return found.st_uid == os.geteuid() and not found.st_mode & 0o022 and _sweep_own(directory, path, found)
    except OSError:
        return False
    finally:
        os.close(directory)


def _sweep_own(directory: int, path: str, found: os.stat_result) -> bool:
    try:
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        if time.time() - found.st_mtime < GRACE:
            return False
        # Its maker was killed before it wrote anything. A directory with anything else in it stays: rmdir fails.
        _delete(_NEW_LOCK, directory)
        os.rmdir(path)
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A lock file without a link belonged to a directory that another sweep has just removed.
        return os.fstat(lock).st_nlink > 0 and _remove(directory, path)
    finally:
        os.close(lock)


def _remove(directory: int, path: str | os.PathLike[str]) -> bool:
    for _ in range(_ATTEMPTS):
        if not _delete_contents(directory):
            return False
        _delete(_LOCK, directory)
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:  # not empty: a password file was just renewed
            continue
        return True
    return False


def _delete_contents(directory: int) -> bool:
    """Delete everything but the lock file.

    One level at a time: the subdirectories of each directory are moved up, so that any depth takes neither stack nor
    descriptors.
    """
    deadline = time.monotonic() + _PATIENCE
    while names := [name for name in os.listdir(directory) if name != _LOCK]:
        if not sum([_delete(name, directory) for name in names]) or time.monotonic() > deadline:
            return False
    return True


def _delete(name: str, directory: int) -> bool:
    """Delete a file, or empty a directory; return True if the name does not exist any more."""
    try:
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            _dissolve(name, directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _dissolve(name: str, directory: int) -> None:
    _open_up(name, directory)
    inner = os.open(name, _OPEN, dir_fd=directory)
    try:
        for each in os.listdir(inner):
            try:
                os.unlink(each, dir_fd=inner)
            except IsADirectoryError:
                _open_up(each, inner)
                os.rename(each, os.urandom(8).hex(), src_dir_fd=inner, dst_dir_fd=directory)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)


def _open_up(name: str, directory: int) -> None:
    """Set mode 0700 on a directory that its owner cannot read or write; root needs no such right."""
    if os.geteuid() != 0:
        os.chmod(name, 0o700, dir_fd=directory)
