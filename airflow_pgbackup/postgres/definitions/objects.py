"""The definitions in a dump by object, and a comparison of those in two dumps.

An archive has them in its table of contents. A plain dump has a comment before the statements of each object:
``-- Name: film; Type: TABLE; Schema: public; Owner: app``. A rehearsal compares a dump with the dump of its own
restore, made with the same options.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest

from airflow_pgbackup.byte_streams import Readable
from airflow_pgbackup.postgres.archive.script_headers import object_header
from airflow_pgbackup.postgres.archive.toc import SETTING_KINDS, TocEntry, is_about
from airflow_pgbackup.postgres.definitions.expressions import as_restored, differ_only_in_hidden_names
from airflow_pgbackup.postgres.sql.lexer import Comment, MetaCommand, SqlLexer, Statement
from airflow_pgbackup.postgres.sql.names import NameDecoder, client_encoding, connected_database
from airflow_pgbackup.quantities import counted

_DATA_KINDS = SETTING_KINDS | {"TABLE DATA", "BLOBS", "SEQUENCE SET", "STATISTICS DATA", "MATERIALIZED VIEW DATA"}
"""Not definitions: rows and values, which are compared separately."""

_WITHOUT_ORDER = frozenset({"ACL", "DEFAULT ACL", "BLOB METADATA", "DATABASE PROPERTIES"})
_IN_ANY_ORDER = frozenset({"TABLE", "FOREIGN TABLE"}) | _WITHOUT_ORDER
"""Inheritance may change the order of columns, and a list of privileges has no order."""

_WITH_COLUMN_LIST = frozenset({"PUBLICATION TABLE", "STATISTICS"})
"""They list columns in the order of the table."""

_TABLES = ("TABLE", "FOREIGN TABLE")
_NUMBERED_NOT_NULL = re.compile(r' CONSTRAINT (?:"(?:[^"]|"")*_not_null\d+"|\w+_not_null\d+) NOT NULL')

_PARTS = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "COMMENT",
        "CONSTRAINT",
        "DEFAULT",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "SECURITY LABEL",
        "SEQUENCE OWNED BY",
        "TABLE ATTACH",
        "TRIGGER",
    }
)
"""They have no owner of their own: the object that they are part of has one."""

_QUOTABLE = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "CONSTRAINT",
        "EXTENSION",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "SCHEMA",
        "SEQUENCE",
        "SEQUENCE OWNED BY",
        "TABLE",
        "TABLE ATTACH",
        "TRIGGER",
        "TYPE",
    }
)
"""Kinds whose definitions may be logged. User mappings, subscriptions and functions may contain passwords."""

_DUMP_ENDS = b"-- PostgreSQL database dump complete"
_SETTING = (b"SET", b"SELECT")
_LARGE_OBJECTS = frozenset({"BLOB", "BLOB METADATA"})
_ABOUT_LARGE_OBJECT = re.compile(
    r"(SELECT|ALTER|COMMENT|GRANT|REVOKE)(?: pg_catalog\.lo_create\('|[A-Z, ]* LARGE OBJECT )(\d+)\b"
)
_LARGE_OBJECT_VERBS = {"SELECT": "LARGE OBJECT", "ALTER": "LARGE OBJECT", "COMMENT": "COMMENT"}
_MONEY = re.compile(r"""'[^']*'::(?:money\b|"money")""")
_OF_SETTINGS = re.compile(
    r"""'[^']*'::(?:"?money\b"?|"?bytea\b"?|"?tstz(?:multi)?range\b"?|time(?:stamp)?(?:\(\d\))? with time zone)"""
)
# The server does not write the type of a bound: ``FOR VALUES FROM ('$1.00') TO ('$2.00')``
_BOUNDS = re.compile(r" FOR VALUES .*", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_LOCATION = re.compile(r" LOCATION E?'(?:[^']|'')*';\Z")
# The part of a global statement before its value: ``ALTER ROLE app SET work_mem`` of ``… TO '1GB';``
_BEFORE_VALUE = re.compile(r"(.*? SET \S+(?= TO )|.*?(?= WITH | PASSWORD | IS (?:E?'|NULL)| OWNER )|.*)", re.DOTALL)

Key = tuple[str | None, str, str | None, str]
"""Database (in a dump of a cluster; otherwise None), kind, schema, name."""


@dataclass(frozen=True)
class ObjectDifference:
    """An object that differs between two dumps.

    :param detail: what differs, without anything secret.
    :param added: the object exists after the restore, but was not dumped.
    :param only_money: its definition differs only in values of type money, or of another type that a server writes as
        its settings say.
    """

    database: str | None
    kind: str
    schema: str | None
    name: str
    detail: str
    added: bool = False
    only_money: bool = False

    @property
    def label(self) -> str:
        """The object in messages: ``public.film``."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return f"{self.database}: {name}" if self.database else name


_Definition = tuple[Key, str]

Objects = dict[Key, tuple[str, ...]]
"""The definitions by object, sorted. Overloaded functions share a key in plain dumps, hence more than one."""

OF_PLPGSQL = {
    ("EXTENSION", None, "plpgsql"),
    *(("COMMENT", None, f"EXTENSION {name}") for name in ("plpgsql", '"plpgsql"')),
}
"""What every new database has. pg_dump writes it only where somebody has dropped and created it again."""

_ICU = r"(?:(?<=provider = icu, locale = ')|(?<=deterministic = false, locale = ')|(?<=ICU_LOCALE = '))"
_ICU_LOCALE = re.compile(_ICU + "[^']*")
_OLD_ICU_LOCALE = re.compile(_ICU + "[^']*[_@][^']*")


def toc_objects(entries: Iterable[TocEntry]) -> Objects:
    """Return the definitions in the table of contents of an archive."""
    return _by_key(_definitions(entries))


def toc_digests(entries: Iterable[TocEntry]) -> dict[Key, bytes]:
    """Return a digest of each definition as it stands, with the order of its lines and white space.

    Kinds whose lines have no order in a database, such as lists of privileges, are left out.
    """
    digests: dict[Key, bytes] = {}
    left_out = _DATA_KINDS | _LARGE_OBJECTS | _WITHOUT_ORDER
    for entry in entries:
        if entry.kind not in left_out and not entry.is_about("LARGE OBJECT"):
            key = (None, entry.kind, entry.schema, entry.name)
            text = as_restored(entry.definition).encode(errors="surrogateescape")
            digests[key] = hashlib.sha256(digests.get(key, b"") + text).digest()
    return digests


def unequal(archived: Iterable[TocEntry], restored: Iterable[TocEntry]) -> tuple[Objects, Objects, Counter[str]]:
    """Compare two tables of contents side by side, and hold no definition longer than until its equal is met.

    pg_dump orders the objects of a dump and of its restore alike, so few have to wait.

    :return: the definitions that only the dump has, those that only its restore has, and the number of equal ones by
        kind.
    """
    equal: Counter[str] = Counter()
    waiting: tuple[Counter[_Definition], Counter[_Definition]] = (Counter(), Counter())
    for pair in zip_longest(_definitions(archived), _definitions(restored)):
        for definition, own, other in zip(pair, waiting, reversed(waiting), strict=True):
            if definition is None:
                continue
            if not (met := other.pop(definition, 0)):
                own[definition] += 1
                continue
            if met > 1:
                other[definition] = met - 1
            equal[definition[0][1]] += 1
    only_archived, only_restored = (_by_key(each.elements()) for each in waiting)
    return only_archived, only_restored, equal


def _by_key(definitions: Iterable[_Definition]) -> Objects:
    found: Objects = {}
    more: dict[Key, list[str]] = {}
    for key, text in definitions:
        if found.setdefault(key, first := (text,)) is not first:
            more.setdefault(key, []).append(text)
    for key, texts in more.items():
        found[key] = tuple(sorted([*found[key], *texts]))
    return found


def _definitions(entries: Iterable[TocEntry]) -> Iterator[_Definition]:
    groups: dict[int, list[str]] = {}  # dump ID to names of large objects
    for entry in entries:
        if entry.kind in _DATA_KINDS:
            continue
        kind, names = entry.kind, [entry.name]
        text = f"{entry.definition}\n{_owner(kind, entry.owner)}\ntablespace {entry.tablespace}"
        if kind in _LARGE_OBJECTS:
            # Since 17 one entry covers all with the same owner and privileges, even if the dump has neither.
            kind, text = "LARGE OBJECT", _owner(kind, entry.owner)
            oids = entry.definition.split() if entry.kind == "BLOB METADATA" else names
            names, groups[entry.dump_id] = oids, [f"LARGE OBJECT {oid}" for oid in oids]
        elif entry.is_about("LARGE OBJECT"):
            if entry.name.startswith("LARGE OBJECTS ") and (group := groups.get(next(iter(entry.depends_on), 0))):
                names = group
            text = text.replace(names[0], "LARGE OBJECT")  # the definition of several names the first
        text = _normal(kind, text)
        for name in names:
            yield (None, kind, entry.schema, name), text


def script_objects(source: Readable) -> Objects:
    """Return the definitions in a plain dump by pg_dump or pg_dumpall. COPY data is skipped.

    :raises VerificationFailed: the dump is truncated, or contains what pg_dump never writes.
    """
    decoder = NameDecoder()
    pieces: dict[Key, list[list[str]]] = {}
    database: str | None = None
    current: Key | None = None
    for event in SqlLexer(source):
        if isinstance(event, MetaCommand) and event.name == b"connect":
            database = connected_database(event.argument, decoder)
            current = None
        elif isinstance(event, Comment):
            if event.text == _DUMP_ENDS:
                current = None  # a DROP DATABASE that follows is not part of the last object
            elif header := object_header(decoder.text(event.text)):
                name, kind, schema, owner = header
                if kind in _LARGE_OBJECTS or is_about("LARGE OBJECT", kind, schema, name):
                    current = None  # taken from the statements: a header may cover many large objects
                    continue
                current = (database, kind, schema, name)
                pieces.setdefault(current, []).append([_owner(kind, owner)])
        elif isinstance(event, Statement):
            if event.words[:1] == (b"SET",) and (encoding := client_encoding(event.text)):
                decoder.use(encoding)
            text = decoder.text(event.text)
            if match := _ABOUT_LARGE_OBJECT.match(text):
                kind = _LARGE_OBJECT_VERBS.get(match[1], "ACL")
                key = (database, kind, None, match[2] if kind == "LARGE OBJECT" else f"LARGE OBJECT {match[2]}")
                pieces.setdefault(key, [[]])[0].append(text)
            elif event.words[:1] and event.words[0] in _SETTING:
                continue
            elif current is not None:
                pieces[current][-1].append(text)
            else:
                key = (database, "GLOBAL", None, _short(text))
                pieces.setdefault(key, []).append([_LOCATION.sub(";", text)])
    return {
        key: tuple(sorted(_normal(key[1], "\n".join(texts)) for texts in several))
        for key, several in pieces.items()
        if key[1] not in _DATA_KINDS
    }


def compare_objects(
    archived: Objects,
    restored: Objects,
    *,
    definitions: bool,
    money: Collection[tuple[str | None, str, str]] = (),
    all_settings: bool = False,
) -> Iterator[ObjectDifference]:
    """Yield the objects that differ between a dump and the dump of its restore.

    :param definitions: compare the definitions and not only kinds and names. False if the two dumps were made by, or
        of, different major versions, which write the same definition differently.
    :param money: database, schema and name of the tables with values of type money; the bounds of partitions do not
        show their types.
    :param all_settings: the session of the dump may have had another time zone or bytea_output too.
    """
    for key, texts in archived.items():
        found = restored.get(key)
        if found is None:
            yield _difference(key, "is missing after the restore")
        elif not definitions:
            if len(found) < len(texts):
                yield _difference(key, f"found {len(found)}, expected {len(texts)}")
        elif found != texts and not (_same_icu_locale(texts, found) or same_but_names(key[1], texts, found)):
            bounds = key[1] == "TABLE ATTACH" and (key[0], key[2], key[3]) in money
            constant = _OF_SETTINGS if all_settings else _MONEY
            before, after = (_without_constants(key[1], constant, each, bounds) for each in (texts, found))
            yield replace(_difference(key, _detail(key[1], texts, found)), only_money=before == after)
    if definitions:
        for key in restored.keys() - archived.keys():
            yield _difference(key, "exists after the restore, but was not dumped", added=True)


def without(objects: Objects, keys: Iterable[Key]) -> Objects:
    """Return the objects without some."""
    unwanted = set(keys)
    return {key: texts for key, texts in objects.items() if key not in unwanted}


def _owner(kind: str, owner: str) -> str:
    return "" if kind in _PARTS else f"owner {owner}"


def _normal(kind: str, text: str) -> str:
    text = as_restored(text)
    if kind in _WITH_COLUMN_LIST:
        return "\n".join(sorted(re.split(r"[\s,();]+", text)))
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(sorted(line.removesuffix(",") for line in lines) if kind in _IN_ANY_ORDER else lines)


def changed_lines(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[Counter[str], Counter[str]]:
    """Return the lines that the first differing definition lost, and those that it gained."""
    old, new = (next(iter((one - other).elements()), "").splitlines() for one, other in _both_ways(before, after))
    return Counter(old) - Counter(new), Counter(new) - Counter(old)


def may_show(kind: str) -> bool:
    """Return whether definitions of this kind contain no secrets, and may be shown."""
    return kind in _QUOTABLE


def _same_icu_locale(archived: tuple[str, ...], restored: tuple[str, ...]) -> bool:
    """Return whether definitions differ only in a locale that CREATE writes as a language tag (BCP 47).

    A database that pg_upgrade has taken over from version 15 or older can have the old form, such as ``en_US``.
    """
    old = [_OLD_ICU_LOCALE.sub("", text) for text in archived]
    return old != list(archived) and old == [_ICU_LOCALE.sub("", text) for text in restored]


def same_but_names(kind: str, archived: tuple[str, ...], restored: tuple[str, ...]) -> bool:
    """Return whether definitions differ only in names that the server gave to what had none in the dump.

    These are hidden ones, see :func:`.differ_only_in_hidden_names`, and those of NOT NULL constraints.
    """
    if kind in _TABLES:
        # Since 18, a server numbers the constraint if another table has one of that name, as after CREATE TABLE (LIKE).
        removed, added = changed_lines(archived, restored)
        return len(archived) == len(restored) == 1 and removed == Counter(
            _NUMBERED_NOT_NULL.sub(" NOT NULL", line) for line in added.elements()
        )
    if kind in _IN_ANY_ORDER or len(archived) != len(restored):
        return False  # these have no sub-SELECTs
    before, after = (list((one - other).elements()) for one, other in _both_ways(archived, restored))
    for text in before:
        same = next((each for each in after if differ_only_in_hidden_names(text, each)), None)
        if same is None:
            return False
        after.remove(same)
    return True


def _both_ways(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[tuple[Counter[str], Counter[str]], ...]:
    return (Counter(before), Counter(after)), (Counter(after), Counter(before))


def _without_constants(kind: str, constant: re.Pattern[str], texts: tuple[str, ...], bounds: bool) -> list[str]:
    """Return definitions without some constants; with `bounds`, also without those of partition bounds."""
    found = [constant.sub("constant", text) for text in texts]
    if bounds:
        found = [_BOUNDS.sub(lambda match: _LITERAL.sub("constant", match[0]), text) for text in found]
    return sorted(_normal(kind, text) for text in found)


def _detail(kind: str, archived: tuple[str, ...], restored: tuple[str, ...]) -> str:
    removed, added = changed_lines(archived, restored)
    if not may_show(kind):
        count = max(removed.total(), added.total(), 1)
        return f"its definition differs in {counted(count, 'line')}"
    quote = [f"dumped: {line.strip()[:120]}" for line in list(removed)[:1]]
    quote += [f"restored: {line.strip()[:120]}" for line in list(added)[:1]]
    return "its definition differs: " + "; ".join(quote or ["the order of its lines"])


def _difference(key: Key, detail: str, *, added: bool = False) -> ObjectDifference:
    return ObjectDifference(*key, detail, added)


def _short(statement: str) -> str:
    """Shorten ``ALTER ROLE app WITH …`` to ``ALTER ROLE app``: a name for a statement, without any password."""
    match = _BEFORE_VALUE.match(statement)
    return (match[0] if match else statement).removesuffix(";")[:200]
