"""The directory of a local repository, and paths below it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from airflow_pgbackup.errors import OutcomeUnknown, RepositoryError, RepositoryNotFound
from airflow_pgbackup.repository.local.errors import FULL, hint, reason
from airflow_pgbackup.repository.local.naming import name_exclusively
from airflow_pgbackup.repository.nofollow import flush, make_directories_below, parent_below
from airflow_pgbackup.wording import new_repository

T = TypeVar("T")

OTHERS = "Give the directories of the repository to the user who runs the workers, and write access to nobody else."
"""The hint where somebody else has replaced a directory."""

_LONGEST_NAMED = 300  # characters of a path in an error


class Root:
    """A directory whose files are opened without following links.

    :param directory: absolute; may be a symbolic link.
    :param uri: for messages.
    """

    def __init__(self, directory: Path, uri: str) -> None:
        self.directory = directory
        self._above = os.fspath(directory).rstrip("/") + "/"
        self._uri = uri

    def not_found(self) -> RepositoryNotFound:
        if self.directory.is_dir():
            found = f"the directory {self.directory} holds no repository.json"
        elif self.directory.exists():
            found = f"{self.directory} is not a directory"
        else:
            found = f"the directory {self.directory} does not exist"
        return RepositoryNotFound(
            f"no repository at {self._uri}: on host {socket.gethostname()} {found}",
            hint="Check that the volume is mounted on this worker. Several workers need a shared volume, or an s3:// "
            f"repository. Make a new repository {new_repository()}.",
        )

    def path(self, key: str) -> Path:
        """Return the path of a key.

        :raises RepositoryError: a segment of it is a symbolic link, or cannot be read.
        """
        path = self.directory
        for segment in key.split("/"):
            path /= segment
            with self.errors("cannot read", path):
                is_link = path.is_symlink()
            if is_link:
                raise RepositoryError(
                    f"{path} is a symbolic link, which a repository does not follow",
                    hint="To spread a repository over volumes, mount them at its directories.",
                )
        return path

    def key(self, path: str | Path) -> str:
        """Return the key of a path below the directory."""
        name = os.fspath(path)
        if not name.startswith(self._above):
            raise ValueError(f"{name} is not below {self._above}")
        return name[len(self._above) :]

    def require(self) -> None:
        """Check that the repository's directory exists.

        :raises RepositoryNotFound: it does not.
        """
        if not self._exists():
            raise self.not_found()

    def _exists(self) -> bool:
        with self.errors("cannot read", self.directory):
            return self.directory.is_dir()

    def in_directory(self, folder: Path, action: Callable[[], T]) -> T:
        """Make a directory and run an action that needs it. A writer that gives up may remove it in between.

        The root itself is never made: where it does not exist, a volume is not mounted.
        """
        for _ in range(20):
            try:
                if folder != self.directory:
                    make_directories_below(self.directory, self.key(folder))
                return action()
            except FileNotFoundError:
                self.require()
        raise RepositoryError(f"{folder} keeps being removed by another process")

    def was_replaced(self, key: str, directory: int) -> bool:
        """Return whether the directory of a key has been replaced. False if it was removed, as by prune."""
        try:
            with parent_below(self.directory, key) as (now, _):
                return not os.path.samestat(os.fstat(now), os.fstat(directory))
        except FileNotFoundError:
            return False
        except NotADirectoryError:  # a symbolic link
            return True

    def give_name(self, key: str, temporary: Path, directory: int) -> None:
        """Give a complete file its name, and make that durable.

        :param temporary: the file, beside its place.
        :param directory: a descriptor of the directory of both.
        :raises AlreadyExists: the name is taken.
        :raises OutcomeUnknown: the file has its name, but may lose it in a crash.
        """
        path = self.directory / key
        with self.errors("cannot write", path):
            name_exclusively(temporary, path, directory=directory)
            if self.was_replaced(key, directory):
                unlink(path.name, directory)
                raise RepositoryError(f"{path.parent} was replaced while {path.name} was written", hint=OTHERS)
        try:
            with self.errors("cannot flush", path.parent):
                flush(path.parent)
        except RepositoryError as error:  # others see the file by now
            raise OutcomeUnknown(f"{error.message}; {path} may be lost in a crash", hint=error.hint) from error

    def remove_empty(self, folder: Path) -> None:
        """Remove a directory and its parents where they are empty: a repository has none, as S3 has none."""
        while folder != self.directory:
            try:
                with parent_below(self.directory, self.key(folder)) as (directory, name):
                    os.rmdir(name, dir_fd=directory)
            except FileNotFoundError:  # an interrupted write may have made only its parents
                pass
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def errors(self, what: str, path: Path) -> Iterator[None]:
        """Raise errors of the file system as RepositoryErrors."""
        try:
            yield
        except FileNotFoundError:
            self.require()
            raise RepositoryError(f"{what} {path}: it disappeared during the operation") from None
        except OSError as error:
            # Of a listing, the directory below `path` that cannot be read.
            below = error.filename if isinstance(error.filename, str) and len(error.filename) <= _LONGEST_NAMED else ""
            named = below if below.startswith("/") else path
            message = f"{what} {named}: {reason(error)}"
            if error.errno in FULL:
                message = f"the repository is full: {message}"
            raise RepositoryError(message, hint=hint(error.errno)) from error


def unlink(name: str, directory: int) -> None:
    """Remove a file if that is possible; prune sweeps what cannot be removed now."""
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)
