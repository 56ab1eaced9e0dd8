"""Problems in a healthy database that make a restore fail or lose something: one table, for code and documentation.

:mod:`.restorability` searches for them, the page ``docs/reference/restorability.md`` is generated from this table, and
the tests create every example, find the problem, fix it, and find it no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.databases.inspection import InspectedDatabase
from airflow_pgbackup.backup.findings import ERROR, WARNING, Finding, Findings, first_named
from airflow_pgbackup.wording import parameter


@dataclass(frozen=True, kw_only=True)
class RestorabilityProblem:
    """One kind of problem.

    :param code: as in :class:`~airflow_pgbackup.backup.findings.Finding`.
    :param severity: ``error``: what was read proves that the next dump or restore fails or loses something;
        ``warning``: it does so under conditions that the catalogs do not show.
    :param message: what was found; ``{}`` stands for the objects.
    :param consequence: what happens in a restore.
    :param hint: what to do, with the statement; ``{}`` stands for the objects,
        ``{options[no_comments]}`` for an option.
    :param example: statements that create the problem; () if that takes more than SQL; see `condition`.
    :param fix: statements that remove the problem of the example.
    :param objects: the finding's objects in the example.
    :param condition: what the example needs beside its statements.
    """

    code: str
    severity: str = WARNING
    message: str
    consequence: str
    hint: str
    example: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    condition: str = ""

    def hint_about(self, objects: str) -> str:
        """Return the hint, with options as the running program writes them."""
        return self.hint.format(objects, options=_Options())


class _Options:
    def __getitem__(self, name: str) -> str:
        return parameter(name)


def report_problem(
    where: InspectedDatabase | Findings, code: str, objects: Sequence[str], *, message: str = "", hint: str = ""
) -> None:
    """Add a finding for a problem, if there are any objects.

    :param where: the database; or the findings, for problems of the whole server.
    :param code: of the problem.
    :param message, hint: replace those of the table, where more is known.
    """
    if not objects:
        return
    problem = PROBLEMS[code]
    about = f"{where.where}: " if isinstance(where, InspectedDatabase) else ""
    list_ = first_named(objects)
    finding = Finding(
        problem.severity,
        problem.code,
        f"{about}{message or problem.message.format(list_)}; {problem.consequence}",
        hint or problem.hint_about(list_),
        tuple(objects),
        where.name if isinstance(where, InspectedDatabase) else None,
    )
    (where.findings if isinstance(where, InspectedDatabase) else where).add(finding)


_ALL = (
    RestorabilityProblem(
        code="function_search_path",
        message="functions use names without a schema and do not set search_path: {}",
        consequence="a restore runs them with an empty search_path and cannot find those names, so the rows, the index "
        "or the view that use them are missing afterwards",
        hint="Run ALTER FUNCTION {} SET search_path = pg_catalog, public; then dump again.",
        example=(
            "CREATE FUNCTION cents(numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT ($1 * 100)::bigint'",
            "CREATE FUNCTION tax(numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT cents($1) / 5'",
            "CREATE TABLE price (value numeric, tax bigint GENERATED ALWAYS AS (tax(value)) STORED)",
            "INSERT INTO price VALUES (10)",
        ),
        fix=("ALTER FUNCTION tax(numeric) SET search_path = pg_catalog, public",),
        objects=("public.tax(numeric)",),
    ),
    RestorabilityProblem(
        code="check_reads_tables",
        message="CHECK constraints read tables: {}",
        consequence="a restore loads one table after the other, in any order with several jobs, so the constraint "
        "rejects rows if the other table is loaded later",
        hint="Replace the constraint with a foreign key or a trigger: a CHECK constraint may refer to its own row "
        "only.",
        example=(
            "CREATE TABLE kind (name text)",
            "INSERT INTO kind VALUES ('a')",
            "CREATE FUNCTION is_kind(text) RETURNS bool LANGUAGE sql STABLE "
            "AS 'SELECT EXISTS (SELECT FROM public.kind WHERE name = $1)'",
            "CREATE TABLE item (kind text CONSTRAINT known CHECK (is_kind(kind)))",
            "INSERT INTO item VALUES ('a')",
        ),
        fix=("ALTER TABLE item DROP CONSTRAINT known",),
        objects=("known on public.item",),
    ),
    RestorabilityProblem(
        code="generated_reads_tables",
        message="stored generated columns read tables: {}",
        consequence="a dump does not contain their values, and a restore computes them while it loads one table after "
        "the other, so they are wrong where the other table is loaded later",
        hint="Drop the expression (ALTER TABLE ... ALTER ... DROP EXPRESSION) and fill the column in a trigger, so "
        "that dumps contain it. After a restore, compute it again by updating a column that the expression uses: {}.",
        example=(
            "CREATE TABLE rate (code text PRIMARY KEY, value numeric)",
            "INSERT INTO rate VALUES ('EUR', 2)",
            "CREATE FUNCTION rate_of(text) RETURNS numeric LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public "
            "AS 'SELECT value FROM rate WHERE code = $1'",
            "CREATE TABLE price (code text, rate numeric GENERATED ALWAYS AS (rate_of(code)) STORED)",
            "INSERT INTO price VALUES ('EUR')",
        ),
        fix=("ALTER TABLE price ALTER rate DROP EXPRESSION",),
        objects=("public.price.rate",),
    ),
    RestorabilityProblem(
        code="check_changes",
        message="CHECK constraints depend on the time, the user or a random value: {}",
        consequence="rows that were valid when they were written are rejected later, and with them all rows of their "
        "table",
        hint="Drop the constraint (ALTER TABLE ... DROP CONSTRAINT) and check the values in a trigger.",
        example=(
            "CREATE TABLE coupon (until timestamptz CONSTRAINT fresh CHECK (until > now()))",
            "INSERT INTO coupon VALUES (clock_timestamp() + '0.1 s')",
        ),
        fix=("ALTER TABLE coupon DROP CONSTRAINT fresh",),
        objects=("fresh on public.coupon",),
    ),
    RestorabilityProblem(
        code="not_valid",
        message="constraints are NOT VALID: {}",
        consequence="a complete restore succeeds and keeps them NOT VALID, but restoring the rows into existing tables "
        "fails at rows that violate them",
        hint="Correct the rows, then run ALTER TABLE, or ALTER DOMAIN, ... VALIDATE CONSTRAINT: {}.",
        example=(
            "CREATE TABLE person (age int)",
            "INSERT INTO person VALUES (-1)",
            "ALTER TABLE person ADD CONSTRAINT born CHECK (age >= 0) NOT VALID",
        ),
        fix=("UPDATE person SET age = 0", "ALTER TABLE person VALIDATE CONSTRAINT born"),
        objects=("born on public.person",),
    ),
    RestorabilityProblem(
        code="not_null_not_valid",
        message="NOT NULL constraints on tables with partitions or child tables are NOT VALID: {}",
        consequence="pg_restore with several jobs may fail at a child table that holds nulls; with one job it succeeds",
        hint="Correct the rows, then run ALTER TABLE ... VALIDATE CONSTRAINT: {}. Until then, restore with one job.",
        example=(
            "CREATE TABLE reading (at date, value int) PARTITION BY RANGE (at)",
            "CREATE TABLE reading_2026 PARTITION OF reading FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            "INSERT INTO reading VALUES ('2026-05-01', NULL)",
            "ALTER TABLE reading ADD CONSTRAINT given NOT NULL value NOT VALID",
        ),
        fix=("UPDATE reading SET value = 0", "ALTER TABLE reading VALIDATE CONSTRAINT given"),
        objects=("given on public.reading",),
        condition="PostgreSQL 18 or newer",
    ),
    RestorabilityProblem(
        code="violated_check",
        severity=ERROR,
        message="rows violate CHECK constraints: {}",
        consequence="COPY rejects all rows of the table",
        hint="Find the rows with SELECT * FROM ... WHERE NOT (condition), and correct them: {}.",
        example=(
            "CREATE TABLE stock (amount int CONSTRAINT counted CHECK (amount >= 0))",
            "ALTER TABLE stock DROP CONSTRAINT counted",
            "INSERT INTO stock VALUES (-1)",
            "ALTER TABLE stock ADD CONSTRAINT counted CHECK (amount >= 0) NOT VALID",
            "UPDATE pg_constraint SET convalidated = true WHERE conname = 'counted'",
        ),
        fix=("UPDATE stock SET amount = 0",),
        objects=("counted on public.stock",),
        condition="found with scan_rows",
    ),
    RestorabilityProblem(
        code="violated_foreign_key",
        severity=ERROR,
        message="rows violate foreign keys: {}",
        consequence="the foreign key cannot be created and is missing afterwards",
        hint="Find the rows with SELECT c.* FROM child c LEFT JOIN parent p ON ... WHERE p.key IS NULL, and correct "
        "them: {}.",
        example=(
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int CONSTRAINT of_parent REFERENCES parent)",
            "SET session_replication_role = replica",
            "INSERT INTO child VALUES (1)",
            "RESET session_replication_role",
        ),
        fix=("INSERT INTO parent VALUES (1)",),
        objects=("of_parent on public.child",),
        condition="found with scan_rows",
    ),
    RestorabilityProblem(
        code="violated_unique",
        severity=ERROR,
        message="unique indexes contain duplicates: {}",
        consequence="the index, and with it the primary key or unique constraint, cannot be created and is missing "
        "afterwards",
        hint="Run SET enable_indexscan = off, find the rows with SELECT key, count(*) FROM ... GROUP BY key HAVING "
        "count(*) > 1, correct them, run REINDEX INDEX, and search for the cause with amcheck: {}.",
        example=(
            "CREATE TABLE account (name text)",
            "CREATE UNIQUE INDEX account_name ON account (name)",
            "UPDATE pg_index SET indisready = false WHERE indexrelid = 'account_name'::regclass",
            "INSERT INTO account VALUES ('a'), ('a')",
            "UPDATE pg_index SET indisready = true WHERE indexrelid = 'account_name'::regclass",
        ),
        fix=("DELETE FROM account", "REINDEX INDEX account_name"),
        objects=("public.account_name",),
        condition="found with scan_rows",
    ),
    RestorabilityProblem(
        code="large_rows",
        message="tables have rows larger than 768 MiB: {}",
        consequence='pg_dump fails with "invalid memory alloc request size" if a row in COPY format, with escapes, '
        "exceeds 1 GiB",
        hint="Store such values as large objects, or split them: {}.",
        condition="found with scan_rows",
    ),
    RestorabilityProblem(
        code="unreadable_rows",
        severity=ERROR,
        message="tables cannot be read: {}",
        consequence="pg_dump will fail too",
        hint="Read the server's log, check the table with pg_amcheck, and restore the newest verified backup under "
        "another name: {}.",
        condition="found with scan_rows",
    ),
    RestorabilityProblem(
        code="invalid_index",
        message="indexes are invalid: {}",
        consequence="pg_dump skips them, so they are missing afterwards",
        hint="Run REINDEX INDEX CONCURRENTLY, or DROP INDEX: {}.",
        example=(
            "CREATE TABLE mail (address text)",
            "INSERT INTO mail VALUES ('a'), ('a')",
            "CREATE UNIQUE INDEX CONCURRENTLY mail_address ON mail (address)",
        ),
        fix=("DELETE FROM mail", "REINDEX INDEX CONCURRENTLY mail_address"),
        objects=("public.mail_address",),
        condition="the last statement fails and leaves the invalid index",
    ),
    RestorabilityProblem(
        code="reg_columns",
        message="columns refer to tables, functions or operators by name (regclass, regproc, regoper): {}",
        consequence="COPY looks up each name, and rejects the name of an index, as indexes are created later, and of "
        "an overloaded function or operator",
        hint="Store the names as text, or use regprocedure and regoperator, which include the arguments: {}.",
        example=(
            "CREATE TABLE seen (what regclass)",
            "CREATE INDEX seen_what ON seen (what)",
            "INSERT INTO seen VALUES ('seen_what')",
        ),
        fix=("ALTER TABLE seen ALTER what TYPE text",),
        objects=("public.seen.what",),
    ),
    RestorabilityProblem(
        code="role_columns",
        message="columns refer to roles by name (regrole): {}",
        consequence="COPY rejects a role that does not exist on the target, and the dump of a database contains no "
        "roles",
        hint="Store the names as text, or restore the roles first, from a cluster backup: {}.",
        example=("CREATE TABLE clerk (who regrole)", "INSERT INTO clerk VALUES (current_user::regrole)"),
        fix=("ALTER TABLE clerk ALTER who TYPE text",),
        objects=("public.clerk.who",),
    ),
    RestorabilityProblem(
        code="foreign_views",
        message="materialized views read data of another server: {}",
        consequence="a restore runs REFRESH, which fails if that server cannot be reached, and the view stays empty",
        hint="Make sure that the target can reach the other server, or empty the view before the dump: REFRESH "
        "MATERIALIZED VIEW {} WITH NO DATA.",
        example=(
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER far FOREIGN DATA WRAPPER nothing",
            "CREATE FOREIGN TABLE remote (a int) SERVER far",
            "CREATE VIEW near AS SELECT a FROM remote WHERE false",
            "CREATE MATERIALIZED VIEW copy AS SELECT * FROM near WITH NO DATA",
            "UPDATE pg_class SET relispopulated = true WHERE relname = 'copy'",
        ),
        fix=("UPDATE pg_class SET relispopulated = false WHERE relname = 'copy'",),
        objects=("public.copy",),
        condition="the UPDATE simulates a REFRESH while the other server could be reached",
    ),
    RestorabilityProblem(
        code="collation_version",
        message="collation versions differ between the indexes and the operating system: {}",
        consequence="indexes may be corrupt, and a restore then fails to create a unique index over the duplicates "
        "that a corrupt one let in",
        hint="Run REINDEX, then ALTER DATABASE ... REFRESH COLLATION VERSION or ALTER COLLATION ... REFRESH VERSION: "
        "{}.",
        example=(
            'CREATE COLLATION german (locale = "C.UTF-8")',
            "CREATE TABLE word (word text COLLATE german)",
            "UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'german'",
        ),
        fix=("UPDATE pg_collation SET collversion = pg_collation_actual_version(oid) WHERE collname = 'german'",),
        objects=("collation public.german",),
        condition="the UPDATE simulates an upgrade of the operating system",
    ),
    RestorabilityProblem(
        code="template_collation",
        message="collation versions differ between template databases and the operating system: {}",
        consequence="a restore into a new database on this server fails, because CREATE DATABASE does",
        hint="Run ALTER DATABASE {} REFRESH COLLATION VERSION, from any database.",
        example=("UPDATE pg_database SET datcollversion = '0.1' WHERE datname = 'template1'",),
        fix=("UPDATE pg_database SET datcollversion = pg_database_collation_actual_version(oid) WHERE datistemplate",),
        objects=("template1",),
        condition="the UPDATE simulates an upgrade of the operating system",
    ),
    RestorabilityProblem(
        code="event_triggers",
        message="the database has event triggers: {}",
        consequence="only a superuser can restore them",
        hint="Restore as a superuser, or exclude them with pg_restore --use-list: {}.",
        example=(
            "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
            "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note()",
        ),
        fix=("DROP EVENT TRIGGER noted",),
        objects=("noted",),
    ),
    RestorabilityProblem(
        code="publications",
        message="publications are FOR ALL TABLES or FOR TABLES IN SCHEMA: {}",
        consequence="only a superuser can restore them",
        hint="Restore as a superuser, exclude publications ({options[no_publications]}), or publish individual "
        "tables: {}.",
        example=("CREATE PUBLICATION everything FOR ALL TABLES",),
        fix=("DROP PUBLICATION everything",),
        objects=("everything",),
    ),
    RestorabilityProblem(
        code="superuser_only",
        message="the database has objects that only a superuser may create: {}",
        consequence="only a superuser can restore them",
        hint="Restore as a superuser, let one create extensions in the target first, or exclude the objects with "
        "pg_restore --use-list: {}.",
        example=(
            "CREATE FUNCTION same(text, text) RETURNS bool LANGUAGE sql IMMUTABLE LEAKPROOF AS 'SELECT $1 = $2'",
            "CREATE CAST (text AS jsonb) WITH INOUT",
        ),
        fix=("ALTER FUNCTION same NOT LEAKPROOF", "DROP CAST (text AS jsonb)"),
        objects=("LEAKPROOF function public.same(text,text)", "cast text AS jsonb"),
    ),
    RestorabilityProblem(
        code="tablespaces",
        message="the database uses tablespaces: {}",
        consequence="a restore fails on a server without them",
        hint="Create them on every server that restores, or restore with {options[no_tablespaces]}: {}.",
        example=(
            "SET allow_in_place_tablespaces = on",
            "CREATE TABLESPACE fast LOCATION ''",
            "CREATE TABLE hot (id int) TABLESPACE fast",
        ),
        fix=("ALTER TABLE hot SET TABLESPACE pg_default",),
        objects=("fast",),
        condition="the SET makes a directory unnecessary",
    ),
    RestorabilityProblem(
        code="subscriptions_disabled",
        message="subscriptions are active: {}",
        consequence="they are restored disabled and without a replication slot, so nothing is replicated",
        hint="Plan to run ALTER SUBSCRIPTION ... ENABLE and ... REFRESH PUBLICATION after a restore, or dump with "
        "{options[no_subscriptions]}: {}.",
        example=(
            "CREATE SUBSCRIPTION followed CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)",
            "UPDATE pg_subscription SET subenabled = true WHERE subname = 'followed'",
        ),
        fix=("ALTER SUBSCRIPTION followed DISABLE",),
        objects=("followed",),
        condition="the UPDATE simulates ALTER SUBSCRIPTION ... ENABLE, which needs a publisher",
    ),
    RestorabilityProblem(
        code="libraries",
        message="C functions outside of extensions use libraries: {}",
        consequence="CREATE FUNCTION fails on a server without the library, and for a role that is not a superuser",
        hint="Install the library on every server that restores, or package it as an extension: {}.",
        example=("CREATE FUNCTION suppress() RETURNS trigger LANGUAGE c AS '$libdir/dict_snowball', 'dsnowball_init'",),
        fix=("DROP FUNCTION suppress",),
        objects=("'$libdir/dict_snowball'",),
    ),
    RestorabilityProblem(
        code="dictionary_files",
        message="text search dictionaries use files on the server: {}",
        consequence="CREATE TEXT SEARCH DICTIONARY fails on a server without them",
        hint="Copy the files of share/tsearch_data to every server that restores: {}.",
        example=("CREATE TEXT SEARCH DICTIONARY same (TEMPLATE = synonym, SYNONYMS = synonym_sample)",),
        fix=("DROP TEXT SEARCH DICTIONARY same",),
        objects=("public.same",),
    ),
    RestorabilityProblem(
        code="preload",
        message="extensions must be preloaded: {}",
        consequence="CREATE EXTENSION fails on a server that does not have them in shared_preload_libraries",
        hint="Add them to shared_preload_libraries on every server that restores, and restart it: {}.",
        condition="pg_cron, timescaledb, citus or pgaudit",
    ),
    RestorabilityProblem(
        code="extension_database",
        message="extensions can be created in one database of a server only: {}",
        consequence="CREATE EXTENSION fails in a database with another name, even on the same server",
        hint="Set cron.database_name or pg_net.database_name on the server that restores, and restore with "
        "mode into_empty: {}.",
        condition="pg_cron and pg_net",
    ),
    RestorabilityProblem(
        code="extension_version",
        message="a restore would create other versions of extensions: {}",
        consequence="CREATE EXTENSION creates the target's default version, and objects that use what only this "
        "database's version has cannot be restored",
        hint="Run ALTER EXTENSION ... UPDATE in this database, or install the same version on the target: {}.",
        condition="an upgrade of the extension's package without ALTER EXTENSION ... UPDATE",
    ),
    RestorabilityProblem(
        code="outside_selection",
        message="the selected objects depend on objects that are not selected: {}",
        consequence="they cannot be restored into a database that lacks those objects",
        hint="Add the objects to the dump (schemas, tables, extensions), or create them in the target first: {}.",
        example=(
            "CREATE SCHEMA shared",
            "CREATE TYPE shared.mood AS ENUM ('good', 'bad')",
            "CREATE SCHEMA app",
            "CREATE TABLE app.diary (mood shared.mood)",
        ),
        fix=("ALTER TABLE app.diary ALTER mood TYPE text",),
        objects=("type shared.mood",),
        condition='with options={"schemas": ["app"]}',
    ),
    RestorabilityProblem(
        code="dump_locks",
        message="the dump takes more locks than fit into the lock table: {}",
        consequence='pg_dump fails with "out of shared memory" when other sessions need locks too',
        hint="Raise max_locks_per_transaction and restart the server: {}.",
        condition="more tables than max_locks_per_transaction * (max_connections + max_prepared_transactions)",
    ),
    RestorabilityProblem(
        code="restore_locks",
        message="a restore in a single transaction takes more locks than fit into the lock table: {}",
        consequence='it fails with "out of shared memory"',
        hint="Raise max_locks_per_transaction and restart the server: {}.",
        condition="more tables, indexes, sequences and large objects than that",
    ),
    RestorabilityProblem(
        code="keepalives",
        message="TCP keepalives are off or too rare: {}",
        consequence="a firewall may drop a connection that is idle while the server builds an index or sorts a large "
        "table, and the client then waits indefinitely",
        hint="Remove keepalives=0 from the connection, or set keepalives_idle=60.",
        condition="a connection through a network with keepalives=0",
    ),
    RestorabilityProblem(
        code="encoding",
        message="text may not be valid in every encoding: {}",
        consequence="a restore into an SQL_ASCII database accepts any bytes, but one into a UTF8 database rejects "
        "invalid ones",
        hint="Dump with {options[encoding]}, the text's real encoding, and restore into a UTF8 database; rename "
        "roles and databases whose names are not UTF-8.",
        example=("CREATE DATABASE old ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",),
        objects=("old",),
        condition="a database with encoding SQL_ASCII",
    ),
)
PROBLEMS = {problem.code: problem for problem in _ALL}
