"""subset: some tables of a real archive, some of their rows, and every foreign key holds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from airflow_pgbackup.backup.databases.sessions import session
from airflow_pgbackup.backup.subset import Subset, SubsetPlan
from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.postgres.archive.toc import Toc, read_toc
from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
from airflow_pgbackup.postgres.connection.environment import client_environment
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.postgres.tools.process import run_tool

Fresh = Callable[..., ConnectionParams]


class Restored:
    """A copy that was restored as a refresh does it: section by section, with the subset between them."""

    def __init__(self, params: ConnectionParams, plan: SubsetPlan) -> None:
        self.params = params
        self.plan = plan
        self.counts: dict[str, tuple[int, int]] = {}

    def value(self, query: str) -> Any:
        with self.params.connect() as connection:
            row = connection.execute(query).fetchone()
        return row and row[0]

    def column(self, query: str) -> list[Any]:
        with self.params.connect() as connection:
            return [row[0] for row in connection.execute(query)]

    @property
    def tables(self) -> list[str]:
        return self.column(
            "select oid::regclass::text from pg_class where relkind in ('r', 'p') and oid >= 16384 "
            "and relnamespace <> 'information_schema'::regnamespace order by 1"
        )

    @property
    def keys(self) -> list[str]:
        """The foreign keys, all of which PostgreSQL has checked."""
        query = "select conname from pg_constraint where contype = 'f' and conparentid = 0 and {} order by 1"
        return self.column(query.format("convalidated"))


class Source:
    """A database and its archive."""

    def __init__(
        self, server: PostgresServer, fresh: Fresh, directory: Path, *statements: str, options: Sequence[str] = ()
    ) -> None:
        self._server, self._fresh = server, fresh
        self.params = fresh(server, None, *statements)
        self._archive = directory / "archive"
        self._list = directory / "list"
        with client_environment(self.params) as env:
            run_tool([self._tool("pg_dump"), "-w", "--format=custom", f"--file={self._archive}", *options], env=env)

    def _tool(self, name: str) -> str:
        return str(postgres_bin_dir(18) / name)

    @property
    def toc(self) -> Toc:
        return read_toc(io.BytesIO(self._archive.read_bytes()), what="the archive")[0]

    def restore(self, **subset: Any) -> Restored:
        toc = self.toc
        plan = Subset(**subset).plan(toc)
        copy = Restored(self._fresh(self._server), plan)
        self._list.write_text("".join(f"{entry.dump_id};\n" for entry in plan.select(toc.entries)))
        with client_environment(copy.params) as env:

            def restore(section: str) -> None:
                options = ["-w", "--exit-on-error", f"--section={section}", f"--use-list={self._list}", "--dbname="]
                run_tool([self._tool("pg_restore"), *options, str(self._archive)], env=env)

            restore("pre-data")
            with session(copy.params) as connection:
                plan.install(connection)
            restore("data")
            with session(copy.params) as connection:
                copy.counts = {count.table: (count.before, count.after) for count in plan.reduce(connection)}
            restore("post-data")
        assert copy.value("select count(*) from pg_namespace where nspname like 'pgbackup%'") == 0
        assert copy.value("select count(*) from pg_trigger where tgname like 'pgbackup%'") == 0
        return copy


MakeSource = Callable[..., Source]


@pytest.fixture
def source(server18: PostgresServer, fresh_database: Fresh, tmp_path: Path) -> MakeSource:
    return lambda *statements, **more: Source(server18, fresh_database, tmp_path, *statements, **more)


SHOP = (
    "create table customer (id int primary key, country text not null, email text)",
    "insert into customer select n, case n % 4 when 0 then 'DE' else 'FR' end, n from generate_series(1, 40) n",
    "create table orders (id int primary key, customer_id int references customer, total numeric)",
    "insert into orders select n, nullif(n % 41, 0), n from generate_series(1, 410) n",
    "create table item (order_id int references orders on delete cascade, line int, primary key (order_id, line))",
    "insert into item select o, l from generate_series(1, 410) o, generate_series(1, 2) l",
    "create table note (order_id int, line int, text text, foreign key (order_id, line) references item match full)",
    "insert into note select order_id, line, 'x' from item",
    "insert into note values (null, null, 'of no item')",
    "create table unrelated (id int)",
    "insert into unrelated select generate_series(1, 7)",
)


def test_a_where_takes_the_rows_that_reference_the_others_with_it(source: MakeSource) -> None:
    copy = source(*SHOP).restore(where={"public.customer": "country = 'DE'"})
    assert copy.column("select distinct country from customer") == ["DE"]
    # orders of nobody stay, as null references nothing
    assert copy.value("select count(*) from orders where customer_id is null") == 10
    assert copy.counts == {
        "public.customer": (40, 10),
        "public.orders": (410, 110),
        "public.item": (820, 220),
        "public.note": (821, 221),
    }
    assert copy.value("select count(*) from unrelated") == 7
    assert copy.keys == ["item_order_id_fkey", "note_order_id_line_fkey", "orders_customer_id_fkey"]
    assert copy.plan.lines == [
        "rows are selected by an expression in public.customer",
        "rows whose referenced rows are left out are left out too, in public.item, public.note, public.orders",
    ]


def test_a_where_in_the_middle_leaves_the_referenced_table_complete(source: MakeSource) -> None:
    copy = source(*SHOP).restore(where={"public.orders": "total > 400", "public.item": "line = 1 or null"})
    assert copy.counts == {"public.orders": (410, 10), "public.item": (820, 10), "public.note": (821, 11)}
    assert copy.value("select count(*) from customer") == 40


def test_rows_that_are_not_selected_never_are_in_a_file(server18: PostgresServer, source: MakeSource) -> None:
    copy = source(*SHOP).restore(where={"public.customer": "country = 'DE'"})
    # a deleted row would be a dead one on the page
    assert copy.value("select pg_relation_size('customer')") == 8192
    assert copy.column("select ctid::text from customer") == [f"(0,{n})" for n in range(1, 11)]


def test_tables_that_lose_most_of_their_rows_lose_the_space_too(source: MakeSource) -> None:
    copy = source(
        "create table p (id int primary key)",
        "insert into p select generate_series(1, 10)",
        "create table c (p int references p, filling text)",
        "insert into c select n % 10 + 1, repeat('x', 500) from generate_series(1, 3000) n",
    ).restore(where={"public.p": "id = 1"})
    assert copy.counts["public.c"] == (3000, 300)
    assert copy.value("select pg_relation_size('c')") < 300 * 600


def test_cycles_and_chains_are_followed_to_their_end(source: MakeSource) -> None:
    copy = source(
        # a list of 20,000 rows, of which the head is left out; and one of 3 that nobody leaves out
        "create table chain (id int primary key, before int references chain)",
        "insert into chain select n, nullif(n - 1, 0) from generate_series(1, 20000) n",
        "insert into chain values (30001, 30001), (30002, 30001), (30003, null)",
        # employees and departments reference each other
        "create table department (id int primary key, head int)",
        "create table employee (id int primary key, department int references department, "
        "boss int references employee)",
        "insert into department select n, n from generate_series(1, 5) n",
        "insert into employee select n, n % 5 + 1, case when n > 5 then n % 5 + 1 end from generate_series(1, 50) n",
        "alter table department add foreign key (head) references employee",
    ).restore(where={"public.chain": "id <> 1", "public.employee": "id <> 3"})
    assert copy.column("select id from chain order by id") == [30001, 30002, 30003]
    # without 3: department 3; its employees 2, 7, ...; department 2; its employees 1, 6, ...; department 1; and so on
    assert copy.counts["public.department"] == (5, 0)
    assert copy.counts["public.employee"] == (50, 0)
    assert len(copy.keys) == 4


def test_partitions_and_inheritance(source: MakeSource) -> None:
    copy = source(
        "create table event (id int, day date, kind text, primary key (id, day)) partition by range (day)",
        "create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01')",
        "create table event_2 partition of event for values from ('2026-02-01') to ('2026-03-01') "
        "partition by range (id)",
        "create table event_2_a partition of event_2 for values from (minvalue) to (300)",
        "create table event_2_rest partition of event_2 default",
        "insert into event select n, date '2026-01-01' + n % 59, chr(97 + n % 2) from generate_series(1, 590) n",
        "create table seen (id int, day date, foreign key (id, day) references event) partition by hash (id)",
        "create table seen_0 partition of seen for values with (modulus 2, remainder 0)",
        "create table seen_1 partition of seen for values with (modulus 2, remainder 1)",
        "insert into seen select id, day from event",
        "create table base (id int primary key, kind text)",
        "create table derived (more int) inherits (base)",
        "insert into base values (1, 'a'), (2, 'b')",
        "insert into derived values (3, 'a', 3), (4, 'b', 4)",
        "create table to_base (id int references base)",
        "insert into to_base values (1), (2)",
    ).restore(where={"public.event*": "kind = 'a'", "public.base": "base.kind = 'a'"})
    assert copy.counts == {
        "public.event": (590, 295),
        "public.seen": (590, 295),
        "public.base": (2, 1),
        "public.derived": (2, 1),
        "public.to_base": (2, 1),
    }
    assert copy.value("select count(*) from event_2") > 0
    assert copy.keys == ["seen_id_day_fkey", "to_base_id_fkey"]


def test_keys_compare_as_the_foreign_key_does(source: MakeSource) -> None:
    """With the equality of the referenced type, and its collation: as rows that are equal so need each other."""
    copy = source(
        "create domain code as varchar(10)",
        "create table p (id bigint, code code, unique (id, code))",
        "insert into p values (1, 'a'), (2, 'b'), (3, 'c')",
        'create table c ("Id" int, code text collate "C", foreign key ("Id", code) references p (id, code))',
        "insert into c values (1, 'a'), (2, 'b'), (3, null)",
    ).restore(where={"public.p": "id = 2"})
    assert copy.column('select "Id" from c order by 1') == [2, 3]


def test_names_of_every_kind(source: MakeSource) -> None:
    copy = source(
        'create schema "Odd ""schema"", {}"',
        'create table "Odd ""schema"", {}"."p %s; --" ("a""b, c" int primary key, "$x" int)',
        'insert into "Odd ""schema"", {}"."p %s; --" values (1, 1), (2, 2)',
        'create table "c\nd" ("from" int constraint "Key, (x)" references "Odd ""schema"", {}"."p %s; --")',
        'insert into "c\nd" values (1), (2)',
    ).restore(where={'"Odd ""schema"", {}"."p %s; --"': '"$x" = 1 -- and "a""b, c" = 1 $$ %s {'})
    assert copy.column('select "from" from "c\nd"') == [1]
    assert copy.keys == ["Key, (x)"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nothing = 1", 'column "nothing" does not exist'),
        ("total", "argument of CHECK must be type boolean"),
        ("id in (select id from orders)", "cannot use subquery in check constraint"),
        ("count(*) > 1", "aggregate functions are not allowed in check constraints"),
        ("true)); drop table orders; select ((1", "cannot insert multiple commands into a prepared statement"),
        ("true) or (", 'syntax error at or near ")"'),
        ("twice > 3", "uses the generated column twice"),
    ],
)
def test_a_where_that_cannot_be_used_is_refused_before_rows_are_loaded(
    server18: PostgresServer, fresh_database: Fresh, source: MakeSource, where: str, message: str
) -> None:
    orders = "create table orders (id int, total int, twice int generated always as (2 * total) stored)"
    plan = Subset(where={"public.orders": where}).plan(source(orders).toc)
    with session(fresh_database(server18, None, orders)) as connection:
        with pytest.raises(ConfigurationError) as caught:
            plan.install(connection)
        assert message in str(caught.value)
        assert "public.orders" in caught.value.message
        assert connection.execute("select count(*) from pg_constraint where conname like 'pgb%'").fetchone() == (0,)
        assert connection.execute("select to_regclass('public.orders') is not null").fetchone() == (True,)


def test_selected_tables_come_with_what_they_need_and_without_the_others(source: MakeSource) -> None:
    database = source(
        *SHOP,
        "create schema other",
        "create type other.mood as enum ('sad')",
        "create function other.f(int) returns int language sql immutable return $1 + 1",
        "create table other.base (id int primary key)",
        "insert into other.base values (1)",
        "create table other.serial (id serial)",
        "create table wanted (mood other.mood, n int default nextval('other.serial_id_seq')) inherits (other.base)",
        "insert into wanted values (9, 'sad', 1)",
        "create index on wanted (other.f(id))",
        "alter table wanted add constraint to_orders foreign key (n) references orders",
        "alter table wanted add constraint to_base foreign key (id) references other.base not valid",
        "create view of_wanted as select * from wanted",
        "create view of_both as select w.* from wanted w, orders",
        "create materialized view of_both_too as select * from of_both",
        "create function shows_orders() returns setof orders language sql begin atomic select * from orders; end",
        "grant select on orders to public",
        "comment on column orders.total is 'of an order'",
        "create publication of_two for table wanted, orders",
    )
    copy = database.restore(tables=["public.wanted", "public.unr*"])
    assert copy.tables == ["other.base", "unrelated", "wanted"]
    assert copy.value("select count(*) from wanted") == 1
    assert copy.value("select count(*) from only other.base") == 0
    assert copy.column(
        "select relname from pg_class where relkind in ('v', 'm') and oid >= 16384 and "
        "relnamespace = 'public'::regnamespace"
    ) == ["of_wanted"]
    assert copy.value("select nextval('other.serial_id_seq')") >= 1
    assert copy.column("select tablename from pg_publication_tables") == ["wanted"]
    assert copy.column("select conname from pg_constraint where contype = 'f'") == []
    assert copy.plan.left_out == ["to_base of public.wanted", "to_orders of public.wanted"]
    assert copy.plan.lines == [
        "restoring 2 tables; left out: 5 tables: other.serial, public.customer, public.item, public.note, "
        "public.orders",
        "restored without rows, as selected tables depend on them: other.base",
        *(
            f"left out: {entry.label}, which depends on a table that is not restored"
            for entry in database.toc.entries
            if entry.name in ("shows_orders()", "of_both", "of_both_too") and entry.kind != "MATERIALIZED VIEW DATA"
        ),
        "left out: foreign key to_base of public.wanted, as other.base is not restored with its rows",
        "left out: foreign key to_orders of public.wanted, as public.orders is not restored with its rows",
    ]


def test_schemas_and_excluded_tables(source: MakeSource) -> None:
    copy = source(
        *SHOP, "create schema other", "create table other.t (id int)", "create schema third", "create table third.t ()"
    ).restore(schemas=["public", "oth*"], exclude_tables=["public.note", "*.unrelated"])
    assert copy.tables == ["customer", "item", "orders", "other.t"]
    assert copy.keys == ["item_order_id_fkey", "orders_customer_id_fkey"]
    assert copy.plan.left_out == []


def test_a_partition_without_its_parent_and_a_parent_without_a_partition(source: MakeSource) -> None:
    database = source(
        "create table m (id int, day date, primary key (id, day)) partition by range (day)",
        "create table m_1 partition of m for values from ('2026-01-01') to ('2026-02-01')",
        "create table m_2 partition of m for values from ('2026-02-01') to ('2026-03-01')",
        "create index on m (day)",
        "insert into m values (1, '2026-01-05'), (2, '2026-02-05')",
        "create table r (id int, day date, foreign key (id, day) references m)",
        "insert into r select * from m",
    )
    alone = database.restore(tables=["public.m_1"])
    assert alone.tables == ["m_1"]
    assert alone.value("select count(*) from pg_index where indrelid = 'm_1'::regclass and indisvalid") == 2
    assert "restored as a table of its own: public.m_1, a partition of public.m, which is not restored" in (
        alone.plan.lines
    )
    without = database.restore(exclude_tables=["public.m_1"])
    assert without.tables == ["m", "m_2", "r"]
    # what references rows of the excluded partition is left out too
    assert without.column("select id from r") == [2]
    assert without.value("select bool_and(indisvalid) from pg_index where indrelid = 'm'::regclass") is True
    assert without.keys == ["r_id_day_fkey"]


def test_partitions_whose_rows_are_those_of_a_table_that_is_left_out(source: MakeSource) -> None:
    database = source(
        'create table "M x" (id int) partition by list (id)',
        'create table m_1 partition of "M x" for values in (1)',
        'insert into "M x" values (1)',
        options=["--load-via-partition-root"],
    )
    with pytest.raises(
        ConfigurationError, match=r"the rows of public\.m_1 as rows of public\.M x, which is not selected"
    ):
        database.restore(tables=["public.m_1"])
    assert database.restore(tables=['public."M x"']).value("select count(*) from m_1") == 1


def test_a_where_of_columns_that_are_variables_too(source: MakeSource) -> None:
    copy = source("create table item (found bool, tg_op text)", "insert into item values (true, 'x'), (false, 'y')")
    assert copy.restore(where={"public.item": "found and tg_op = 'x'"}).counts == {"public.item": (2, 1)}


def test_one_where_for_a_table_and_those_that_inherit_from_it(source: MakeSource) -> None:
    database = source(
        "create table event (id int)",
        "create table event_old () inherits (event)",
        "insert into event values (1), (2)",
        "insert into event_old values (1), (2)",
    )
    copy = database.restore(where={"public.event*": "id > 1"})
    assert copy.counts == {"public.event": (2, 1), "public.event_old": (2, 1)}
    with pytest.raises(ConfigurationError, match=r"the rows of public\.event_old: those of public\.event and"):
        database.restore(where={"public.event": "id > 1", "public.event_old": "id > 0"})


def test_keys_that_cannot_be_followed_are_named(source: MakeSource) -> None:
    copy = source(
        "create table p (id int primary key, valid daterange)",
        "insert into p values (1, '[2026-01-01,2026-02-01)'), (2, '[2026-01-01,2026-02-01)')",
        "create table c (p int)",
        "insert into c values (1), (2), (77)",
        "alter table c add constraint later foreign key (p) references p not valid",
        "alter table c add constraint never foreign key (p) references p not enforced",
        "create table times (id int4range, valid daterange, primary key (id, valid without overlaps))",
        "insert into times values ('[1,2)', '[2026-01-01,2026-02-01)')",
        "create table uses_times (id int4range, valid daterange, "
        "constraint timed foreign key (id, period valid) references times (id, period valid))",
        "insert into uses_times values ('[1,2)', '[2026-01-02,2026-01-09)')",
    ).restore(where={"public.p": "id = 1", "public.times": "false"})
    assert copy.column("select p from c order by 1") == [1, 2, 77]
    assert copy.column("select conname from pg_constraint where contype = 'f' order by 1") == ["later", "never"]
    assert copy.plan.left_out == ["uses_times timed in public"]
    said = "\n".join(copy.plan.lines)
    assert "foreign key uses_times timed in public, which has a period or another form that is not followed" in said
    assert "not followed: foreign key later of public.c, which is NOT VALID or NOT ENFORCED" in said


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ({"tables": ["public.nothing", "public.orders"]}, "no table of the backup matches tables public.nothing"),
        ({"schemas": ["Public"], "where": {"public.customr": "true"}}, "matches where public.customr"),
        ({"tables": ["public.orders"], "where": {"public.item": "true"}}, "rows of public.item are selected, but"),
        (
            {"where": {"public.item": "true", "public.it*": "true"}},
            "two expressions are given for the rows of public.item",
        ),
        ({"where": {"public.remote": "true"}}, "no table of the backup matches where public.remote"),
    ],
)
def test_what_matches_nothing_is_an_error(source: MakeSource, subset: dict[str, Any], message: str) -> None:
    toc = source(
        *SHOP,
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create foreign table remote (id int) server s",
    ).toc
    with pytest.raises(ConfigurationError) as caught:
        Subset(**subset).plan(toc)
    assert message in caught.value.message
    assert caught.value.hint
