"""Messages of tools and libpq become one line and a hint. They are those of PostgreSQL 15 to 18, word for word.

Real servers produce most of them in tests/integration/postgres/test_tool_errors.py.
"""

from __future__ import annotations

import pytest

from airflow_pgbackup.errors import ToolError, ToolKilled
from airflow_pgbackup.postgres.connection.hints import hint_for
from airflow_pgbackup.postgres.tools.outcome import exit_status, failure
from airflow_pgbackup.postgres.tools.stderr import StderrFilter, detail_and_hint, errors_of, most_useful

AT = 'connection to server at "db" (10.0.0.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        (AT + 'FATAL:  password authentication failed for user "u"', "Check the connection's user and password"),
        (AT + "fe_sendauth: no password supplied", "pgpass"),
        (AT + 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", no encryption', "sslmode=require"),
        (AT + 'FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", SSL encryption', "dd a line"),
        (AT + 'FATAL:  pg_hba.conf rejects connection for host "h", user "u", database "d"', "dd a line"),
        (AT + 'FATAL:  Peer authentication failed for user "postgres"', "by a password"),
        (AT + 'FATAL:  certificate authentication failed for user "u"', "by a password"),
        ('could not translate host name "db" to address: Name or service not known', "name resolution"),
        ("failed to resolve host 'db': [Errno -3] Temporary failure in name resolution", "name resolution"),
        (
            'connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory',
            "at that socket",
        ),
        (AT + "Connection refused", "No server answers at that host"),
        (AT + "No route to host", "cannot reach that host"),
        (AT + "Network is unreachable", "cannot reach that host"),
        (AT + "timeout expired", "did not answer in time"),
        ("connection timeout expired", "did not answer in time"),
        (AT + "Connection timed out", "did not answer in time"),
        (AT + "FATAL:  unsupported startup parameter: options", "connect to PostgreSQL itself"),
        (AT + "FATAL:  unsupported startup parameter: options", "SET bytea_output = hex"),
        (AT + "FATAL:  sorry, too many clients already", "out of connections"),
        (
            AT + "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "out of connections",
        ),
        (AT + 'FATAL:  too many connections for database "d"', "out of connections"),
        (AT + "FATAL:  the database system is starting up", "retry later"),
        (AT + "FATAL:  the database system is in recovery mode", "retry later"),
        (AT + 'FATAL:  role "u" is not permitted to log in', "LOGIN"),
        (AT + 'FATAL:  role "u" does not exist', "no such role"),
        (AT + 'FATAL:  permission denied for database "d"', "GRANT CONNECT"),
        (AT + 'FATAL:  database "d" is not currently accepting connections', "datallowconn"),
        (AT + 'FATAL:  database "d" does not exist', "case-sensitive"),
        ('sslmode value "require" invalid when SSL support is not compiled in', "built without TLS"),
        (AT + "server does not support SSL, but SSL was required", "ssl = on"),
        (AT + 'root certificate file "/root.crt" does not exist', "sslrootcert to its file"),
        (AT + 'root certificate file "system" does not exist', "since version 16"),
        (AT + 'server certificate for "a" does not match host name "b"', "another name"),
        (AT + "SSL error: certificate verify failed", "not signed by a CA"),
        ("SSL error: decryption failed or bad record mac", "check the network"),
        (AT + 'FATAL:  PAM authentication failed for user "backup"', "grant rds_iam"),
        (AT + 'private key file "/k" has group or world access; file must have permissions', "chmod 0600"),
        (AT + "FATAL:  connection requires a valid client certificate", "sslcert"),
        (AT + "SSL error: tlsv13 alert certificate required", "sslcert"),
        (AT + "SSL error: tlsv1 alert unknown ca", "does not trust"),
        (AT + 'could not load private key file "/k": no start line', "PEM"),
        (AT + "SSL SYSCALL error: EOF detected", "TLS failed"),
        ('syntax error in service file "/s", line 2', "too old"),
        ("pg_dumpall: error: query failed: ERROR:  permission denied for table pg_authid", "no_role_passwords"),
        (
            'pg_dump: error: query failed: ERROR:  query would be affected by row-level security policy for table "t"',
            "BYPASSRLS",
        ),
        ('pg_dump: error: query failed: ERROR:  snapshot "00000003-0000001B-1" does not exist', "name one of them"),
        ('pg_dump: error: query failed: ERROR:  invalid snapshot identifier: "00000003-1B-1"', "name one of them"),
        (
            "pg_dump: error: query failed: ERROR:  permission denied for large object 16403",
            "the right to read it",
        ),
        ("pg_dump: error: query failed: ERROR:  permission denied for table t", "pg_read_all_data"),
        ("pg_dump: error: query failed: ERROR:  permission denied for schema s", "pg_read_all_data"),
        ("pg_dump: error: query failed: ERROR:  permission denied for sequence s_id_seq", "pg_read_all_data"),
        (
            "pg_restore: error: could not execute query: ERROR:  permission denied for table t",
            "memberships of the source",
        ),
        ("psql:<stdin>:62: ERROR:  permission denied for table t", "memberships of the source"),
        ("ERROR:  canceling statement due to lock timeout", "pg_locks"),
        ("pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout", "lock_wait_timeout"),
        ("ERROR:  canceling statement due to conflict with recovery", "standby"),
        ("ERROR:  deadlock detected", "retry"),
        ("pg_dump: error: aborting because of server version mismatch", "newer than this client"),
        ("pg_dump: error: no matching tables were found", "patterns"),
        ("pg_dump: error: no matching schemas were found", "patterns"),
        ("/usr/bin/pg_dump: unrecognized option '--filter=x'", "too old"),
        ('ERROR:  character with byte sequence 0xe2 in encoding "UTF8" has no equivalent in encoding "LATIN1"', "enc"),
        ('ERROR:  invalid byte sequence for encoding "UTF8": 0xff', "encoding"),
        ("ERROR:  invalid memory alloc request size 1073741824", "1 GB"),
        ("pg_dump: error: out of memory", "memory"),
        ("FATAL:  terminating connection due to administrator command", "ended the session"),
        ("server closed the connection unexpectedly", "ended the session"),
        ("SSL connection has been closed unexpectedly", "ended the session"),
        ("pg_dump: detail: Error message from server: SSL SYSCALL error: EOF detected", "ended the session"),
        ("consuming input failed: SSL error: unexpected eof while reading", "ended the session"),
        ("could not receive data from server: Connection reset by peer", "ended the session"),
        (
            'ERROR:  could not resize shared memory segment "/PostgreSQL.1" to 67146080 bytes: No space left on device',
            "--shm-size",
        ),
        ('could not extend file "base/5/16384": No space left on device', "server's disk"),
        ('ERROR:  could not write to file "base/pgsql_tmp/1.0": No space left on device', "server's disk"),
        ("pg_dump: error: could not write to file: No space left on device", "disk is full"),
        ("pg_dump: error: could not write to file: Disk quota exceeded", "disk is full"),
        ("pg_dump: error: could not write to file: File too large", "ulimit"),
        ('pg_dump: error: could not create directory "d": File exists', "remove it"),
        ('pg_dump: error: directory "d" is not empty', "remove it"),
        ("pg_restore: error: unsupported version (1.16) in file header", "newer pg_dump"),
        ("pg_dump: error: this build does not support compression with zstd", "that compression"),
        ("pg_restore: error: could not read from input file: end of file", "truncated"),
        ("pg_restore: error: input file is too short (read 3, expected 5)", "truncated"),
        ("pg_restore: error: input file does not appear to be a valid archive", "truncated"),
        ('ERROR:  unrecognized configuration parameter "transaction_timeout"', "custom format"),
        ('ERROR:  unrecognized parameter "pg_attver"', "as new as the source"),
        ('ERROR:  extension "postgis" is not available', "Install the extension"),
        ('could not execute query: ERROR:  role "app" does not exist', "globals first"),
        ('pg_dump: error: query failed: ERROR:  role "app" does not exist', "option role"),
        ('could not execute query: ERROR:  relation "t" already exists', "not empty"),
        ('could not execute query: ERROR:  schema "public" already exists', "not empty"),
        ('ERROR:  function "f" already exists with same argument types', "ALTER EXTENSION ... ADD"),
        ("ERROR:  cannot execute CREATE TABLE in a read-only transaction", "standby or read-only"),
        ('pg_dumpall: error: could not connect to database "d"', "database exists"),
        ("terminated by user", "run it again"),
        ("pg_dump: error: cannot run /x/pg_dump: No such file or directory", "exists at that path"),
    ],
)
def test_every_hint(message: str, hint: str) -> None:
    found = hint_for(message)
    assert found is not None
    assert hint in found


def test_other_messages_have_no_hint() -> None:
    assert hint_for('ERROR:  invalid input syntax for type integer: "x"') is None
    assert hint_for("") is None


def shown(text: str) -> list[str]:
    lines = StderrFilter()
    return [line for raw in text.splitlines() if (line := lines.keep(raw))]


def test_statements_and_rows_are_dropped_over_many_lines() -> None:
    text = """\
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 215; 1259 16385 TABLE t postgres
pg_restore: error: could not execute query: ERROR:  syntax error at or near "x"
LINE 1: CREATE TABLE secret
                     ^
Command was: CREATE TABLE secret (
    a text DEFAULT 'secret'

);
pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.
pg_dump: detail: Error message from server: ERROR:  invalid page in block 0 of relation base/5/16384
CONTEXT:  secret
  over two lines
pg_dump: detail: Command was: COPY public.t (secret) TO stdout;
psql:<stdin>:12: ERROR:  duplicate key value violates unique constraint "t_pkey"
DETAIL:  Key (a)=(secret
secret) already exists.
HINT:  Do something else.
QUERY:  select 'secret'
psql:<stdin>:13: DETAIL:  secret
ERROR:  canceling statement due to lock timeout
STATEMENT:  LOCK secret
pg_dump: warning: there are circular foreign-key constraints
"""
    assert shown(text) == [
        "pg_restore: while PROCESSING TOC:",
        "pg_restore: from TOC entry 215; 1259 16385 TABLE t postgres",
        'pg_restore: error: could not execute query: ERROR:  syntax error at or near "x"',
        'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.',
        "pg_dump: detail: Error message from server: ERROR:  invalid page in block 0 of relation base/5/16384",
        'psql:<stdin>:12: ERROR:  duplicate key value violates unique constraint "t_pkey"',
        "DETAIL:  Key (a)=(…)",
        "HINT:  Do something else.",
        "ERROR:  canceling statement due to lock timeout",
        "pg_dump: warning: there are circular foreign-key constraints",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "pg_dump: pg_dump: detail: Command was: COPY public.t (secret) TO stdout;",
        "pg_dump:pg_dump: pg_dump: detail: Query was: SELECT 'secret'",
        "detail: Query was: SELECT 'secret'",
    ],
)
def test_statements_are_dropped_where_processes_write_at_once(line: str) -> None:
    assert shown(line) == []


def test_continuations_of_other_messages_are_kept() -> None:
    text = 'psql: error: connection to server at "h" failed: Connection refused\n\tIs the server running?'
    assert shown(text) == [line.strip() for line in text.splitlines()]


def test_a_line_is_stripped_and_bounded() -> None:
    assert shown('pg_dump: role "\x1b" ') == ['pg_dump: role "\x1b"']  # whoever shows it escapes it, tests/attacks
    assert shown("") == []
    assert shown(" \r") == []
    assert shown("x" * 2000) == ["x" * 2000]
    assert shown("x" * 2000 + "y" * 100_000) == ["x" * 2000 + " …"]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("DETAIL:  Key (a)=(1) already exists.", "DETAIL:  Key (a)=(…) already exists."),
        ("psql:<stdin>:3: DETAIL:  Key (a, b)=(1, 2) is duplicated.", "DETAIL:  Key (a, b)=(…) is duplicated."),
        (
            'DETAIL:  Key (a)=(1) is not present in table "t".  ',
            'DETAIL:  Key (a)=(…) is not present in table "t".',
        ),
        ("DETAIL:  Key (a)=(1", "DETAIL:  Key (a)=(…)"),
        ("DETAIL:  Failing row contains (1).", None),
        ("CONTEXT:  Key (a)=(1) already exists.", None),
    ],
)
def test_of_a_key_its_columns_are_kept(line: str, kept: str | None) -> None:
    lines = StderrFilter()
    assert lines.keep(line) == kept
    assert lines.keep("2) already exists.") is None, "the next line of a value"
    assert lines.keep("pg_restore: warning: odd") == "pg_restore: warning: odd"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            'pg_restore: error: COPY failed for table "t": ERROR:  invalid input syntax for type integer: "a@b.de"',
            'pg_restore: error: COPY failed for table "t": ERROR:  invalid input syntax for type integer: "…"',
        ),
        ('psql:<stdin>:12: ERROR:  type "a@b.de" does not exist', 'psql:<stdin>:12: ERROR:  type "…" does not exist'),
        ('ERROR:  malformed array literal: "a "b" c', 'ERROR:  malformed array literal: "…"'),
        ('ERROR:  invalid value "a" for "b", "c', 'ERROR:  invalid value "…"'),
        ('ERROR:  odd: "a" b@c.de\nsecret"', 'ERROR:  odd: "…"'),
        (
            'ERROR:  value "123456789012" is out of range for type integer',
            'ERROR:  value "…" is out of range for type integer',
        ),
        ('ERROR:  odd: "a\nb@c.de"\nsecret', 'ERROR:  odd: "…"'),
        ("WARNING:  a@b.de", ""),
        ("NOTICE:  a@b.de\nsecret", ""),
        ("HINT:  a@b.de", ""),
        (
            'pg_restore: error: COPY failed for table "t": FEHLER:  ungültige Eingabesyntax für Typ integer: »a@b.de«',
            'pg_restore: error: COPY failed for table "t": FEHLER:  …',
        ),
        ("psql:<stdin>:12: ОШИБКА:  a@b.de", "psql:<stdin>:12: ОШИБКА:  …"),
        ('WARNUNG:  a@b.de "ERROR:  secret"', "WARNUNG:  …"),
        ("ÖLÜMCÜL (FATAL):  a@b.de", "ÖLÜMCÜL (FATAL):  …"),
        ("ERREUR:  a@b.de «x\nsecret»\nsecret", "ERREUR:  …"),
        (
            "ERROR:  la sintaxis de entrada no es válida para tipo integer: «a@b.de»",
            'ERROR:  la sintaxis de entrada no es válida para tipo integer: "…"',
        ),
        ('pg_restore: warning: errors ignored on restore: "1"', 'pg_restore: warning: errors ignored on restore: "1"'),
        ('pg_restore: processing data for table "public.t"', 'pg_restore: processing data for table "public.t"'),
        *(
            (f"ERROR:  {message}", f"ERROR:  {message}")
            for message in (
                'new row for relation "t" violates check constraint "t_check"',
                'null value in column "c" of relation "t" violates not-null constraint',
                'no partition of relation "t" found for row',
                'value for domain public.mail violates check constraint "mail_check"',
                "division by zero",
            )
        ),
    ],
)
def test_values_in_messages_of_the_server_are_hidden(text: str, kept: str) -> None:
    lines = StderrFilter(hide_values=True)
    shown = [line for raw in text.split("\n") if (line := lines.keep(raw))]
    assert shown == ([kept] if kept else [])
    lines.keep("CONTEXT:  COPY t, line 1")
    # After an odd number of quotes nobody can tell whether the line before was the server's or the value's.
    warning = "pg_restore: warning: odd"
    assert lines.keep(warning) == (None if text.count('"') % 2 else warning)


@pytest.mark.parametrize("begin", ["ERROR:  ", "HINT:  ", "pg_restore: ", "psql:x:1: ", "DETAIL:  Key ("])
def test_a_value_that_looks_like_a_message_is_hidden(begin: str) -> None:
    error = 'pg_restore: error: COPY failed for table "t": ERROR:  invalid input syntax for type integer: '
    value = ['"a', f'{begin}b@c.de)=(b@c.de) already exists"']
    lines = StderrFilter(hide_values=True)
    text = [error + value[0], value[1], f"CONTEXT:  COPY t, line 1, column a: {value[0]}", value[1], error + '"x"']
    assert [lines.keep(line) for line in text] == [f'{error}"…"', None, None, None, f'{error}"…"']


@pytest.mark.parametrize("error", ["FEHLER:  ungültige Eingabe: »{}«", "ERROR:  no es válida: «{}»", 'HATA:  "{}"'])
def test_a_value_in_another_language_that_looks_like_a_message_is_hidden(error: str) -> None:
    lines = StderrFilter(hide_values=True)
    text = [*error.format("a\npg_restore: secret").split("\n"), "CONTEXT:  COPY t, »x«", "pg_restore: error: next"]
    kept = [lines.keep(line) for line in text]
    assert "a" not in str(kept[0]).partition(":  ")[2].replace("válida", "")
    assert kept[1:] == [None, None, "pg_restore: error: next"]


@pytest.mark.parametrize("field", ["CONTEXT:  COPY t", "DETAIL:  x", "QUERY:  x", 'CONTEXT:  "', "LINE 1: x"])
@pytest.mark.parametrize("message", ["ERROR:  invalid input syntax for type integer: ", "NOTICE:  "])
def test_what_follows_a_line_of_a_value_that_looks_like_a_field_is_hidden(field: str, message: str) -> None:
    value = [field, "pg_restore: error: secret", "ERROR:  secret", field, "psql:x:1: secret"]
    lines = StderrFilter(hide_values=True)
    text = ['pg_restore: error: COPY failed for table "t": ' + message + '"', *value, '"']
    shown = [line for raw in text if (line := lines.keep(raw))]
    assert not any("secret" in line for line in shown)


def test_a_worker_that_was_killed_is_the_cause_only_if_nothing_else_is() -> None:
    died = "pg_restore: error: a worker process died unexpectedly"
    message, hint = most_useful(["pg_restore: launching item 2 INDEX i", died])
    assert message == "a worker process died unexpectedly"
    assert "use fewer jobs" in str(hint)
    assert most_useful(["pg_restore: error: COPY failed: ERROR:  odd", died]) == ("COPY failed: ERROR:  odd", None)


FULL = "could not write: No space left on device"


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (["pg_dump: error: boom."], "boom"),
        (["pg_dump: warning: odd", "pg_dump: error: boom", "pg_dump: hint: none"], "boom"),
        (["pg_dump: error: first cause", 'pg_dumpall: error: pg_dump failed on database "d", exiting'], "first cause"),
        (["pg_dump: error: first cause", "pg_dump: error: a worker process died unexpectedly"], "first cause"),
        (["pg_dump: error: one", "pg_dump: error: two"], "two"),
        (["pg_dump: error: a worker process died unexpectedly"], "a worker process died unexpectedly"),
        (
            [
                'pg_dump: error: Dumping the contents of table "t" failed: PQgetResult() failed.',
                "pg_dump: detail: Error message from server: ERROR:  invalid page",
            ],
            "ERROR:  invalid page",
        ),
        (["pg_dump: pg_dump: error: boom", 'dumping contents of table "public.t"'], "boom"),
        (["pg_restore: error: boom", "pg_restore: warning: errors ignored on restore: 1"], "boom"),
        (
            ['psql: error: x failed: FATAL:  database "d" does not exist'],
            'x failed: FATAL:  database "d" does not exist',
        ),
        (["pg_dump: error: could not write: No space left on device..", "pg_dump: error: later"], FULL),
        (["could not write: No space left on device ", "pg_dump: error: later"], FULL),
        (
            ['psql:x:1: NOTICE:  role "a" does not exist, skipping', "psql:x:2: ERROR:  value too long"],
            "psql:x:2: ERROR:  value too long",
        ),
        (["pg_restore: warning: disk quota exceeded", "pg_restore: error: boom"], "boom"),
        (["something", "else"], "else"),
        ([], ""),
    ],
)
def test_the_line_that_names_the_cause(lines: list[str], cause: str) -> None:
    assert most_useful(lines) == (cause, hint_for(cause))


def test_the_detail_and_hint_are_those_of_the_cause() -> None:
    lines = ["ERROR:  boom", "DETAIL:  old.", "ERROR:  boom", "HINT:  Do it.", "DETAIL:  new", "more", "HINT:  later"]
    assert detail_and_hint(lines, "boom") == ("new", "Do it")
    assert detail_and_hint(lines[:2], "boom") == ("old", None)
    assert detail_and_hint(lines, "other") == (None, None)
    assert detail_and_hint(["DETAIL:  x"], "") == (None, None)
    assert detail_and_hint(["", "DETAIL:  x"], "") == (None, None)


def test_errors_are_told_from_progress_and_consequences() -> None:
    lines = ["pg_dump: dumping table error", "FATAL:  a", "pg_dump: error: query failed: ", "pg_dump: error: b"]
    assert errors_of(lines) == ["FATAL:  a", "pg_dump: error: b"]


@pytest.mark.parametrize(
    ("status", "sandboxed", "seen"),
    [
        (137, True, -9),
        (129, True, -1),
        (128, True, 128),
        (1, True, 1),
        (137, False, 137),
        (-9, False, -9),
        (0, True, 0),
    ],
)
def test_bubblewrap_exits_like_a_shell(status: int, sandboxed: bool, seen: int) -> None:
    assert exit_status(status, sandboxed=sandboxed) == seen


OUTSIDE = "Killed from outside, often by the OOM killer: see dmesg and the memory limits."


@pytest.mark.parametrize(
    ("status", "stderr", "kind", "message", "hint"),
    [
        (1, [], ToolError, "pg_dump failed (exit 1): no error output", None),
        (2, ["pg_dump: error: boom."], ToolError, "pg_dump failed (exit 2): boom", None),
        (
            1,
            ["ERROR:  boom", "DETAIL:  Key (a)=(…) is duplicated.", "HINT:  Look."],
            ToolError,
            "pg_dump failed (exit 1): boom (Key (a)=(…) is duplicated)",
            "Look",
        ),
        (1, ["ERROR:  deadlock detected", "HINT:  Look."], ToolError, None, hint_for("ERROR:  deadlock detected")),
        (-9, ["pg_dump: dumping t"], ToolKilled, "pg_dump was killed by SIGKILL", OUTSIDE),
        (-15, ["pg_dump: error: boom", "pg_dump: x"], ToolKilled, "pg_dump was killed by SIGTERM: boom", OUTSIDE),
        (-40, [], ToolKilled, "pg_dump was killed by signal 40", OUTSIDE),
    ],
)
def test_how_a_tool_failed(
    status: int, stderr: list[str], kind: type[ToolError], message: str | None, hint: str | None
) -> None:
    error = failure("pg_dump", status, stderr)
    assert type(error) is kind
    assert (error.tool, error.exit_code, error.stderr, error.hint) == ("pg_dump", status, stderr, hint)
    assert message is None or error.message == message
