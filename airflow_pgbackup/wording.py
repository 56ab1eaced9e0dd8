"""How the program that is running writes what its user can change: an operator's parameter is an option elsewhere.

A hint must name what exists where it is read: ``mode create`` in a DAG is ``--mode create`` on the command line,
``[pgbackup] temp_dir`` in Airflow is ``PGBACKUP_TEMP_DIR`` without it. Errors use the functions of this module; a
front end sets its :class:`Wording` for the process, as ``setlocale`` sets a language.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_ABSENT = object()


class Wording:
    """The wording of operators and of Python."""

    def parameter(self, name: str, value: object = _ABSENT) -> str:
        """Return a parameter: ``mode``, ``mode create``, ``terminate_sessions=False``."""
        if value is _ABSENT:
            return name
        return f"{name} {value}" if isinstance(value, str) else f"{name}={value!r}"

    def setting(self, name: str) -> str:
        """Return a setting of :mod:`airflow_pgbackup.settings`."""
        return f"[pgbackup] {name} (PGBACKUP_{name.upper()})"

    def command(self, line: str) -> str:
        """Return a command line: ``pgbackup list``."""
        return f"pgbackup {line}"

    def new_repository(self) -> str:
        """Return how a repository is created, as an adverbial."""
        return "with init_repository=True or 'pgbackup init'"

    def database(self) -> str:
        """Return where the name of a database is given."""
        return "the connection's schema (its database), or the parameter database"

    def complete_set(self) -> str:
        """Return how a partial backup set is made complete, as sentences."""
        return "See the failed tasks of what is missing. Clear them and the set's task, which then completes the set."

    def identity(self) -> str:
        """Return where a secret key of age is given, as an adverbial."""
        return (
            f"as the password of the connection that identity_conn_id or {self.setting('identity_conn_id')} names, "
            f"or without these in the file of {self.setting('identity_file')}"
        )

    def store(self, keyword: str) -> str:
        """Return where a property of an S3 store is given: ``endpoint_url``, ``verify``."""
        return f"{keyword} in the AWS connection"


_current = Wording()


@contextmanager
def spoken(wording: Wording) -> Iterator[None]:
    """Use a wording in this process while the ``with`` lasts."""
    global _current
    previous, _current = _current, wording
    try:
        yield
    finally:
        _current = previous


def parameter(name: str, value: object = _ABSENT) -> str:
    """Return a parameter as this program writes it."""
    return _current.parameter(name) if value is _ABSENT else _current.parameter(name, value)


def parameters(*names: str) -> str:
    """Return several parameters, separated by commas."""
    return ", ".join(map(_current.parameter, names))


def setting(name: str) -> str:
    """Return a setting as this program writes it."""
    return _current.setting(name)


def command(line: str) -> str:
    """Return a command line of this program."""
    return _current.command(line)


def new_repository() -> str:
    """Return how a repository is created, as an adverbial."""
    return _current.new_repository()


def database() -> str:
    """Return where the name of a database is given."""
    return _current.database()


def complete_set() -> str:
    """Return how a partial backup set is made complete, as sentences."""
    return _current.complete_set()


def identity() -> str:
    """Return where a secret key of age is given, as an adverbial."""
    return _current.identity()


def store(keyword: str) -> str:
    """Return where a property of an S3 store is given."""
    return _current.store(keyword)
