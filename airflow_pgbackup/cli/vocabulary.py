"""What the commands are made of: exit statuses, and the arguments that several of them share.

It is loaded whenever Airflow runs a command, so it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DESCRIPTION = "PostgreSQL logical backups, proven restorable: make them, list them, verify them, restore them."

EXIT_STATUS = {
    "done": 0,
    "failed": 1,  # a tool, a server or a repository failed
    "usage": 2,  # invalid request; nothing was changed
    "check failed": 3,  # verify: a backup failed; check, fsck, mask: there are errors; freshness: a series is not fresh
    "not proven": 4,  # verify, drill: the rehearsal could not run here, which says nothing about the backup
    "internal error": 70,  # a defect of this package; EX_SOFTWARE of sysexits(3)
    "interrupted": 130,
}
"""0 done, 1 failed, 2 invalid request, 3 failed verification or check, 4 not proven, 70 internal error,
130 interrupted.

A bulk verb (``--all``, ``drill``) ends with the status of the worst result: 3, then 1, then 4, then 0.
"""


@dataclass(frozen=True)
class Argument:
    """One argument, as ``argparse.ArgumentParser.add_argument`` takes it."""

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """One command. :param module: the module in :mod:`airflow_pgbackup.cli` whose ``run`` runs it."""

    name: str
    help: str
    module: str
    arguments: tuple[Argument, ...]
    description: str


def argument(*flags: str, **options: Any) -> Argument:
    """Return an argument with the options of ``add_argument``."""
    return Argument(flags, options)


def several(*flags: str, metavar: str, help: str) -> Argument:
    """Return an option that takes a value and may be repeated."""
    return argument(*flags, action="append", default=[], metavar=metavar, help=f"{help}; may be repeated")


def label(flag: str, help: str) -> Argument:
    """Return an option that takes a label and may be repeated."""
    return argument(flag, action="append", default=[], metavar="LABEL", help=help)


def keep(period: str, help: str) -> Argument:
    """Return the retention rule ``--keep-PERIOD N``."""
    return argument(f"--keep-{period}", type=int, default=0, metavar="N", help=help)


def command(name: str, help: str, *arguments: Argument, more: str = "") -> Command:
    """Return a command of the module ``cmd_NAME``; every command has ``--json`` and ``--debug``."""
    description = f"{help[0].upper()}{help[1:]}.\n\n{more}".strip()
    return Command(name, help, f"cmd_{name.replace('-', '_')}", (*arguments, JSON, DEBUG), description)


REPOSITORY_VARIABLE = "PGBACKUP_REPOSITORY"
REPOSITORY = argument(
    "repository",
    metavar="REPOSITORY",
    help=f"file:///directory or s3://bucket/prefix; default: {REPOSITORY_VARIABLE}",
)
SERIES = argument(
    "series",
    metavar="SERIES",
    help="SERVER/DATABASE, or SERVER/@cluster, @globals, @roles, @tablespaces, as 'list' shows it",
)
SELECTOR = "an id, its unique beginning, a date (the newest of that day, UTC), latest, or latest-verified"
ID = argument("id", metavar="ID", nargs="?", default="latest", help=f"{SELECTOR} (default: the newest verified backup)")
ID_TO_VERIFY = argument(
    "id", metavar="ID", nargs="?", default="latest", help=f"{SELECTOR} (default: the newest backup in any state)"
)
ID_TO_PIN = argument("id", metavar="ID", help=SELECTOR)
SERIES_OR_ALL = argument("series", metavar="SERIES", nargs="?", help="as 'list' shows it; with --all, only this one")
BULK = (
    argument("--all", action="store_true", help="every backup of the repository or SERIES; continue after a failure"),
    argument("--newest", type=int, metavar="N", help="with --all: only the N newest of each series"),
    argument("--server", metavar="NAME", help="with --all: only the series of this server"),
)
SCRATCH = (
    "rehearse on the server that the connection names, as its superuser, in a temporary database that is dropped "
    "afterwards (default: in a throwaway server on this machine)"
)
WORST = "With several backups the exit status is that of the worst result: 3, then 1, then 4, then 0."
GRACE = argument(
    "--grace",
    default="24h",
    metavar="SPAN",
    help="how long a leftover of a crash must not have grown before it is removed, at least 1h (default: 24h)",
)
ONLY_SERVER = argument("--server", metavar="NAME", help="only the series of this server")
SERVER = argument("--server", metavar="NAME", help="first part of the series (default: the host's name)")
JSON = argument("--json", action="store_true", help="print one JSON document, for programs, also after an error")
DEBUG_VARIABLE = "PGBACKUP_DEBUG"
DEBUG = argument(
    "--debug", action="store_true", help=f"show the Python traceback of an error, as does {DEBUG_VARIABLE}=1"
)
CONNECTION = (
    argument("--host", "-H", help="as PGHOST: a name, an address, or a socket directory"),
    argument("--port", "-p", help="as PGPORT"),
    argument("--username", "-U", help="as PGUSER"),
    argument("--dbname", "-d", help="database name, as PGDATABASE; never a connection string"),
    argument("--service", help="as PGSERVICE"),
)
RECIPIENT = several(
    "--recipient",
    metavar="KEY",
    help="encrypt to this public key of age, age1... or ssh-... (default: the setting recipients)",
)
IDENTITY = argument(
    "--identity",
    metavar="FILE",
    help="secret key of a recipient, as age-keygen writes it, to decrypt with; mode 0600, or 0640 if root owns it",
)
CHECKS = (
    several("--check", metavar="NAME=SQL", help="a SELECT that must be true in the restored copy"),
    argument("--checks", metavar="FILE", help="the same from a YAML file: checks, a list of name, sql, required"),
)
POSTGRES_CONN_ID = argument(
    "--postgres-conn-id",
    metavar="ID",
    help="an Airflow connection of type postgres, instead of PGHOST and the like; --dbname names another database",
)
AWS_CONN_ID = argument(
    "--aws-conn-id",
    metavar="ID",
    help="an Airflow connection of type aws for s3://, instead of boto3's own settings and PGBACKUP_S3",
)
DESTINATION_AWS_CONN_ID = argument(
    "--destination-aws-conn-id", metavar="ID", help="the same for the other repository (default: as --aws-conn-id)"
)
DUMP_OPTION = argument(
    "--option",
    "-o",
    action="append",
    default=[],
    metavar="NAME=VALUE",
    help="option of the tool, named as its flag: -o format=directory -o jobs=4 -o tables=film -o no_owner",
)
MAX_REPLAY_LAG = argument(
    "--max-replay-lag",
    metavar="SECONDS",
    help="do not dump a standby that is further behind its primary (default: PGBACKUP_MAX_REPLAY_LAG, or any)",
)
MAX_BYTES_PER_SECOND = argument(
    "--max-bytes-per-second",
    metavar="SIZE",
    help="read from the server no faster: 20MiB (default: PGBACKUP_MAX_BYTES_PER_SECOND, or no limit)",
)
CONNECT = (
    "pgbackup connects as psql does: with PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE, ~/.pgpass, PGPASSWORD.\n"
    "There is no option for a password: everybody on the machine could read it."
)
S3 = (
    "For s3://, boto3's own settings apply: AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL_S3, ~/.aws.\n"
    "PGBACKUP_S3 holds what the store needs:\n"
    '{"extra_args": {"ServerSideEncryption": "aws:kms"}, "max_parts": 1000}'
)
