"""The comparison of a restored database with its archive: what is said of each difference, and how tables are read."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import pytest

from airflow_pgbackup.postgres.archive.row_digests import RowHasher, RowSet
from airflow_pgbackup.postgres.archive.summary import (
    ArchiveSummary,
    LargeObjects,
    SequenceValue,
    TableDigest,
    TableKey,
)
from airflow_pgbackup.postgres.compare import comparison
from airflow_pgbackup.postgres.compare.comparison import (
    TableComparison,
    compare_large_objects,
    compare_materialized_views,
    compare_sequences,
    compare_tables,
)
from airflow_pgbackup.postgres.compare.database_reader import DatabaseReader, Relation, Rows


@dataclass
class Table:
    """:param text: its rows as COPY writes them."""

    text: str = ""
    kind: str = "r"
    of_extension: bool = False
    columns: str = "id name"
    populated: bool = True
    unlogged: bool = False
    partition: int = 0
    unstable: tuple[str, ...] = ()
    foreign: bool = False


class Restored(DatabaseReader):
    """A restored database without a server.

    :ivar reads: what was read, in this order: the tables of one statement together.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        *,
        sequences: Iterable[SequenceValue] = (),
        large_objects: LargeObjects | None = None,
        sessions: int = 20,
    ) -> None:
        self.sessions = sessions
        self._tables = tables
        self._values = {(value.schema, value.name): value for value in sequences}
        self._objects = large_objects or LargeObjects()
        self.reads: list[list[Rows]] = []
        self.counted: list[tuple[str, bool, tuple[int, ...]]] = []

    def relations(self) -> dict[tuple[str, str], Relation]:
        found = {
            ("public", name): Relation(
                "public",
                name,
                table.kind,
                table.of_extension,
                tuple(table.columns.split()),
                table.populated,
                table.partition,
                table.unstable,
                table.unlogged,
                table.foreign,
            )
            for name, table in self._tables.items()
        }
        return found | {name: Relation(*name, "S", False, (), True) for name in self._values}

    def read(self, rows: Rows, take: Callable[[bytes], object]) -> None:
        self.reads.append([rows])
        take(self._tables[rows.name].text.encode())

    def read_together(self, tables: Sequence[tuple[Rows, Callable[[bytes], object]]]) -> None:
        self.reads.append([rows for rows, _ in tables])
        for rows, take in tables:
            take(self._tables[rows.name].text.encode())

    def count(self, schema: str, name: str, *, only: bool, without: Sequence[int] = ()) -> int:
        self.counted.append((f"{schema}.{name}", only, tuple(without)))
        return self._tables[name].text.count("\n")

    def sequences(self, names: Sequence[tuple[str, str]]) -> Iterator[SequenceValue]:
        return (self._values[name] for name in names)

    def steps(self) -> dict[tuple[str, str], tuple[int, bool]]:
        return {key: (-1 if "down" in key[1] else 1, "cycling" in key[1]) for key in self._values}

    def large_objects(self) -> LargeObjects:
        return self._objects


@dataclass
class Archive:
    """:param texts: the rows of its tables. :ivar asked: the tables whose rows were read again, as sets."""

    texts: Mapping[str, str]
    asked: list[tuple[list[str], list[str]]] = field(default_factory=list)

    def tables(self, **changes: object) -> list[TableDigest]:
        return [digest(name, text, **changes) for name, text in self.texts.items()]

    def row_sets(self, wanted: Collection[TableKey], counted: Collection[TableKey]) -> dict[TableKey, RowSet]:
        self.asked.append(([key[2] for key in wanted], [key[2] for key in counted]))
        return {key: row_set(self.texts[key[2]], count=key in counted) for key in wanted}


def digest(name: str, text: str, **changes: object) -> TableDigest:
    fields: dict[str, object] = {
        "columns": ("id", "name"),
        "rows": text.count("\n"),
        "bytes": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "blocks": 1,
        "comparable": "copy",
        **changes,
    }
    return TableDigest("public", name, **fields)  # type: ignore[arg-type]


def row_set(text: str, *, count: bool) -> RowSet:
    hasher = RowHasher(count=count)
    hasher.update(text.encode())
    return hasher.finish()


def compared(archive: Archive, restored: Restored, **changes: object) -> list[tuple[str, str, str | None]]:
    found = compare_tables(restored, archive.tables(**changes), archive.row_sets)
    return [(one.table.name, one.result, one.detail) for one in found]


TWO = "1\ta\n2\tb\n"


@pytest.mark.parametrize(
    ("dumped", "restored", "result", "detail"),
    [
        (TWO, Table(TWO), "same", None),
        (TWO, Table("2\tb\n1\ta\n"), "reordered", "the same rows in another order"),
        (TWO, Table("1\ta\n2\tc\n"), "different", "2 rows, some of which differ from the dump"),
        ("1\ta\n", Table("1\tb\n"), "different", "1 row, some of which differ from the dump"),
        (TWO, Table("1\ta\n"), "different", "found 1 row, expected 2"),
        ("1\ta\n" * 1234, Table(""), "different", "found 0 rows, expected 1,234"),
        (TWO, Table(TWO, columns="id"), "different", "column name is missing after the restore"),
        (TWO, Table(TWO, columns="x"), "different", "column id is missing after the restore"),
        (TWO, Table("", kind="f"), "notcompared", "foreign data: its server is not part of the backup"),
        (
            TWO,
            Table("", kind="p", foreign=True),
            "notcompared",
            "a partition has foreign data: its server is not part of the backup",
        ),
        (TWO, Table(TWO, of_extension=True), "same", None),
        (
            "2\tb\n",
            Table("2\tb\n2\tb\n", of_extension=True),
            "contained",
            "contains all dumped rows: found 2 rows, dumped 1",
        ),
        ("2\tb\n", Table(TWO, of_extension=True), "contained", "contains all dumped rows: found 2 rows, dumped 1"),
        (TWO, Table("1\ta\n3\tc\n", of_extension=True), "different", "2 rows, some of which differ from the dump"),
        (TWO, Table("1\ta\n", of_extension=True), "different", "found 1 row, expected 2"),
    ],
)
def test_what_is_said_of_one_table(dumped: str, restored: Table, result: str, detail: str | None) -> None:
    if result == "contained":
        detail = f"table of an extension {detail}"
    assert compared(Archive({"film": dumped}), Restored({"film": restored})) == [("film", result, detail)]


@pytest.mark.parametrize(
    ("restored", "detail"),
    [
        (
            Table("1\ta\n2\tc\n", unstable=("its money", "its type x")),
            "2 rows, some of which differ, perhaps because of its money or its type x",
        ),
        (
            Table(TWO, of_extension=True, columns="id"),
            "table of an extension, perhaps of another version: column name is missing after the restore",
        ),
    ],
)
def test_what_may_be_no_fault_of_the_backup_is_unproven(restored: Table, detail: str) -> None:
    archive = Archive({"film": TWO})
    (table,) = archive.tables()
    assert list(compare_tables(Restored({"film": restored}), [table], archive.row_sets)) == [
        TableComparison(table, "notcompared", detail, unproven=True)
    ]


def test_a_partition_with_data_of_its_own_is_left_out_of_its_root() -> None:
    inserted, copied = ("root", "leaf"), ("tree", "branch")
    restored = Restored(
        {
            "root": Table(TWO, kind="p"),
            "leaf": Table(TWO, partition=7),
            "tree": Table("2\tb\n1\ta\n", kind="p"),
            "branch": Table(TWO, partition=8),
        }
    )
    archive = Archive(dict.fromkeys((*inserted, *copied), TWO))
    tables = [digest(name, TWO, comparable="inserts", columns=None, sha256=None) for name in inserted]
    tables += [digest(name, TWO) for name in copied]
    found = compare_tables(restored, tables, archive.row_sets)
    assert [one.result for one in found] == ["notcompared", "notcompared", "same", "reordered"]
    assert restored.counted == [("public.root", False, (7, 8)), ("public.leaf", True, ())]
    read = [(rows.name, rows.without) for rows in chain.from_iterable(restored.reads)]
    assert sorted(read) == [("branch", ()), ("tree", (7, 8)), ("tree", (7, 8))]


def test_a_table_that_was_not_restored_is_missing() -> None:
    archive = Archive({"film": TWO, "actor": TWO})
    assert compared(archive, Restored({"actor": Table(TWO)}), columns=()) == [
        ("film", "different", "the table is missing after the restore"),
        ("actor", "same", None),
    ]


def test_a_table_of_an_extension_with_too_many_rows_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_pgbackup.postgres.archive.row_digests._MAX_COUNTED", 1)
    archive, restored = Archive({"film": "1\ta\n"}), Restored({"film": Table(TWO, of_extension=True)})
    assert compared(archive, restored) == [
        ("film", "notcompared", "table of an extension has too many rows to compare each: found 2 rows, dumped 1")
    ]


@pytest.mark.parametrize(
    ("restored", "result", "detail"),
    [
        (Table(TWO), "notcompared", "dumped as INSERT: rows counted, values not compared"),
        (Table(TWO, kind="p"), "notcompared", "dumped as INSERT: rows counted, values not compared"),
        (Table("1\ta\n"), "different", "found 1 row, expected 2"),
    ],
)
def test_rows_dumped_as_inserts_are_counted(restored: Table, result: str, detail: str) -> None:
    database = Restored({"film": restored})
    assert compared(Archive({"film": TWO}), database, comparable="inserts", columns=None, sha256=None) == [
        ("film", result, detail)
    ]
    assert database.counted == [("public.film", restored.kind != "p", ())]
    assert database.reads == []


def test_only_tables_that_differ_are_read_again() -> None:
    texts = {name: f"1\t{name}\n2\tb\n" for name in ("same", "reordered", "extension", "different")}
    restored = Restored(
        {
            "same": Table(texts["same"]),
            "reordered": Table("2\tb\n1\treordered\n"),
            "extension": Table(texts["extension"] + "3\tc\n", of_extension=True),
            "different": Table(TWO),
        }
    )
    archive = Archive(texts)
    assert [(name, result) for name, result, _ in compared(archive, restored)] == [
        (name, "contained" if name == "extension" else name) for name in texts
    ]
    assert archive.asked == [(["reordered", "extension", "different"], ["extension"])]
    archive.asked.clear()
    assert compared(archive, Restored({name: Table(text) for name, text in texts.items()}))
    assert archive.asked == []


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "usable_processors", lambda: 1)


@pytest.mark.usefixtures("one_thread")
def test_small_tables_are_read_together_and_each_large_one_alone_before_them() -> None:
    sizes = {"small": 10, "largest": 70_001, "view": 20, "limit": 65_536, "large": 65_537}
    archive = Archive(dict.fromkeys(sizes, TWO))
    restored = Restored({name: Table(TWO, kind="p" if name == "view" else "r") for name in sizes})
    tables = [digest(name, TWO, bytes=size, columns=("name",)) for name, size in sizes.items()]
    found = compare_tables(restored, tables, archive.row_sets)
    assert list(found) == [TableComparison(table, "same") for table in tables], "in the order of the archive"
    assert restored.reads == [
        [Rows("public", "largest", ("name",))],
        [Rows("public", "large", ("name",))],
        [Rows("public", "view", ("name",), by_select=True)],
        [Rows("public", "limit", ("name",)), Rows("public", "small", ("name",))],
    ]


@pytest.mark.usefixtures("one_thread")
def test_at_most_64_small_tables_are_read_together() -> None:
    texts = {f"t{number}": f"{number}\tx\n" for number in range(130)}
    restored = Restored({name: Table(text) for name, text in texts.items()})
    found = compared(Archive(texts), restored, columns=None)
    assert found == [(name, "same", None) for name in texts]
    assert [len(together) for together in restored.reads] == [64, 64, 2]
    assert {rows.columns for together in restored.reads for rows in together} == {()}


@pytest.mark.usefixtures("one_thread")
def test_after_an_error_no_more_tables_are_read() -> None:
    stopped = threading.Event()

    class Broken(Restored):
        def read(self, rows: Rows, take: Callable[[bytes], object]) -> None:
            super().read(rows, take)
            if len(self.reads) == 1:
                raise RuntimeError("connection lost")
            assert stopped.wait(60)

        def stop(self) -> None:
            stopped.set()

    names = ["a", "b", "c", "d"]
    broken = Broken({name: Table(TWO, kind="p") for name in names})
    with pytest.raises(RuntimeError, match="connection lost"):
        compared(Archive(dict.fromkeys(names, TWO)), broken)
    assert stopped.is_set()
    assert len(broken.reads) <= 2, "the one that was being read meanwhile ends"


def test_threads_are_named_for_the_comparison_and_as_many_as_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    meet = threading.Barrier(3)
    names: list[str] = []

    class Parallel(Restored):
        def read(self, rows: Rows, take: Callable[[bytes], object]) -> None:
            super().read(rows, take)
            meet.wait(60)
            names.append(threading.current_thread().name)

    monkeypatch.setattr(comparison, "usable_processors", lambda: 3)
    tables = ["a", "b", "c"]
    assert compared(Archive(dict.fromkeys(tables, TWO)), Parallel({name: Table(TWO, kind="p") for name in tables})) == [
        (name, "same", None) for name in tables
    ]
    assert sorted(names) == ["pgbackup-compare_0", "pgbackup-compare_1", "pgbackup-compare_2"]


# -- what is not in tables ---------------------------------------------------------------------------------------------


def sequence(name: str, value: int, called: bool = True, database: str | None = None) -> SequenceValue:
    return SequenceValue("public", name, value, called, database)


def test_sequences_that_differ() -> None:
    summary = ArchiveSummary(
        sequences=[
            sequence("same", 7),
            sequence("value", 8),
            sequence("called", 9),
            sequence("missing", 1),
            sequence("a_table", 1),
            sequence("elsewhere", 1, database="other"),
        ]
    )
    values = [sequence("same", 7), sequence("value", 80, False), sequence("called", 9, False), sequence("new", 1)]
    restored = Restored({"a_table": Table()}, sequences=values)
    assert sorted(compare_sequences(restored, summary, None)) == [
        ("public.a_table", "is missing after the restore"),
        ("public.called", "is_called is False, expected True"),
        ("public.missing", "is missing after the restore"),
        ("public.value", "has value 80, expected 8"),
    ]
    assert list(compare_sequences(restored, summary, "other")) == [("public.elsewhere", "is missing after the restore")]


def test_sequences_that_materialized_views_draw_from() -> None:
    dumped = [sequence("drawn", 102), sequence("lost", 102), sequence("called", 9), sequence("first", 1, False)]
    dumped += [sequence("down", 5), sequence("down_lost", 5), sequence("cycling", 9), sequence("before", 5, False)]
    found = [sequence("drawn", 104), sequence("lost", 3), sequence("called", 9, False), sequence("first", 1)]
    found += [sequence("down", 3), sequence("down_lost", 6), sequence("cycling", 2), sequence("before", 4)]
    summary = ArchiveSummary(sequences=dumped)
    restored, advanced = Restored({"view": Table(kind="m")}, sequences=found), list[tuple[str, str]]()
    differ = [name for name, _ in compare_sequences(restored, summary, None, advanced=advanced)]
    assert differ == ["public.lost", "public.called", "public.down_lost", "public.before"]
    assert advanced == [
        ("public.drawn", "has value 104, expected 102"),
        ("public.first", "is_called is True, expected False"),
        ("public.down", "has value 3, expected 5"),
        ("public.cycling", "has value 2, expected 9"),
    ]
    restored, advanced = Restored({"view": Table(kind="m", populated=False)}, sequences=found), []
    assert len(list(compare_sequences(restored, summary, None, advanced=advanced))) == len(found)
    assert advanced == []


def test_sequences_without_a_value_in_the_dump() -> None:
    values = [sequence(name, 1) for name in ("dumped", "lost", "elsewhere")]
    restored = Restored(
        {
            "a_table": Table(),
            "of_extension": Table(kind="S", of_extension=True),
            "unlogged": Table(kind="S", unlogged=True),
        },
        sequences=values,
    )
    summary = ArchiveSummary(sequences=[sequence("dumped", 1), sequence("elsewhere", 1, database="other")])
    assert list(compare_sequences(restored, summary, None)) == []
    assert list(compare_sequences(restored, summary, None, has_value=lambda schema, name: name != "elsewhere")) == [
        ("public.lost", "has no value in the dump"),
    ]


def test_materialized_views_that_differ() -> None:
    restored = Restored(
        {
            "full": Table(kind="m"),
            "empty": Table(kind="m", populated=False),
            "lost": Table(kind="m", populated=False),
            "filled": Table(kind="m"),
            "of_extension": Table(kind="m", of_extension=True),
            "a_table": Table(),
        }
    )
    summary = ArchiveSummary(
        refreshed={
            *((None, "public", name) for name in ("full", "lost", "missing")),
            ("other", "public", "empty"),
        }
    )
    assert list(compare_materialized_views(restored, summary, None)) == [
        ("public.filled", "has data, but was dumped WITH NO DATA"),
        ("public.lost", "has no data after the restore"),
    ]


def large_objects(database: str | None = None, **contents: bytes) -> LargeObjects:
    made = LargeObjects(database)
    for name, content in contents.items():
        made.add(int(name[1:]), len(content), hashlib.sha256(content).digest())
    return made


def test_large_objects_that_differ() -> None:
    found = large_objects(_2=b"same", _3=b"x" * 1234, _10=b"new")
    summary = ArchiveSummary(
        large_objects=[
            large_objects("other", _2=b"same", _3=b"x" * 1234, _10=b"new"),
            large_objects("app", _1=b"lost", _2=b"same", _3=b"y" * 5678),
        ]
    )
    restored = Restored({}, large_objects=found)
    assert list(compare_large_objects(restored, summary, "app")) == [
        ("1", "is missing after the restore"),
        ("3", "content differs: found 1,234 bytes, expected 5,678 bytes"),
        ("10", "exists after the restore, but was not dumped"),
    ]
    assert list(compare_large_objects(restored, summary, "other")) == []
    assert [oid for oid, _ in compare_large_objects(restored, summary, None)] == ["2", "3", "10"]
    assert list(compare_large_objects(Restored({}), summary, None)) == []


def test_no_more_tables_are_read_at_the_same_time_than_the_server_has_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"t{number}": "x" * (1 << 17) + "\n" for number in range(12)}
    lock, now, most = threading.Lock(), 0, 0

    class Counting(Restored):
        def read(self, rows: Rows, take: Callable[[bytes], object]) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.05)
            super().read(rows, take)
            with lock:
                now -= 1

    restored = Counting({name: Table(text) for name, text in texts.items()}, sessions=3)
    archive = Archive(texts)
    monkeypatch.setattr(comparison, "usable_processors", lambda: 64)
    assert {each.result for each in compare_tables(restored, archive.tables(), archive.row_sets)} == {"same"}
    assert most <= 3
