"""What a dump says about its database itself, and the same said about a database of another name.

``CREATE DATABASE``, ``ALTER DATABASE … SET``, ``ALTER ROLE … IN DATABASE``, privileges, comment and security labels
name the database they belong to, and pg_restore has no option for another name: ``--create`` restores under the dump's
own. So these statements, each in the one form in which pg_dump writes it (``dumpDatabase`` in ``pg_dump.c``), are taken
out of the dump, and run by us with the name put in.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.sql.anybytes import decoded, encoded
from airflow_pgbackup.postgres.sql.lexer import SqlLexer, Statement

# As fmtId() writes names: what is not all lower case, or is a keyword, in quotes.
IDENTIFIER = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_STATEMENT = re.compile(
    r"(CREATE DATABASE |DROP DATABASE (?:IF EXISTS )?|ALTER DATABASE |COMMENT ON DATABASE "
    rf"|ALTER ROLE {IDENTIFIER} IN DATABASE |SECURITY LABEL FOR {IDENTIFIER} ON DATABASE "
    rf"|(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE )({IDENTIFIER})(.*)",
    re.DOTALL,
)
_TEMPLATE_FLAG = re.compile(r"UPDATE pg_catalog\.pg_database SET datistemplate = ")
_OWNER = re.compile(rf" OWNER TO ({IDENTIFIER});")
_ENCODING = re.compile(r" ENCODING = '([^']*)'")


# What initdb wrote, repeated by dumps of old versions and by --quote-all-identifiers; only their owners may set it.
_PLPGSQL_COMMENT = re.compile(r"COMMENT ON EXTENSION \"?plpgsql\"? IS ")
_PUBLIC_COMMENT = re.compile(r"COMMENT ON SCHEMA \"?public\"? IS 'standard public schema';", re.IGNORECASE)


def is_standard_comment(statement: str, public_exists: bool = True) -> bool:
    """A comment that every new database has already."""
    return bool(_PLPGSQL_COMMENT.match(statement) or (public_exists and _PUBLIC_COMMENT.match(statement)))


def unquoted(identifier: str) -> str:
    """The name that an identifier as :data:`IDENTIFIER` stands for."""
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class DatabaseStatement:
    """A statement about a database as a whole.

    :ivar verb: its beginning up to the database's name, ``ALTER DATABASE`` and a space.
    :ivar database: that name.
    :ivar rest: what follows the name.
    """

    verb: str
    database: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> DatabaseStatement | None:
        """None for any other statement."""
        if match := _STATEMENT.match(text):
            return cls(match[1], unquoted(match[2]), match[3])
        if _TEMPLATE_FLAG.match(text):  # of pg_dumpall --clean, before it drops a template
            return cls("UPDATE", "", "")
        return None

    def about(self, database: str) -> str:
        """The statement for a database of another name."""
        return f"{self.verb}{quoted(database)}{self.rest}"

    @property
    def creates(self) -> bool:
        return self.verb == "CREATE DATABASE "

    @property
    def owner(self) -> str | None:
        match = _OWNER.match(self.rest) if self.verb == "ALTER DATABASE " else None
        return match and unquoted(match[1])

    @property
    def is_setting(self) -> bool:
        """A setting that sessions in the database begin with."""
        return self.verb.startswith("ALTER ") and self.rest.startswith(" SET ")

    @property
    def removes(self) -> bool:
        """Makes way for what it then creates anew: nothing to do for a database that is new anyway."""
        return self.verb.startswith("DROP ") or self.verb == "UPDATE"


@dataclass(frozen=True)
class DatabaseProperties:
    """A database as a whole: how it was created, and what belongs to it beside its objects.

    :ivar name: its own; '' where the dump has no CREATE DATABASE.
    :ivar create: the CREATE DATABASE.
    :ivar owner: None where the dump does not say.
    :ivar statements: the others, in the order of the dump.
    """

    name: str = ""
    create: DatabaseStatement | None = None
    owner: str | None = None
    statements: tuple[DatabaseStatement, ...] = ()

    @classmethod
    def of_entries(cls, entries: Iterable[TocEntry]) -> DatabaseProperties:
        """Those that an archive keeps; only ``pg_restore --create`` would restore them."""
        found: list[DatabaseStatement] = []
        owner = None
        for entry in entries:
            about_it = entry.kind in ("DATABASE", "DATABASE PROPERTIES") or (
                entry.kind in ("ACL", "COMMENT", "SECURITY LABEL") and entry.schema is None
            )
            if about_it:
                found += filter(None, map(DatabaseStatement.parse, statements(entry.definition)))
            if entry.kind == "DATABASE":
                owner = entry.owner or None
        return cls.of_statements(found, owner=owner)

    @classmethod
    def of_statements(cls, found: Iterable[DatabaseStatement], *, owner: str | None = None) -> DatabaseProperties:
        found = [statement for statement in found if not statement.removes]
        create = next((statement for statement in found if statement.creates), None)
        for statement in found:
            owner = statement.owner or owner
        others = tuple(statement for statement in found if not statement.creates and not statement.owner)
        return cls(create.database if create else "", create, owner, others)

    @property
    def encoding(self) -> str | None:
        match = _ENCODING.search(self.create.rest) if self.create else None
        return match and match[1]

    @property
    def settings(self) -> list[DatabaseStatement]:
        """``ALTER DATABASE … SET`` and ``ALTER ROLE … IN DATABASE … SET``."""
        return [statement for statement in self.statements if statement.is_setting]

    @property
    def others(self) -> list[DatabaseStatement]:
        """Privileges, comment, security labels, connection limit."""
        return [statement for statement in self.statements if not statement.is_setting]

    def without(self, *, privileges: bool = False, comments: bool = False, labels: bool = False) -> DatabaseProperties:
        """Less what the options of a restore leave out."""
        unwanted = ("GRANT ", "REVOKE ") * privileges + ("COMMENT ",) * comments + ("SECURITY ",) * labels
        kept = tuple(s for s in self.statements if not s.verb.startswith(unwanted))
        return DatabaseProperties(self.name, self.create, self.owner, kept)


def statements(definition: str) -> Iterator[str]:
    """The single statements of an entry's definition."""
    source = io.BytesIO(encoded(definition) + b"\n")
    for event in SqlLexer(source):
        if isinstance(event, Statement):
            yield decoded(event.text)
