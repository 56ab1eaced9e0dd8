"""The only reader of configuration: ``PGBACKUP_<NAME>`` variables, Airflow's ``[pgbackup]`` section, then defaults.

The command line works without Airflow, so :func:`load` reads Airflow's configuration only with ``airflow=True``, as
the operators call it. Airflow's own variables ``AIRFLOW__PGBACKUP__<NAME>`` work there too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.wording import setting

_LEAST, _MOST = 0.001, 1e9
_LONGEST_LOCK_WAIT = 2_147_483.0  # seconds: PostgreSQL's lock_timeout is an int of milliseconds
_WORDS = {
    "compress_by": ("airflow-pgbackup", "pg_dump"),
    "rehearsal_containment": ("prefer", "require"),
    "lock_holder_query": ("hide", "show"),
    "lock_mode": ("governance", "compliance"),
    "page_level": ("integrity", "archive", "restore"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that apply to every task. Times are in seconds.

    The reasons for the numbers are in ``docs/reference/configuration.md``.
    """

    client_dirs: tuple[str, ...] = ()
    """Directories with PostgreSQL clients, searched before the standard locations; separated by ``os.pathsep``."""

    lock_wait_timeout: float = 120.0
    """``--lock-wait-timeout`` unless the DAG sets it: pg_dump gives up instead of waiting for DDL without limit."""

    max_replay_lag: float = 0.0
    """A standby further behind its primary is not dumped, unless the DAG sets another limit; 0 means no limit."""

    max_bytes_per_second: float = 0.0
    """The rate of pg_dump's output, which limits the load of the source, unless the DAG sets another; 0 means none."""

    lock_holder_query: str = "hide"
    """Whether the log of a dump that waits for a lock has the first words of its holder's query: ``hide``, ``show``."""

    dump_deadline: float = 12 * 3600.0
    """After this time a dump is stopped: while it runs, it holds ACCESS SHARE locks and an old snapshot."""

    verify_deadline: float = 600.0
    """The fixed part of the deadline for reading an archive; with a truncated tar pg_restore never ends."""

    verify_bytes_per_second: float = 2e6
    """The deadline for reading an archive grows by its size over this rate, which every disk and store exceeds."""

    temp_dir: str = ""
    """Where private copies are made when a tool opens an artifact by its name; empty for the system's directory."""

    compress_by: str = "airflow-pgbackup"
    """Who compresses custom archives: ``airflow-pgbackup`` on up to 4 cores, or ``pg_dump`` itself on one core."""

    recipients: tuple[str, ...] = ()
    """The public keys of age to which new artifacts are encrypted, separated by commas or newlines; empty: none are."""

    identity_file: str = ""
    """A file, mode 0600, or 0640 if root owns it, with the secret key of a recipient, for reading encrypted artifacts.

    Dumps need none.
    """

    identity_conn_id: str = ""
    """The Airflow connection whose password is such a key; for operators, which ignore ``identity_file`` then."""

    rehearsal_containment: str = "prefer"
    """If no sandbox can be made: ``prefer`` rehearses *uncontained*, ``require`` does not rehearse (not proven)."""

    masking_key_file: str = ""
    """The file with the key of masks, mode 0600, or 0640 if root owns it; empty: masking needs a key from elsewhere."""

    lock_for: str = ""
    """How long S3 refuses to delete the objects of a backup, ``30d``; empty: object lock is left to the bucket."""

    lock_mode: str = "governance"
    """Whether roles with a special right may delete them earlier: ``governance``; nobody may: ``compliance``."""

    page_repositories: str = ""
    """URIs of the repositories that the Backups page shows, separated by commas."""

    page_aws_conn_id: str = "aws_default"
    """The Airflow connection of those in S3."""

    page_fleet: str = ""
    """The file with a fleet's mapping: the page also shows its repositories, with its targets."""

    page_max_age: float = 26 * 3600.0
    """How old the newest verified backup of a series may be, unless the mapping says otherwise."""

    page_level: str = "archive"
    """The level at which it must be verified, unless the mapping says otherwise."""

    page_retention: str = ""
    """The parameters of ``prune`` as JSON, from which the page works out what the next prune would delete."""

    page_verify_dag_id: str = ""
    """The DAG that *Verify now* on the Backups page triggers; empty: no such button."""

    page_rehearse_dag_id: str = ""
    """The DAG that *Rehearse now* triggers; empty: no such button."""

    page_restore_dag_id: str = ""
    """The DAG that *Plan a restore* triggers, which should ask for an approval; empty: no such button."""

    @property
    def repositories_of_page(self) -> list[str]:
        """The URIs in :attr:`page_repositories`."""
        return self.page_repositories.replace(",", " ").split()

    def read_deadline(self, size: int) -> float:
        """Return the seconds within which an artifact of ``size`` bytes must be read to its end."""
        return self.verify_deadline + size / self.verify_bytes_per_second


def load(*, airflow: bool = False, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    :param airflow: also read Airflow's ``[pgbackup]`` section; imports Airflow.
    :raises ConfigurationError: a value is not a number, out of range, or not one of the words allowed.
    """
    environ = os.environ if environ is None else environ
    section = _airflow_section() if airflow else (lambda name: None)
    values: dict[str, object] = {}
    for item in fields(Settings):
        text = environ.get(f"PGBACKUP_{item.name.upper()}") or section(item.name)
        if text:
            values[item.name] = _parse(item.name, text, item.default)
    return Settings(**values)  # type: ignore[arg-type]  # _parse gave each its field's type


def _parse(name: str, text: str, default: object) -> object:
    if isinstance(default, tuple):
        if name == "recipients":  # blank ones stay: text without a key must not turn encryption off
            return tuple(part.strip() for part in re.split(r"[,\r\n]", text))
        return tuple(part for part in text.split(os.pathsep) if part.strip())
    if name in _WORDS and text not in _WORDS[name]:
        raise ConfigurationError(f"setting {name} is {text!r}", hint=f"Choose one of {', '.join(_WORDS[name])}.")
    if isinstance(default, str):
        return text
    most = _LONGEST_LOCK_WAIT if name == "lock_wait_timeout" else _MOST
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    no_limit = default == 0 and number == 0
    if not (_LEAST <= number <= most or no_limit):
        raise ConfigurationError(
            f"setting {name} is {text!r}",
            hint=f"Give {setting(name)} a number between {_LEAST:g} and {most:.0f}.",
        )
    return number


def _airflow_section() -> Callable[[str], str | None]:
    from airflow.configuration import conf

    return lambda name: conf.get("pgbackup", name, fallback=None)
