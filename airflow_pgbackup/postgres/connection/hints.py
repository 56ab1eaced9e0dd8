"""What PostgreSQL's messages mean, and what to do: one table for its programs and for connections of our own."""

from __future__ import annotations

import re

# (pattern, hint); the first pattern found anywhere in the text wins, so the telling ones stand above the general ones.
# The words are those of PostgreSQL 15 to 18: src/interfaces/libpq, src/backend, src/bin/pg_dump.
_TABLE: list[tuple[str, str]] = [
    # --- getting in
    (
        r"password authentication failed for user",
        "the user or the password of the connection is wrong, or the server knows no such user",
    ),
    (
        r"no password supplied",
        "the server asks for a password and the connection has none; "
        "a pgpass file counts only when a line of it fits exactly and its mode is 0600",
    ),
    (
        r"no pg_hba\.conf entry for .*no encryption",
        "the server's pg_hba.conf does not admit this user, database and address without TLS: "
        "set sslmode=require (with a client that has TLS), or add a line there",
    ),
    (
        r"no pg_hba\.conf entry for|pg_hba\.conf rejects connection",
        "the server's pg_hba.conf does not admit this user, database and address: add a line there and reload",
    ),
    (
        r"(?:Peer|Ident|LDAP|PAM|RADIUS|GSSAPI|OAuth bearer|certificate) authentication failed for user",
        "the server identifies this user by other means than a password; see its pg_hba.conf, "
        "or connect as the user that it expects",
    ),
    (
        r"could not translate host name|[Ff]ailed to resolve host|Name or service not known",
        "no such host here: check the spelling, and the name resolution of this worker",
    ),
    (
        r"connection to server on socket .* failed: (?:No such file|Connection refused)",
        "no server answers at that socket: is it running, and is the port the right one? "
        "a host name, as localhost, connects by TCP",
    ),
    (
        r"Connection refused",
        "nothing answers at that host and port: is the server running, are host and port right, "
        "does its listen_addresses include that address?",
    ),
    (
        r"No route to host|Network is unreachable",
        "this worker has no way to that host: check the address, the network and the firewall",
    ),
    (
        r"timeout expired|[Cc]onnection timed out",
        "no answer in time: a firewall that drops packets, a wrong host or port, or a server too busy; "
        "connect_timeout of the connection sets the limit",
    ),
    (
        r"unsupported startup parameter",
        "this is a connection pooler, which refuses session options: connect to PostgreSQL itself, "
        "or let the pooler ignore them (PgBouncer: ignore_startup_parameters = options)",
    ),
    (
        r"too many clients already|remaining connection slots are reserved|too many connections for",
        "the server is out of connections: use fewer jobs, raise max_connections or the role's limit, or try later",
    ),
    (
        r"the database system is (?:starting up|shutting down|not yet accepting|not accepting|in recovery mode)",
        "the server is not ready for connections now; try again later",
    ),
    (
        r"is not permitted to log in",
        "the role has no LOGIN attribute: connect as another one, or ALTER ROLE … LOGIN",
    ),
    (r"FATAL: +role .* does not exist", "the server has no such user: check the user of the connection"),
    (
        r"permission denied for database|User does not have CONNECT privilege",
        "GRANT CONNECT ON DATABASE … to the user of the connection",
    ),
    (
        r"database .* is not currently accepting connections",
        "the database has datallowconn = false, as template0 has: it cannot be dumped",
    ),
    (
        r"FATAL: +database .* does not exist",
        "check the database of the connection; names are case-sensitive here",
    ),
    # --- TLS
    (
        r"sslmode value .* invalid when SSL support is not compiled in|SSL support is not compiled in",
        "this PostgreSQL client was built without TLS: install the system's postgresql-client, "
        "or name its folder in PGBACKUP_CLIENT_DIRS",
    ),
    (
        r"server does not support SSL, but SSL was required",
        "the server has TLS switched off: set ssl = on there, or a weaker sslmode",
    ),
    (
        r"root certificate file .* does not exist",
        "sslmode verify-ca and verify-full need the server's CA: set sslrootcert to its file, or to system",
    ),
    (
        r"server certificate for .* does not match host name",
        "the server's certificate is for another name: connect by the name that is in it",
    ),
    (
        r"certificate verify failed",
        "the server's certificate is not signed by the CA in sslrootcert, or is out of date",
    ),
    (
        r"private key file .* (?:has group or world access|must be owned)",
        "chmod 0600 the file that sslkey names; it must belong to the user that runs the task, or to root",
    ),
    (
        r"connection requires a valid client certificate|alert certificate required",
        "the server wants a client certificate: set sslcert and sslkey of the connection",
    ),
    (r"alert unknown ca", "the server does not trust the CA of the client certificate in sslcert"),
    (
        r"could not (?:load|read) (?:private key|certificate|root certificate) file",
        "the file that sslkey, sslcert or sslrootcert names cannot be read as PEM; an encrypted key needs sslpassword",
    ),
    (r"SSL error|SSL SYSCALL error", "TLS failed: check sslmode and the certificates, and the server's log"),
    (
        r"syntax error in service file",
        "the connection has an option that this client is too old for: use a newer PostgreSQL client",
    ),
    # --- reading the database
    (
        r"permission denied for table pg_(?:authid|shadow)|must be superuser to read role passwords",
        "only a superuser reads role passwords: set no_role_passwords",
    ),
    (
        r"query would be affected by row-level security",
        "the user of the connection would see only some rows: dump as a role with BYPASSRLS, "
        "or accept an incomplete dump with enable_row_security",
    ),
    (
        r"permission denied for (?:large object|foreign)",
        "the user of the connection may not read it: GRANT it, dump as its owner, or leave it out",
    ),
    (
        r"permission denied for (?:table|view|materialized view|sequence|schema|relation|function|type)",
        "GRANT pg_read_all_data TO the user of the connection, or leave it out with exclude_tables or exclude_schemas",
    ),
    (r"canceling statement due to lock timeout", "another session holds a lock: see pg_locks, or raise lock_timeout"),
    (
        r"canceling statement due to statement timeout",
        "a lock of another session, as DDL takes it, outlasted lock_wait_timeout (see pg_locks), "
        "or the server's own statement_timeout is too short for this",
    ),
    (
        r"conflict with recovery",
        "a standby canceled the dump so that it can go on replaying: dump from the primary, "
        "or raise max_standby_streaming_delay there",
    ),
    (r"deadlock detected", "another session and this one waited for each other: try again"),
    (
        r"server version mismatch|aborting because of server version",
        "the server is newer than this client: install the client of its major version, "
        "or name its folder in PGBACKUP_CLIENT_DIRS",
    ),
    (
        # appendShellStringNoError in src/fe_utils/string_utils.c; written without the tool's name before it
        r"shell command argument contains a newline or carriage return",
        "pg_dumpall cannot dump a database with a line break in its name: exclude_databases, "
        "and dump it by itself with pg_dump",
    ),
    (r"no matching (?:tables|schemas|extensions) were found", "check the patterns; they are those of psql's \\d"),
    (r"pg_dump: error: (?:unrecognized|invalid) option|: unrecognized option", "this client is too old for the option"),
    (
        r"has no equivalent in encoding|invalid byte sequence for encoding",
        "text of the database does not fit the encoding: leave encoding and client_encoding unset, "
        "or find the row and mend it",
    ),
    (
        r"invalid memory alloc request size|out of memory|[Cc]annot allocate memory",
        "a value over PostgreSQL's limit of 1 GB as text, or too little memory on that side",
    ),
    (
        r"terminating connection due to|server closed the connection unexpectedly|connection to server was lost",
        "the server ended the session: a restart, an administrator, a timeout or a crash; its log says which",
    ),
    # --- writing and reading archives
    (
        r"backslash commands are restricted|\\unrestrict: ",
        "the dump has a command for psql that pg_dump never writes: do not restore it, and find out who wrote it",
    ),
    (r"No space left on device|[Dd]isk quota exceeded", "the disk is full: make room, or write to an s3:// repository"),
    (r"File too large", "over the file size limit of this process (ulimit -f) or of the file system"),
    (
        r"could not create directory .*File exists|error: directory .* is not empty",
        "a dump in directory format needs a new folder; if a failed one left it behind, remove it",
    ),
    (r"unsupported version .* in file header", "the archive is from a newer pg_dump: use a pg_restore of that version"),
    (
        r"does not support compression|not built with (?:zstd|lz4|zlib|gzip)|not supported in this installation",
        "this PostgreSQL client was built without that compression: choose another one, or another client",
    ),
    (
        r"could not read from input file: end of file|unexpected end of file|input file (?:is too short|does not)",
        "the archive is truncated or damaged: verify the backup, and use an older one",
    ),
    (
        r"unrecognized configuration parameter \"transaction_timeout\"",
        "a plain dump by pg_dump 17 or newer does not restore into a server before 17: "
        "dump in custom format, or with an older client",
    ),
    (
        # 17.12 keeps pg_attver in pg_attribute.attoptions, which pg_dump 18.6 takes for an option of the column
        r"unrecognized parameter \"",
        "the dump sets an option of a table or column that this server does not know: restore into one as new as its "
        "source, and dump with the newest patch release of the client",
    ),
    (
        r"extension .* is not available|could not open extension control file",
        "install the extension's package on the target server, or leave the extension out",
    ),
    (
        r"role .* does not exist",
        "the target server lacks a role of the source: restore the globals first, or set no_owner and no_privileges",
    ),
    (
        r"(?:relation|schema|type|function|database|role|table|extension|index|constraint) .* already exists",
        "the target is not empty: restore into an empty database",
    ),
    (
        r"in a read-only transaction|recovery is in progress",
        "the server is a standby or read-only: connect to the primary (target_session_attrs=read-write)",
    ),
    (r"error: could not connect to database", "there is no such database, or the user may not connect to it"),
    (r"error: cannot run ", "no such program there, or not one that this machine can run"),
]

_COMPILED = [(re.compile(pattern), hint) for pattern, hint in _TABLE]


def hint_for(text: str) -> str | None:
    """What to do about what a tool wrote to stderr, or libpq said, in English; None where we know nothing better."""
    for pattern, hint in _COMPILED:
        if pattern.search(text):
            return hint
    return None
