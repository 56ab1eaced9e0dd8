"""The kinds of things in a sound database that make a restore fail or lose something: one table, for code and docs.

:mod:`.check_restorability` looks for them, ``docs/reference/restorability.md`` is generated from this table, and the
tests make every example, find it, mend it, and find it no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import ERROR, WARNING, Finding, Findings, named


@dataclass(frozen=True, kw_only=True)
class RestorabilityProblem:
    """One kind of thing.

    :ivar code: as in :class:`.findings.Finding`.
    :ivar severity: ``error``: proven by what was read, so the next dump or restore fails or loses something;
        ``warning``: it does so under conditions that the catalogs do not show.
    :ivar found: what was found; ``{}`` stands for the objects.
    :ivar at_restore: what happens then.
    :ivar mend: what to do, with the statement; ``{}`` as there.
    :ivar example: statements that make it; () where that takes more than SQL, and then `setting` says what.
    :ivar mended: statements after which check finds it no more.
    :ivar objects: of the finding in the example.
    """

    code: str
    severity: str = WARNING
    found: str
    at_restore: str
    mend: str
    example: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    setting: str = ""


def report_problem(
    where: InspectedDatabase | Findings, code: str, objects: Sequence[str], *, found: str = "", mend: str = ""
) -> None:
    """Take down a finding of a kind, if there are any objects.

    :param where: a database; or the findings, for what is about the whole server.
    :param found, mend: instead of the kind's own, where they say more.
    """
    if not objects:
        return
    kind = PROBLEMS[code]
    about = f"{where.where}: " if isinstance(where, InspectedDatabase) else ""
    list_ = named(objects)
    finding = Finding(
        kind.severity,
        kind.code,
        f"{about}{found or kind.found.format(list_)}: {kind.at_restore}",
        mend or kind.mend.format(list_),
        tuple(objects),
        where.name if isinstance(where, InspectedDatabase) else None,
    )
    (where.findings if isinstance(where, InspectedDatabase) else where).add(finding)


_ALL = (
    RestorabilityProblem(
        code="function_search_path",
        found="functions name objects without their schema and do not set search_path: {}",
        at_restore="a restore runs them with an empty search_path, where those names mean nothing: the rows, the index "
        "or the view are missing afterwards",
        mend="Run ALTER FUNCTION {} SET search_path = pg_catalog, public; then dump again.",
        example=(
            "CREATE TABLE rate (code text PRIMARY KEY, value numeric)",
            "CREATE FUNCTION rate_of(text) RETURNS numeric LANGUAGE sql IMMUTABLE "
            "AS 'SELECT value FROM rate WHERE code = $1'",
            "CREATE TABLE price (code text, value numeric GENERATED ALWAYS AS (rate_of(code)) STORED)",
            "INSERT INTO price VALUES ('EUR')",
        ),
        mended=("ALTER FUNCTION rate_of(text) SET search_path = pg_catalog, public",),
        objects=("public.rate_of(text)",),
    ),
    RestorabilityProblem(
        code="check_reads_tables",
        found="CHECK constraints read tables: {}",
        at_restore="rows are loaded table by table, so the constraint refuses rows whose other table comes later, more "
        "so with several jobs",
        mend="Replace it by a foreign key or a trigger: a CHECK may look at its own row only.",
        example=(
            "CREATE TABLE kind (name text)",
            "INSERT INTO kind VALUES ('a')",
            "CREATE FUNCTION is_kind(text) RETURNS bool LANGUAGE sql STABLE "
            "AS 'SELECT EXISTS (SELECT FROM public.kind WHERE name = $1)'",
            "CREATE TABLE item (kind text CONSTRAINT known CHECK (is_kind(kind)))",
            "INSERT INTO item VALUES ('a')",
        ),
        mended=("ALTER TABLE item DROP CONSTRAINT known",),
        objects=("known on public.item",),
    ),
    RestorabilityProblem(
        code="check_changes",
        found="CHECK constraints change with time, user or chance: {}",
        at_restore="rows that were valid when they were written are refused, and with them all rows of their table",
        mend="Drop it (ALTER TABLE ... DROP CONSTRAINT) and look at such values in a trigger.",
        example=(
            "CREATE TABLE coupon (until timestamptz CONSTRAINT fresh CHECK (until > now()))",
            "INSERT INTO coupon VALUES (clock_timestamp() + '0.1 s')",
        ),
        mended=("ALTER TABLE coupon DROP CONSTRAINT fresh",),
        objects=("fresh on public.coupon",),
    ),
    RestorabilityProblem(
        code="not_valid",
        found="constraints are NOT VALID: {}",
        at_restore="a full restore adds them NOT VALID, as they are; a restore of rows into existing tables fails at "
        "rows that violate them",
        mend="Mend the rows, then run ALTER TABLE ... VALIDATE CONSTRAINT: {}.",
        example=(
            "CREATE TABLE person (age int)",
            "INSERT INTO person VALUES (-1)",
            "ALTER TABLE person ADD CONSTRAINT born CHECK (age >= 0) NOT VALID",
        ),
        mended=("UPDATE person SET age = 0", "ALTER TABLE person VALIDATE CONSTRAINT born"),
        objects=("born on public.person",),
    ),
    RestorabilityProblem(
        code="not_null_not_valid",
        found="NOT NULL constraints of tables with children are NOT VALID: {}",
        at_restore="pg_restore with several jobs may fail at a child that holds a null; with one job it does not",
        mend="Mend the rows, then run ALTER TABLE ... VALIDATE CONSTRAINT: {}. Until then restore with one job.",
        example=(
            "CREATE TABLE reading (at date, value int) PARTITION BY RANGE (at)",
            "CREATE TABLE reading_2026 PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            "INSERT INTO reading VALUES ('2026-05-01', NULL)",
            "ALTER TABLE reading ADD CONSTRAINT given NOT NULL value NOT VALID",
        ),
        mended=("UPDATE reading SET value = 0", "ALTER TABLE reading VALIDATE CONSTRAINT given"),
        objects=("given on public.reading",),
        setting="PostgreSQL 18 or newer",
    ),
    RestorabilityProblem(
        code="violated_check",
        severity=ERROR,
        found="rows violate their CHECK constraints: {}",
        at_restore="COPY refuses the whole table",
        mend="Find the rows with SELECT * FROM ... WHERE NOT (condition), and mend them: {}.",
        example=(
            "CREATE TABLE stock (amount int CONSTRAINT counted CHECK (amount >= 0))",
            "ALTER TABLE stock DROP CONSTRAINT counted",
            "INSERT INTO stock VALUES (-1)",
            "ALTER TABLE stock ADD CONSTRAINT counted CHECK (amount >= 0) NOT VALID",
            "UPDATE pg_constraint SET convalidated = true WHERE conname = 'counted'",
        ),
        mended=("UPDATE stock SET amount = 0",),
        objects=("counted on public.stock",),
        setting="found with scan_rows",
    ),
    RestorabilityProblem(
        code="violated_foreign_key",
        severity=ERROR,
        found="rows refer to rows that do not exist: {}",
        at_restore="the foreign key cannot be added, and is missing afterwards",
        mend="Find the rows with SELECT c.* FROM child c LEFT JOIN parent p ON ... WHERE p.key IS NULL, and mend "
        "them: {}.",
        example=(
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int CONSTRAINT of_parent REFERENCES parent)",
            "SET session_replication_role = replica",
            "INSERT INTO child VALUES (1)",
            "RESET session_replication_role",
        ),
        mended=("INSERT INTO parent VALUES (1)",),
        objects=("of_parent on public.child",),
        setting="found with scan_rows",
    ),
    RestorabilityProblem(
        code="violated_unique",
        severity=ERROR,
        found="unique indexes have duplicates: {}",
        at_restore="the index, with its primary key or unique constraint, cannot be built, and is missing afterwards",
        mend="Find them with SELECT key, count(*) FROM ... GROUP BY key HAVING count(*) > 1 after SET enable_indexscan "
        "= off, mend them, run REINDEX INDEX, and look for the cause with amcheck: {}.",
        example=(
            "CREATE TABLE account (name text)",
            "CREATE UNIQUE INDEX account_name ON account (name)",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'account_name'::regclass",
            "INSERT INTO account VALUES ('a'), ('a')",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'account_name'::regclass",
        ),
        mended=("DELETE FROM account", "REINDEX INDEX account_name"),
        objects=("public.account_name",),
        setting="found with scan_rows",
    ),
    RestorabilityProblem(
        code="large_rows",
        found="tables have rows of more than 768 MiB: {}",
        at_restore="at 1 GiB, escapes included, pg_dump itself fails with invalid memory alloc request size",
        mend="Store such values as large objects, or in pieces: {}.",
        setting="found with scan_rows",
    ),
    RestorabilityProblem(
        code="unreadable_rows",
        severity=ERROR,
        found="tables cannot be read: {}",
        at_restore="pg_dump fails where this did",
        mend="Look at the server's log, check the table with pg_amcheck, and restore the newest verified backup beside "
        "it: {}.",
        setting="found with scan_rows",
    ),
    RestorabilityProblem(
        code="invalid_index",
        found="indexes are invalid: {}",
        at_restore="pg_dump leaves them out, so they are missing afterwards",
        mend="Run REINDEX INDEX CONCURRENTLY, or DROP INDEX: {}.",
        example=(
            "CREATE TABLE mail (address text)",
            "INSERT INTO mail VALUES ('a'), ('a')",
            "CREATE UNIQUE INDEX CONCURRENTLY mail_address ON mail (address)",
        ),
        mended=("DELETE FROM mail", "REINDEX INDEX CONCURRENTLY mail_address"),
        objects=("public.mail_address",),
        setting="the last statement fails, and leaves the index",
    ),
    RestorabilityProblem(
        code="reg_columns",
        found="columns hold names of tables, functions or operators: {}",
        at_restore="COPY looks each name up, and refuses that of an index, which is made later, and of a function or "
        "operator that is not the only one of its name",
        mend="Store the name as text, or use regprocedure and regoperator, which have the arguments: {}.",
        example=(
            "CREATE TABLE seen (what regclass)",
            "CREATE INDEX seen_what ON seen (what)",
            "INSERT INTO seen VALUES ('seen_what')",
        ),
        mended=("ALTER TABLE seen ALTER what TYPE text",),
        objects=("public.seen.what",),
    ),
    RestorabilityProblem(
        code="role_columns",
        found="columns hold names of roles: {}",
        at_restore="COPY refuses a role that the target does not have, and a dump of a database has no roles",
        mend="Store the name as text, or restore the roles first, from a backup of the cluster: {}.",
        example=("CREATE TABLE clerk (who regrole)", "INSERT INTO clerk VALUES (current_user::regrole)"),
        mended=("ALTER TABLE clerk ALTER who TYPE text",),
        objects=("public.clerk.who",),
    ),
    RestorabilityProblem(
        code="foreign_views",
        found="materialized views read from another server: {}",
        at_restore="REFRESH asks that server, and the view stays empty where it cannot be reached",
        mend="See that the target reaches it, or empty the view for the dump: REFRESH MATERIALIZED VIEW {} WITH NO "
        "DATA.",
        example=(
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER far FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE remote (a int) SERVER far",
            "CREATE VIEW near AS SELECT a FROM remote WHERE false",
            "CREATE MATERIALIZED VIEW copy AS SELECT * FROM near WITH NO DATA",
            "UPDATE pg_class SET relispopulated = true WHERE relname = 'copy'",
        ),
        mended=("UPDATE pg_class SET relispopulated = false WHERE relname = 'copy'",),
        objects=("public.copy",),
        setting="the UPDATE stands for the time when the server answered",
    ),
    RestorabilityProblem(
        code="collation_version",
        found="the operating system has other versions of collations than the indexes were built with: {}",
        at_restore="a restore sorts anew, and a unique index meets the duplicates that a broken one let in",
        mend="Run REINDEX, then ALTER DATABASE or ALTER COLLATION ... REFRESH VERSION: {}.",
        example=(
            'CREATE COLLATION german (locale = "C.UTF-8")',
            "CREATE TABLE word (word text COLLATE german)",
            "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'german'",
        ),
        mended=("UPDATE pg_collation SET collversion = pg_collation_actual_version(oid) WHERE collname = 'german'",),
        objects=("collation public.german",),
        setting="the UPDATE stands for an upgrade of the operating system",
    ),
    RestorabilityProblem(
        code="template_collation",
        found="template databases have another collation version than the operating system: {}",
        at_restore="CREATE DATABASE, with which a restore into a new database begins, fails on this server",
        mend="Run ALTER DATABASE {} REFRESH COLLATION VERSION; to template0 nobody can connect, and none has to.",
        example=("UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'template1'",),
        mended=(
            "UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid) WHERE datistemplate",
        ),
        objects=("template1",),
        setting="the UPDATE stands for an upgrade of the operating system",
    ),
    RestorabilityProblem(
        code="event_triggers",
        found="there are event triggers: {}",
        at_restore="only a superuser can make them",
        mend="Restore as a superuser, or leave them out of the restore with pg_restore --use-list: {}.",
        example=(
            "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note()",
        ),
        mended=("DROP EVENT TRIGGER noted",),
        objects=("noted",),
    ),
    RestorabilityProblem(
        code="publications",
        found="publications are FOR ALL TABLES or FOR TABLES IN SCHEMA: {}",
        at_restore="only a superuser can make them",
        mend="Restore as a superuser, or without them (no_publications), or list the tables: {}.",
        example=("CREATE PUBLICATION everything FOR ALL TABLES",),
        mended=("DROP PUBLICATION everything",),
        objects=("everything",),
    ),
    RestorabilityProblem(
        code="subscriptions_disabled",
        found="subscriptions are active: {}",
        at_restore="they are restored disabled and without their slot, so that nothing is replicated",
        mend="Plan for ALTER SUBSCRIPTION ... ENABLE and REFRESH PUBLICATION after a restore, or dump with "
        "no_subscriptions: {}.",
        example=(
            "CREATE SUBSCRIPTION followed CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)",
            "UPDATE pg_subscription SET subenabled = true WHERE subname = 'followed'",
        ),
        mended=("ALTER SUBSCRIPTION followed DISABLE",),
        objects=("followed",),
        setting="the UPDATE stands for ALTER SUBSCRIPTION ... ENABLE, which wants a publisher",
    ),
    RestorabilityProblem(
        code="libraries",
        found="functions in C are of no extension: {}",
        at_restore="CREATE FUNCTION fails on a server without that file",
        mend="Install the library on every server that restores, or make an extension of it: {}.",
        example=("CREATE FUNCTION suppress() RETURNS trigger LANGUAGE c AS '$libdir/dict_snowball', 'dsnowball_init'",),
        mended=("DROP FUNCTION suppress",),
        objects=("'$libdir/dict_snowball'",),
    ),
    RestorabilityProblem(
        code="dictionary_files",
        found="text search dictionaries have files on the server: {}",
        at_restore="CREATE TEXT SEARCH DICTIONARY fails on a server without them",
        mend="Copy the files in share/tsearch_data to every server that restores: {}.",
        example=("CREATE TEXT SEARCH DICTIONARY same (TEMPLATE = synonym, SYNONYMS = synonym_sample)",),
        mended=("DROP TEXT SEARCH DICTIONARY same",),
        objects=("public.same",),
    ),
    RestorabilityProblem(
        code="preload",
        found="extensions must be loaded when the server starts: {}",
        at_restore="CREATE EXTENSION fails on a server without them in shared_preload_libraries",
        mend="Add them to shared_preload_libraries of every server that restores, and restart it: {}.",
        setting="for example pg_cron, timescaledb, citus, pgaudit",
    ),
    RestorabilityProblem(
        code="extension_database",
        found="one database of a server can have these extensions: {}",
        at_restore="CREATE EXTENSION fails in a database with another name, also on the same server",
        mend="Set cron.database_name, or pg_net.database_name, on the server that restores: {}.",
        setting="pg_cron and pg_net",
    ),
    RestorabilityProblem(
        code="extension_version",
        found="a restore makes other versions of extensions than this database has: {}",
        at_restore="CREATE EXTENSION makes the version that the target has for default: what only this one has is "
        "missing, and objects that use it fail",
        mend="Run ALTER EXTENSION ... UPDATE here, or install the same version there: {}.",
        setting="after an upgrade of the packages without ALTER EXTENSION ... UPDATE",
    ),
    RestorabilityProblem(
        code="outside_selection",
        found="the selection leaves out what it needs: {}",
        at_restore="what uses it fails in a database that does not have it already",
        mend="Add it to the dump (schemas, tables, extensions), or make it in the target first: {}.",
        example=(
            "CREATE SCHEMA shared",
            "CREATE TYPE shared.mood AS ENUM ('good', 'bad')",
            "CREATE SCHEMA app",
            "CREATE TABLE app.diary (mood shared.mood)",
        ),
        mended=("ALTER TABLE app.diary ALTER mood TYPE text",),
        objects=("type shared.mood",),
        setting='with options={"schemas": ["app"]}',
    ),
    RestorabilityProblem(
        code="dump_locks",
        found="the dump takes more locks than the server has room for: {}",
        at_restore="pg_dump fails with out of shared memory as soon as others need locks, too",
        mend="Raise max_locks_per_transaction: {}.",
        setting="more tables than max_locks_per_transaction * (max_connections + max_prepared_transactions)",
    ),
    RestorabilityProblem(
        code="restore_locks",
        found="a restore in one transaction takes more locks than a server like this has room for: {}",
        at_restore="it fails with out of shared memory",
        mend="Raise max_locks_per_transaction: {}.",
        setting="more tables, indexes, sequences and large objects than that",
    ),
    RestorabilityProblem(
        code="keepalives",
        found="TCP keepalives of the connection are off, or late: {}",
        at_restore="a firewall drops a connection that is silent while an index is built or a large table is sorted, "
        "and the tool waits forever",
        mend="Take keepalives=0 out of the connection, or set keepalives_idle=60.",
        setting="a connection through a network with keepalives=0",
    ),
    RestorabilityProblem(
        code="encoding",
        found="text is not valid in every encoding: {}",
        at_restore="a database in SQL_ASCII takes such bytes, one in UTF8 refuses them",
        mend="Dump with encoding set to what the text really is and restore that into UTF8; rename roles and databases "
        "whose names are not UTF-8.",
        example=("CREATE DATABASE old ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",),
        objects=("old",),
        setting="a database in SQL_ASCII",
    ),
)
PROBLEMS = {kind.code: kind for kind in _ALL}
