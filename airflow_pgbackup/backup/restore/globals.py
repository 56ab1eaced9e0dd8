"""Restore the global objects of a pg_dumpall dump: roles with their settings and memberships, and tablespaces.

Roles and tablespaces that exist on the server are not changed. An unmodified pg_dumpall script would fail at CREATE
ROLE of the server's own superuser, and then change its password to that of another server.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import psycopg

from airflow_pgbackup.backup.databases.server_info import ServerInfo
from airflow_pgbackup.backup.databases.sessions import Session, fetch_value
from airflow_pgbackup.backup.restore.grantors import make_grant
from airflow_pgbackup.backup.restore.unprivileged import (
    granted_by_user,
    may_be_refused,
    reserved_attributes,
    without_defaults,
)
from airflow_pgbackup.errors import RestoreError
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.connection.server_errors import server_message
from airflow_pgbackup.postgres.definitions.identifiers import IDENTIFIER, quoted, unquoted
from airflow_pgbackup.postgres.definitions.memberships import Membership, in_order_of_grantors
from airflow_pgbackup.postgres.definitions.passed_on import PassedOnGrant, with_grantors
from airflow_pgbackup.postgres.definitions.transaction_control import check_statements
from airflow_pgbackup.postgres.sql.anybytes import encoded
from airflow_pgbackup.wording import parameter

_BOOTSTRAP_OID = 10  # BOOTSTRAP_SUPERUSERID

_ADMINS = """
SELECT r.rolname, m.rolname
  FROM pg_catalog.pg_auth_members AS a
  JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.roleid
  JOIN pg_catalog.pg_roles AS m ON m.oid OPERATOR(pg_catalog.=) a.member
 WHERE a.admin_option
"""

_CREATE_ROLE = re.compile(rf"CREATE ROLE ({IDENTIFIER});")
_ABOUT_ROLE = re.compile(
    rf"(?:ALTER ROLE |COMMENT ON ROLE |SECURITY LABEL FOR {IDENTIFIER} ON ROLE )({IDENTIFIER})[ ;]"
)
_CREATE_TABLESPACE = re.compile(rf"CREATE TABLESPACE ({IDENTIFIER}) ")
_ABOUT_TABLESPACE = re.compile(
    rf"(?:ALTER TABLESPACE |COMMENT ON TABLESPACE |SECURITY LABEL FOR {IDENTIFIER} ON TABLESPACE "
    rf"|(?:GRANT|REVOKE) [A-Z, ]+ ON TABLESPACE )({IDENTIFIER})[ ;]"
)
_PARAMETER = re.compile(
    rf"(?:GRANT|REVOKE) [A-Z, ]+ ON PARAMETER [^ ]+ (?:TO|FROM) ({IDENTIFIER})(?: WITH GRANT OPTION)?;"
)
_PASSWORD = re.compile(rf"ALTER ROLE ({IDENTIFIER}) WITH [^']*?(PASSWORD '(?:[^']|'')*').*")
_LOGIN = re.compile(rf"ALTER ROLE ({IDENTIFIER}) WITH (?:[A-Z]+ )*LOGIN[ ;]")
_SUPERUSER = re.compile(rf"ALTER ROLE {IDENTIFIER} WITH SUPERUSER ")
_REFUSED = (
    "Connect as a superuser: a role with CREATEROLE may not set all attributes of a role, nor grant every membership. "
    "Or create the missing roles and tablespaces yourself first: those that exist are not changed."
)
_SKIPPED = ("SET ", "RESET ", "DROP ", "SELECT pg_catalog.set_config")
_SECRET = re.compile(r"'(?:[^']|'')*'")


@dataclass
class GlobalsPlan:
    """The global objects to create.

    :ivar created: roles to create.
    :ivar existing: roles that exist and are not changed, except for their password if they are in `passwords`.
    :ivar superusers: those of `created` that are superusers.
    :ivar tablespaces: tablespaces to create.
    :ivar existing_tablespaces: tablespaces that exist and are not changed.
    :ivar without_password: those of `created` that may log in, if the dump has no password of any role.
    :ivar refusable: what the server may refuse to the user of the connection, who is not a superuser.
    :ivar other_grantors: memberships whose grantor in the dump may not grant them on this server.
    """

    created: list[str] = field(default_factory=list)
    existing: list[str] = field(default_factory=list)
    superusers: list[str] = field(default_factory=list)
    tablespaces: list[str] = field(default_factory=list)
    existing_tablespaces: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    without_password: list[str] = field(default_factory=list)
    refusable: list[str] = field(default_factory=list)
    other_grantors: list[str] = field(default_factory=list)
    role_statements: list[str | PassedOnGrant] = field(default_factory=list, repr=False)
    tablespace_statements: list[str | PassedOnGrant] = field(default_factory=list, repr=False)

    def lines(self, *, done: bool = False) -> list[str]:
        """Return lines for the log: what is to be created, or was created if that is done."""
        created = " created" if done else " to create"
        found = []
        for what, new, old in (
            ("roles", self.created, self.existing),
            ("tablespaces", self.tablespaces, self.existing_tablespaces),
        ):
            if new:
                found.append(f"{what}{created}: {', '.join(new)}")
            if kept := [name for name in old if what != "roles" or name not in self.passwords]:
                found.append(f"existing {what}, not changed: {', '.join(kept)}")
        if self.superusers:
            found.append(f"superusers among the new roles: {', '.join(self.superusers)}")
        if self.without_password:
            found.append(f"roles{created} without a password: {', '.join(self.without_password)}")
        if self.passwords:
            found.append(f"existing roles whose password is set to that of the backup: {', '.join(self.passwords)}")
        if self.other_grantors:
            found.append(
                "warning: memberships whose grantor may not grant them on this server, so they get another grantor: "
                + ", ".join(self.other_grantors)
            )
        if self.refusable and not done:
            found.append(
                f"warning: the user is not a superuser, so the server may refuse this: {'; '.join(self.refusable)}"
            )
        return found


def plan_globals(
    statements: Sequence[str],
    server: ServerInfo,
    *,
    bootstrap: str,
    tablespaces: bool = True,
    update_passwords: bool = False,
    admins: Collection[tuple[str, str]] = (),
) -> GlobalsPlan:
    """Return the statements to run on a server, chosen by the names of the objects.

    :param statements: the statements of a pg_dumpall script before its first database.
    :param bootstrap: the server's bootstrap superuser, see :func:`bootstrap_user`.
    :param tablespaces: False skips tablespaces.
    :param update_passwords: set the passwords of existing roles, except that of the connection's role.
    :param admins: roles of the server with their members that have the ADMIN option, see :func:`admin_members`.
    :raises VerificationFailed: a statement would end the transaction in which the roles are created.
    """
    check_statements(statements)
    plan = GlobalsPlan()
    has_passwords = any(map(_PASSWORD.match, statements))
    dumped = {(each.role, each.member) for each in filter(None, map(Membership.parse, statements)) if each.admin}
    # a membership between two existing roles is not granted, so the server's own state counts for it
    here = {*admins, *(pair for pair in dumped if set(pair) - server.roles)}
    memberships: list[str] = []
    others: list[str | PassedOnGrant] = []  # which may need a membership
    for found in with_grantors(statements):
        statement = found.statement if isinstance(found, PassedOnGrant) else found
        if statement.startswith(_SKIPPED):
            continue
        if match := _CREATE_ROLE.match(statement):
            name = unquoted(match[1])
            (plan.existing if name in server.roles else plan.created).append(name)
            if name not in server.roles:
                plan.role_statements.append(statement)
        elif match := _ABOUT_ROLE.match(statement):
            name = unquoted(match[1])
            if name not in server.roles:
                plan.role_statements.append(statement if server.superuser else without_defaults(statement))
                plan.refusable += [f"{each} of {name}" for each in reserved_attributes(statement)]
                if _SUPERUSER.match(statement):
                    plan.superusers.append(name)
                if not has_passwords and _LOGIN.match(statement):
                    plan.without_password.append(name)
            elif update_passwords and name != server.user and (password := _PASSWORD.fullmatch(statement)):
                plan.passwords.append(name)
                plan.role_statements.append(f"ALTER ROLE {password[1]} WITH {password[2]};")
        elif membership := Membership.parse(statement):
            if {membership.role, membership.member} - server.roles:
                if not server.superuser:
                    memberships += filter(None, [granted_by_user(membership, server)])
                    if may_be_refused(membership, server, admins):
                        plan.refusable.append(f"{membership.member} in {membership.role}")
                    continue
                memberships.append(_grant(membership, here, bootstrap))
                pair = membership.role, membership.grantor
                if pair in dumped - here and pair[1] != bootstrap:
                    plan.other_grantors.append(f"{membership.member} in {pair[0]}, granted by {pair[1]}")
        elif match := _PARAMETER.fullmatch(statement):
            if unquoted(match[1]) not in server.roles:
                others.append(found)
                plan.refusable.append(f"privileges of {unquoted(match[1])} for parameters")
        elif match := _CREATE_TABLESPACE.match(statement):
            _add_tablespace(plan, unquoted(match[1]), statement, server, wanted=tablespaces)
        elif match := _ABOUT_TABLESPACE.match(statement):
            if tablespaces and unquoted(match[1]) not in server.tablespaces:
                plan.tablespace_statements.append(found)
        else:
            others.append(found)
    plan.role_statements += in_order_of_grantors(memberships, admins=admins, free=[bootstrap])
    plan.role_statements += others
    plan.refusable += [f"tablespace {name}" for name in plan.tablespaces]
    plan.refusable = [] if server.superuser else plan.refusable
    return plan


def _grant(membership: Membership, admins: set[tuple[str, str]], bootstrap: str) -> str:
    """Return a GRANT of a membership that this server accepts.

    Since PostgreSQL 16 the grantor must have the ADMIN option, unless it is the bootstrap superuser. A grantor in the
    dump without that option was the bootstrap superuser of the dumped server, whose name may differ here.
    """
    if membership.grantor in ("", bootstrap) or (membership.role, membership.grantor) in admins:
        return membership.statement
    return membership.without_grantor


def _add_tablespace(plan: GlobalsPlan, name: str, statement: str, server: ServerInfo, *, wanted: bool) -> None:
    if name in server.tablespaces:
        plan.existing_tablespaces.append(name)
    elif wanted:
        plan.tablespaces.append(name)
        plan.tablespace_statements.append(statement)


def bootstrap_user(connection: Session) -> str:
    """Return the bootstrap superuser: the role that initdb created."""
    return str(fetch_value(connection, "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = %s", [_BOOTSTRAP_OID]))


def admin_members(connection: Session) -> frozenset[tuple[str, str]]:
    """Return the roles of a server, each with a member that has the ADMIN option."""
    return frozenset((str(role), str(member)) for role, member in connection.execute(_ADMINS))


def apply_globals(
    connection: Session, plan: GlobalsPlan, say: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Create the roles in one transaction, then each tablespace.

    CREATE TABLESPACE cannot run in a transaction. So a tablespace gets its name in one transaction with its options and
    grants. Otherwise, after a kill in between, the next call would take it for an existing one, and leave it as it is.

    :raises RestoreError: a statement failed; the error quotes it without literals, which may be passwords.
    """
    with connection.transaction():
        for statement in plan.role_statements:
            _run(connection, statement, "no roles were created", warn)
    by_name: dict[str, list[str | PassedOnGrant]] = {}
    for statement in plan.tablespace_statements:
        by_name.setdefault(_tablespace(statement), []).append(statement)
    for name, statements in by_name.items():
        _create_tablespace(connection, name, statements, warn)
    for line in plan.lines(done=True):
        say(line)


def _tablespace(statement: str | PassedOnGrant) -> str:
    text = _text(statement)
    match = _CREATE_TABLESPACE.match(text) or _ABOUT_TABLESPACE.match(text)
    return unquoted(match[1]) if match else ""


def _create_tablespace(
    connection: Session, name: str, statements: Sequence[str | PassedOnGrant], warn: Callable[[str], None]
) -> None:
    state = "the roles were created, and the tablespaces before this one"
    temporary = quoted(f"pgbackup_tmp_{hashlib.sha256(encoded(name)).hexdigest()[:16]}")
    create, *others = statements
    connection.execute(encoded(f"DROP TABLESPACE IF EXISTS {temporary}"))  # of a call that was killed
    named = _CREATE_TABLESPACE.sub(lambda _: f"CREATE TABLESPACE {temporary} ", _text(create), count=1)
    _run(connection, named, state, warn)
    try:
        with connection.transaction():
            connection.execute(encoded(f"ALTER TABLESPACE {temporary} RENAME TO {quoted(name)}"))
            for statement in others:
                _run(connection, statement, state, warn)
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            connection.execute(encoded(f"DROP TABLESPACE IF EXISTS {temporary}"))
        raise


def _text(statement: str | PassedOnGrant) -> str:
    return statement.statement if isinstance(statement, PassedOnGrant) else statement


def _run(connection: Session, statement: str | PassedOnGrant, state: str, warn: Callable[[str], None]) -> None:
    try:
        if isinstance(statement, PassedOnGrant):
            make_grant(connection, statement, warn)
        else:
            connection.execute(encoded(statement))
    except psycopg.Error as error:
        head = _SECRET.sub("'…'", _text(statement))[:120]
        hint = _REFUSED if isinstance(error, psycopg.errors.InsufficientPrivilege) else hint_for(str(error))
        if isinstance(error, psycopg.errors.UndefinedFile):
            hint = (
                "Make the directory on the server, owned by the server's system user, or restore with "
                f"{parameter('no_tablespaces', True)}: everything is then put into the default tablespace."
            )
        raise RestoreError(
            f"cannot restore global objects: {server_message(error)}, in: {head}; {state}", hint=hint
        ) from None
