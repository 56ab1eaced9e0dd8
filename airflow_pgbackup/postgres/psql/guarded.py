"""Running a script from outside in psql; every such script goes through this module.

Only psql's own parsing of a script counts. psql ends a line at a NUL, and a string according to settings that the
server reports; our lexer can see other commands than psql does. So nothing here relies on an inspection of the script:

* psql is in restricted mode from its first line, by a random key. It then refuses every command but ``\\unrestrict``,
  which needs the key. https://www.postgresql.org/docs/current/app-psql.html, CVE-2025-8714
* The kernel keeps psql from starting processes, because it evaluates backticks in the argument of ``\\unrestrict``.
* psql reads no psqlrc and has no terminal, and :mod:`airflow_pgbackup.postgres.connection.environment` is its complete
  environment. ``:name`` inserts only psql's own variables into SQL. Those of the connection, such as ``:DBNAME``, could
  hold any SQL, so they are removed first; none of the rest holds a semicolon or a secret.

A dump has some commands for good reasons, such as ``\\connect``. They are removed, and their effect is achieved by
other means: see :class:`airflow_pgbackup.postgres.psql.script_filter.ScriptFilter`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from airflow_pgbackup.byte_streams import PrefixedReader, Readable
from airflow_pgbackup.postgres.tools.clients import Client

_KEY_BYTES = 32
_OF_CONNECTION = ("DBNAME", "USER", "HOST", "PORT")


@dataclass(frozen=True)
class GuardedPsql:
    """Arguments for :class:`~airflow_pgbackup.postgres.tools.process.ToolProcess` (``may_start_processes=False``).

    :param argv: the program and its arguments; the connection is in the environment.
    :param stdin: ``\\unset`` for the connection's variables, ``\\restrict`` with a random key, then the script.
    """

    argv: list[str]
    stdin: Readable


def guarded(client: Client, script: Readable, *, single_transaction: bool = False) -> GuardedPsql:
    """Return how to run a script in psql, which stops at the first error.

    :param client: from :func:`airflow_pgbackup.postgres.tools.client_choice.choose_psql`.
    :param script: without psql's commands; psql refuses any that is left.
    """
    argv = [str(client.tool("psql")), "--no-password", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    argv += ["--single-transaction"] * single_transaction + ["--file=-"]
    first = "".join(f"\\unset {name} " for name in _OF_CONNECTION)
    first += f"\\restrict {secrets.token_hex(_KEY_BYTES)}\n"  # nobody else knows the key
    return GuardedPsql(argv, PrefixedReader(first.encode(), script))
