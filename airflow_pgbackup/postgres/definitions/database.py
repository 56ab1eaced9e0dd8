"""The statements of a dump about the database itself, and how to run them for a database of another name.

``CREATE DATABASE``, ``ALTER DATABASE … SET``, ``ALTER ROLE … IN DATABASE``, privileges, comment and security labels
name their database, and pg_restore has no option for another name: ``--create`` restores under the name in the dump. So
these statements are taken out of the dump, and run with the new name. pg_dump writes each of them in one form only
(``dumpDatabase`` in ``pg_dump.c``).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from airflow_pgbackup.postgres.archive.toc import TocEntry
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, quoted, unquoted
from airflow_pgbackup.postgres.definitions.passed_on import GrantorScope, rewritten_grant
from airflow_pgbackup.postgres.sql.anybytes import decoded, encoded
from airflow_pgbackup.postgres.sql.lexer import SqlLexer, Statement

_STATEMENT = re.compile(
    r"(CREATE DATABASE |DROP DATABASE (?:IF EXISTS )?|ALTER DATABASE |COMMENT ON DATABASE "
    rf"|ALTER ROLE {IDENTIFIER} IN DATABASE |SECURITY LABEL FOR {IDENTIFIER} ON DATABASE "
    rf"|(?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE )({IDENTIFIER})(.*)",
    re.DOTALL,
)
_TEMPLATE_FLAG = re.compile(r"UPDATE pg_catalog\.pg_database SET datistemplate = ")
_OWNER = re.compile(rf" OWNER TO ({IDENTIFIER});")
_ROLE = re.compile(rf"ALTER ROLE ({IDENTIFIER}) IN DATABASE ")
_SETS_ROLE = re.compile(r' SET "?role"? TO ', re.IGNORECASE)
_SESSION = re.compile(r"SET SESSION AUTHORIZATION E?'((?:[^']|'')+)';")
_ENCODING = re.compile(r" ENCODING = '([^']*)'")
TIME_ZONE_NAME = r"(?!(?:localtime|posixrules)\b)[A-Za-z0-9_+:,./<>-]{1,100}"
"""A pattern for names of time zones, without those that mean another zone on each machine."""
_TIME_ZONE = re.compile(rf" SET \"?timezone\"? TO '({TIME_ZONE_NAME})';", re.IGNORECASE)


# Comments by initdb, in dumps of old versions and with --quote-all-identifiers; only the owners may set them.
_PLPGSQL_COMMENT = re.compile(r"COMMENT ON EXTENSION \"?plpgsql\"? IS ")
_PUBLIC_COMMENT = re.compile(r"COMMENT ON SCHEMA \"?public\"? IS 'standard public schema';", re.IGNORECASE)


def is_standard_comment(statement: str, public_exists: bool = True) -> bool:
    """Return whether a statement sets a comment that every new database has already.

    :param public_exists: the database has the schema ``public``.
    """
    return bool(_PLPGSQL_COMMENT.match(statement) or (public_exists and _PUBLIC_COMMENT.match(statement)))


@dataclass(frozen=True)
class DatabaseStatement:
    """A statement about a database itself.

    :param verb: the text before the name of the database, ``ALTER DATABASE`` and a space.
    :param database: the name.
    :param rest: the text after the name.
    :param grantor: of a grant, if that is not the owner but a role with the grant option; otherwise ''.
    """

    verb: str
    database: str
    rest: str
    grantor: str = ""

    @classmethod
    def parse(cls, text: str) -> DatabaseStatement | None:
        """Return the statement; None if it is not about a database itself."""
        if match := _STATEMENT.match(text):
            return cls(match[1], unquoted(match[2]), match[3])
        if _TEMPLATE_FLAG.match(text):  # by pg_dumpall --clean, before it drops a template
            return cls("UPDATE", "", "")
        return None

    def made_by(self, grantor: str) -> DatabaseStatement:
        """Return a grant as that of a role."""
        rewritten = self.parse(rewritten_grant(self.about(self.database)))
        assert rewritten is not None  # noqa: S101  it is a grant on a database still
        return replace(rewritten, grantor=grantor)

    def about(self, database: str) -> str:
        """Return the SQL for a database of another name."""
        return f"{self.verb}{quoted(database)}{self.rest}"

    def texts(self) -> tuple[str, str]:
        """Return the SQL with the name quoted, and as pg_dump writes most names."""
        return self.about(self.database), f"{self.verb}{self.database}{self.rest}"

    @property
    def creates(self) -> bool:
        """It is ``CREATE DATABASE``."""
        return self.verb == "CREATE DATABASE "

    @property
    def owner(self) -> str | None:
        """The owner that ``ALTER DATABASE … OWNER TO`` sets; None for another statement."""
        match = _OWNER.match(self.rest) if self.verb == "ALTER DATABASE " else None
        return match and unquoted(match[1])

    @property
    def is_setting(self) -> bool:
        """It sets a default of a configuration parameter for sessions in the database, except their role.

        A restore must run with these settings, but as its own user.
        """
        return self.verb.startswith("ALTER ") and self.rest.startswith(" SET ") and not _SETS_ROLE.match(self.rest)

    @property
    def role(self) -> str | None:
        """The role whose default ``ALTER ROLE … IN DATABASE`` sets; None for another statement."""
        match = _ROLE.match(self.verb)
        return match and unquoted(match[1])

    @property
    def is_description(self) -> bool:
        """It sets a comment or security label."""
        return self.verb.startswith(("COMMENT ", "SECURITY "))

    @property
    def removes(self) -> bool:
        """Whether it drops an existing database, or prepares for that; a new database does not need it."""
        return self.verb.startswith("DROP ") or self.verb == "UPDATE"


def session_owner(statement: str) -> str | None:
    """Return the role of a ``SET SESSION AUTHORIZATION`` before the objects that it owns; None for another statement.

    pg_dump writes them with ``--use-set-session-authorization``, and quotes the role as a string (_doSetSessionAuth).
    """
    match = _SESSION.fullmatch(statement)
    return match and match[1].replace("''", "'")


class DatabaseStatements:
    """Collect the statements about a database itself from a script or an archive entry.

    :ivar found: them, in the order of the dump.
    :ivar creator: the role that creates the database, with ``--use-set-session-authorization``.
    :ivar session: the role that the last such statement set.
    """

    def __init__(self) -> None:
        self.found: list[DatabaseStatement] = []
        self.creator: str | None = None
        self.session: str | None = None
        self._scope = GrantorScope()

    def add(self, text: str, about: DatabaseStatement | None) -> None:
        """Take the next statement.

        :param about: the statement, if it is about a database itself.
        """
        if ended := self._scope.follow(text, len(self.found)):
            role, first = ended
            self.found[first:] = [grant.made_by(role) for grant in self.found[first:]]
        if text.startswith("SET SESSION AUTHORIZATION "):
            self.session = session_owner(text)
        if about:
            self.found.append(about)
            if about.creates:
                self.creator = self.session

    def add_other(self) -> None:
        """Take what is not such a statement, such as rows of a table."""
        self._scope.leave()


@dataclass(frozen=True)
class DatabaseProperties:
    """The properties of a database itself: how it was created, its owner, settings, privileges, comment and labels.

    :param name: of the database; '' if the dump has no CREATE DATABASE.
    :param create: the CREATE DATABASE statement.
    :param owner: None if the dump does not set one.
    :param statements: all others, in the order of the dump.
    """

    name: str = ""
    create: DatabaseStatement | None = None
    owner: str | None = None
    statements: tuple[DatabaseStatement, ...] = ()

    @classmethod
    def of_entries(cls, entries: Iterable[TocEntry]) -> DatabaseProperties:
        """Return the properties in an archive, which only ``pg_restore --create`` would restore."""
        found = DatabaseStatements()
        owner = None
        for entry in entries:
            about_it = entry.kind in ("DATABASE", "DATABASE PROPERTIES") or (
                entry.kind in ("ACL", "COMMENT", "SECURITY LABEL") and entry.schema is None
            )
            if about_it:
                found.add_other()
                for text in statements(entry.definition):
                    found.add(text, DatabaseStatement.parse(text))
            if entry.kind == "DATABASE":
                owner = entry.owner or None
        return cls.of_statements(found.found, owner=owner)

    @classmethod
    def of_statements(cls, found: Iterable[DatabaseStatement], *, owner: str | None = None) -> DatabaseProperties:
        """Return the properties that statements of a script set."""
        found = [statement for statement in found if not statement.removes]
        create = next((statement for statement in found if statement.creates), None)
        for statement in found:
            owner = statement.owner or owner
        others = tuple(statement for statement in found if not statement.creates and not statement.owner)
        return cls(create.database if create else "", create, owner, others)

    @property
    def encoding(self) -> str | None:
        """The ENCODING of the CREATE DATABASE; None if it has none."""
        match = _ENCODING.search(self.create.rest) if self.create else None
        return match and match[1]

    @property
    def settings(self) -> list[DatabaseStatement]:
        """``ALTER DATABASE … SET`` and ``ALTER ROLE … IN DATABASE … SET``."""
        return [statement for statement in self.statements if statement.is_setting]

    @property
    def time_zone(self) -> str | None:
        """The time zone of sessions in the database; None if the database does not set one."""
        found = (match for each in self.settings if each.role is None and (match := _TIME_ZONE.fullmatch(each.rest)))
        return next((match[1] for match in found), None)

    @property
    def descriptions(self) -> list[DatabaseStatement]:
        """Comment and security labels, which grant no access."""
        return [statement for statement in self.statements if statement.is_description]

    @property
    def access(self) -> list[DatabaseStatement]:
        """Privileges, the connection limit, the role of sessions: what is neither a setting nor a description."""
        return [each for each in self.statements if not (each.is_setting or each.is_description)]

    def changes(self) -> list[DatabaseStatement]:
        """Return the statements that give a database these properties, if it exists already."""
        owner = (
            [DatabaseStatement("ALTER DATABASE ", self.name, f" OWNER TO {quoted(self.owner)}")] if self.owner else []
        )
        return owner + list(self.statements)

    def without(self, *, privileges: bool = False, comments: bool = False, labels: bool = False) -> DatabaseProperties:
        """Return a copy without what the options of a restore exclude."""
        unwanted = ("GRANT ", "REVOKE ") * privileges + ("COMMENT ",) * comments + ("SECURITY ",) * labels
        kept = tuple(s for s in self.statements if not s.verb.startswith(unwanted))
        return DatabaseProperties(self.name, self.create, self.owner, kept)

    def without_role(self, role: str) -> DatabaseProperties:
        """Return a copy without the settings of a role."""
        return replace(self, statements=tuple(each for each in self.statements if each.role != role))


def statements(definition: str) -> Iterator[str]:
    """Yield the statements in the definition of an archive entry."""
    source = io.BytesIO(encoded(definition) + b"\n")
    for event in SqlLexer(source):
        if isinstance(event, Statement):
            yield decoded(event.text)
