"""What the databases of a cluster share, out of a dump by pg_dumpall: roles and their settings, tablespaces.

What the server has already is left as it is, by its name: pg_dumpall's script would stop at the first CREATE ROLE of
the server's own superuser, and then give that one the password of another server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_value, server_message
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.definitions.database import IDENTIFIER, unquoted
from airflow_pgbackup.postgres.sql.anybytes import encoded

_BOOTSTRAP_OID = 10  # BOOTSTRAP_SUPERUSERID

_CREATE_ROLE = re.compile(rf"CREATE ROLE ({IDENTIFIER});")
_ABOUT_ROLE = re.compile(
    rf"(?:ALTER ROLE |COMMENT ON ROLE |SECURITY LABEL FOR {IDENTIFIER} ON ROLE )({IDENTIFIER})[ ;]"
)
_MEMBER = re.compile(
    rf"GRANT (?P<role>{IDENTIFIER}) TO (?P<member>{IDENTIFIER})(?P<how> WITH .*?)?(?P<by> GRANTED BY ({IDENTIFIER}))?;"
)
_CREATE_TABLESPACE = re.compile(rf"CREATE TABLESPACE ({IDENTIFIER}) ")
_ABOUT_TABLESPACE = re.compile(
    rf"(?:ALTER TABLESPACE |COMMENT ON TABLESPACE |SECURITY LABEL FOR {IDENTIFIER} ON TABLESPACE "
    rf"|(?:GRANT|REVOKE) [A-Z, ]+ ON TABLESPACE )({IDENTIFIER})[ ;]"
)
_PARAMETER = re.compile(
    rf"(?:GRANT|REVOKE) [A-Z, ]+ ON PARAMETER [^ ]+ (?:TO|FROM) ({IDENTIFIER})(?: WITH GRANT OPTION)?;"
)
_LEFT_OUT = ("SET ", "DROP ", "SELECT pg_catalog.set_config")
_SECRET = re.compile(r"'(?:[^']|'')*'")


@dataclass
class GlobalsPlan:
    """What will be run.

    :ivar created: roles. :ivar existing: roles that are there and stay as they are.
    :ivar tablespaces: to be created. :ivar existing_tablespaces: that are there and stay.
    """

    created: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    tablespaces: list[str] = field(default_factory=list)
    existing_tablespaces: list[str] = field(default_factory=list)
    role_statements: list[str] = field(default_factory=list, repr=False)
    tablespace_statements: list[str] = field(default_factory=list, repr=False)

    def lines(self) -> list[str]:
        """For people."""
        found = []
        for what, new, old in (
            ("roles", self.created, self.existing),
            ("tablespaces", self.tablespaces, self.existing_tablespaces),
        ):
            if new:
                found.append(f"{what} to create: {', '.join(new)}")
            if old:
                found.append(f"{what} that exist and stay as they are: {', '.join(old)}")
        return found


def plan_globals(
    statements: Sequence[str], server: ServerInfo, *, bootstrap: str, tablespaces: bool = True
) -> GlobalsPlan:
    """Decide, by names.

    :param statements: those of a pg_dumpall script before its first database.
    :param bootstrap: the superuser that this server was made with.
    :param tablespaces: False leaves them out.
    """
    plan = GlobalsPlan()
    admins = {
        (match["role"], match["member"])
        for match in filter(None, map(_MEMBER.fullmatch, statements))
        if "ADMIN OPTION" in (match["how"] or "") or "ADMIN TRUE" in (match["how"] or "")
    }
    for statement in statements:
        if statement.startswith(_LEFT_OUT):
            continue
        if match := _CREATE_ROLE.match(statement):
            name = unquoted(match[1])
            (plan.existing if name in server.roles else plan.created).append(name)
            if name not in server.roles:
                plan.role_statements.append(statement)
        elif match := _ABOUT_ROLE.match(statement):
            if unquoted(match[1]) not in server.roles:
                plan.role_statements.append(statement)
        elif match := _MEMBER.fullmatch(statement):
            if {unquoted(match["role"]), unquoted(match["member"])} - server.roles:
                plan.role_statements.append(_grant(match, admins, bootstrap))
        elif match := _PARAMETER.fullmatch(statement):
            if unquoted(match[1]) not in server.roles:
                plan.role_statements.append(statement)
        elif match := _CREATE_TABLESPACE.match(statement):
            _add_tablespace(plan, unquoted(match[1]), statement, server, wanted=tablespaces)
        elif match := _ABOUT_TABLESPACE.match(statement):
            if tablespaces and unquoted(match[1]) not in server.tablespaces:
                plan.tablespace_statements.append(statement)
        else:
            plan.role_statements.append(statement)
    return plan


def _grant(match: re.Match[str], admins: set[tuple[str, str]], bootstrap: str) -> str:
    """A membership as this server can take it.

    Since PostgreSQL 16 whoever grants must hold the ADMIN option, but for the superuser that a server was made with;
    who in the dump has granted without holding it was that one, and is called otherwise here.
    """
    grantor = match[5]
    if grantor is None or unquoted(grantor) == bootstrap or (match["role"], grantor) in admins:
        return match[0]
    return f"GRANT {match['role']} TO {match['member']}{match['how'] or ''};"


def _add_tablespace(plan: GlobalsPlan, name: str, statement: str, server: ServerInfo, *, wanted: bool) -> None:
    if name in server.tablespaces:
        plan.existing_tablespaces.append(name)
    elif wanted:
        plan.tablespaces.append(name)
        plan.tablespace_statements.append(statement)


def bootstrap_user(connection: Session) -> str:
    return str(fetch_value(connection, "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = %s", [_BOOTSTRAP_OID]))


def apply_globals(connection: Session, plan: GlobalsPlan, say: Callable[[str], None]) -> None:
    """Run it: roles all or none; then tablespaces, one by one, as PostgreSQL makes them in no transaction.

    :raises RestoreError: a statement failed; its text is not told where it could hold a secret.
    """
    with connection.transaction():
        for statement in plan.role_statements:
            _run(connection, statement, "no role was created")
    for statement in plan.tablespace_statements:
        _run(connection, statement, "the roles are created, and those tablespaces that came before")
    for line in plan.lines():
        say(line.replace(" to create:", " created:"))


def _run(connection: Session, statement: str, state: str) -> None:
    try:
        connection.execute(encoded(statement))
    except psycopg.Error as error:
        head = _SECRET.sub("'…'", statement)[:120]
        raise RestoreError(
            f"the globals cannot be restored: {server_message(error)}, in: {head}; {state}", hint=hint_for(str(error))
        ) from None
