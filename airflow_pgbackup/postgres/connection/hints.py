"""Hints for PostgreSQL's error messages: one table for its programs and for our own sessions."""

from __future__ import annotations

import re

# (pattern, hint). The first pattern found anywhere in the text wins, so specific patterns stand above general ones.
# The wordings are those of PostgreSQL 15 to 18: src/interfaces/libpq, src/backend, src/bin/pg_dump.
_TABLE: list[tuple[str, str]] = [
    # --- authentication
    (
        r"password authentication failed for user",
        "Check the connection's user and password; the server reports an unknown user the same way.",
    ),
    (
        r"no password supplied",
        "Give the connection a password: the server asks for one. "
        "A line of a pgpass file must match exactly, and the file's mode must be 0600.",
    ),
    (
        r"no pg_hba\.conf entry for .*no encryption",
        "The server's pg_hba.conf does not admit this user, database and address without TLS: "
        "set sslmode=require (with a client built with TLS), or add a line there.",
    ),
    (
        r"no pg_hba\.conf entry for|pg_hba\.conf rejects connection",
        "Add a line for this user, database and address to the server's pg_hba.conf, and reload it.",
    ),
    (
        r"PAM authentication failed for user",
        "Check the user and password at the server's PAM service. With iam (Amazon RDS): grant rds_iam to the user, "
        "allow rds-db:connect for this user in the role's policy, and check region and host name: the token is signed "
        "for them.",
    ),
    (
        r"(?:Peer|Ident|LDAP|RADIUS|GSSAPI|OAuth bearer|certificate) authentication failed for user",
        "The server does not identify this user by a password: see its pg_hba.conf, or connect as the user it expects.",
    ),
    (
        r"could not translate host name|[Ff]ailed to resolve host|Name or service not known",
        "Check the spelling of the host, and the name resolution of this worker.",
    ),
    (
        r"connection to server on socket .* failed: (?:No such file|Connection refused)",
        "No server answers at that socket: check that it is running, and the port. "
        "Give a host name such as localhost to connect by TCP.",
    ),
    (
        r"Connection refused",
        "No server answers at that host and port: check that it is running, the host and the port, "
        "and that its listen_addresses include that address.",
    ),
    (
        r"No route to host|Network is unreachable",
        "This worker cannot reach that host: check the address, the network and the firewall.",
    ),
    (
        r"timeout expired|[Cc]onnection timed out",
        "The server did not answer in time: check for a firewall that drops packets, a wrong host or port, "
        "or an overloaded server; the connection's connect_timeout sets the limit.",
    ),
    (
        r"unsupported startup parameter",
        "This is a connection pooler that refuses session options: connect to PostgreSQL itself. "
        "A pooler that ignores them (PgBouncer: ignore_startup_parameters = options) also drops bytea_output = hex, "
        "which a dump needs: set it for the role then (ALTER ROLE … SET bytea_output = hex).",
    ),
    (
        r"too many clients already|remaining connection slots are reserved|too many connections for",
        "The server is out of connections: use fewer jobs, raise max_connections or the role's limit, or retry later.",
    ),
    (
        r"the database system is (?:starting up|shutting down|not yet accepting|not accepting|in recovery mode)",
        "The server does not accept connections now: retry later.",
    ),
    (
        r"is not permitted to log in",
        "Connect as another role, or allow this one to log in with ALTER ROLE … LOGIN.",
    ),
    (r"FATAL: +role .* does not exist", "Check the connection's user: the server has no such role."),
    (
        r"permission denied for database|User does not have CONNECT privilege",
        "Run GRANT CONNECT ON DATABASE … TO the connection's user.",
    ),
    (
        r"database .* is not currently accepting connections",
        "The database has datallowconn = false, as template0 has: it cannot be dumped.",
    ),
    (
        r"FATAL: +database .* does not exist",
        "Check the connection's database: its name is case-sensitive.",
    ),
    # --- TLS
    (
        r"sslmode value .* invalid when SSL support is not compiled in|SSL support is not compiled in",
        "This PostgreSQL client was built without TLS: install your distribution's postgresql-client, "
        "or name its directory in PGBACKUP_CLIENT_DIRS.",
    ),
    (
        r"server does not support SSL, but SSL was required",
        "Set ssl = on in the server's configuration, or a weaker sslmode.",
    ),
    (
        r"root certificate file \"system\" does not exist",
        "PostgreSQL's clients know sslrootcert=system since version 16: set sslrootcert to the file of the CAs, such "
        "as /etc/ssl/certs/ca-certificates.crt.",
    ),
    (
        r"root certificate file .* does not exist",
        "sslmode verify-ca and verify-full need the server's CA: set sslrootcert to its file.",
    ),
    (
        r"server certificate for .* does not match host name",
        "The server's certificate is for another name: connect by the name in the certificate.",
    ),
    (
        r"certificate verify failed",
        "The server's certificate is not signed by a CA in sslrootcert, or has expired.",
    ),
    (
        r"private key file .* (?:has group or world access|must be owned)",
        "Run chmod 0600 on the sslkey file; its owner must be the user that runs the task, or root.",
    ),
    (
        r"connection requires a valid client certificate|alert certificate required",
        "The server requires a client certificate: set the connection's sslcert and sslkey.",
    ),
    (r"alert unknown ca", "The server does not trust the CA of the client certificate in sslcert."),
    (
        r"could not (?:load|read) (?:private key|certificate|root certificate) file",
        "Check that the sslkey, sslcert and sslrootcert files are readable PEM; an encrypted key needs sslpassword.",
    ),
    (
        r"decryption failed or bad record mac",
        "Data was damaged between this worker and the server: check the network and any proxy between them, and retry.",
    ),
    (
        r"connection to server .* failed: SSL "
        r"|SSL (?:SYSCALL )?error(?!: (?:EOF detected|unexpected eof|Connection reset|Broken pipe))",
        "TLS failed: check sslmode, the certificates, and the server's log.",
    ),
    (
        r"syntax error in service file",
        "The connection has an option that this client is too old for: use a newer PostgreSQL client.",
    ),
    # --- reading the database
    (
        r"permission denied for table pg_(?:authid|shadow)|must be superuser to read role passwords",
        "Set no_role_passwords: this role may not read role passwords.",
    ),
    (
        # REFRESH MATERIALIZED VIEW runs as the view's owner, the functions of an index as the owner of its table
        r"(?:\bpg_restore: |\bpsql:).*(?:query would be affected by row-level security"
        r"|permission denied for (?!parameter|database|tablespace))",
        "Restore as a superuser. If it is one, the owner of a materialized view, or of a table with an index on a "
        "function, lacks a privilege: give this role in the target the attributes and memberships of the source.",
    ),
    (
        r"query would be affected by row-level security",
        "The connection's user would see only some of the rows: connect as a role with BYPASSRLS, "
        "or accept an incomplete dump with enable_row_security.",
    ),
    (
        r"permission denied for (?:large object|foreign)",
        "Grant the connection's user the right to read it, dump as its owner, or exclude it.",
    ),
    (
        r"permission denied for (?:table|view|materialized view|sequence|schema|relation|function|type)",
        "Grant pg_read_all_data to the connection's user, or use exclude_tables or exclude_schemas.",
    ),
    (
        r"canceling statement due to lock timeout",
        "Another session or a prepared transaction holds a lock: see pg_locks, or raise lock_timeout.",
    ),
    (
        r"canceling statement due to statement timeout",
        "A lock of another session, such as one for DDL, or of a prepared transaction lasted longer than "
        "lock_wait_timeout (see pg_locks), or the server's own statement_timeout is too short.",
    ),
    (
        r"conflict with recovery",
        "A standby canceled the dump to continue replaying WAL: dump from the primary, "
        "or raise max_standby_streaming_delay on the standby.",
    ),
    (
        r"snapshot \".*\" does not exist|invalid snapshot identifier",
        "The snapshot is of another server, or the session that exported it has ended: if the connection leads to "
        "several servers, as through a load balancer, name one of them.",
    ),
    (r"deadlock detected", "Two sessions waited for each other's locks: retry."),
    (
        r"server version mismatch|aborting because of server version",
        "The server is newer than this client: install the client of its major version, "
        "or name its directory in PGBACKUP_CLIENT_DIRS.",
    ),
    (
        # appendShellStringNoError in src/fe_utils/string_utils.c; written without the tool's name before it
        r"shell command argument contains a newline or carriage return",
        "pg_dumpall cannot dump a database with a line break in its name: use exclude_databases, "
        "and dump that database separately with pg_dump.",
    ),
    (r"no matching (?:tables|schemas|extensions) were found", "Check the patterns; they are those of psql's \\d."),
    (
        r"pg_dump: error: (?:unrecognized|invalid) option|: unrecognized option",
        "Use a newer PostgreSQL client: this one is too old for the option.",
    ),
    (
        r"has no equivalent in encoding|invalid byte sequence for encoding",
        "Some text in the database does not fit the encoding: leave encoding and client_encoding unset, "
        "or find and correct the row.",
    ),
    (
        r"invalid memory alloc request size|out of memory|[Cc]annot allocate memory",
        "A value in text form exceeds PostgreSQL's limit of 1 GB, or the program that reports this is out of memory.",
    ),
    (
        r"terminating connection due to|server closed the connection unexpectedly|connection to server was lost"
        r"|SSL connection has been closed|SSL (?:SYSCALL )?error|could not (?:receive data from|send data to) server",
        "The server ended the session by a restart, an administrator, a timeout or a crash: see its log.",
    ),
    # --- writing and reading archives
    (
        r"backslash commands are restricted|\\unrestrict: ",
        "The dump has a psql command that pg_dump never writes: do not restore it, and find out who wrote it.",
    ),
    (
        r"could not resize shared memory segment",
        "The server's shared memory is full: give its container more (docker run --shm-size), or set "
        "max_parallel_maintenance_workers and max_parallel_workers_per_gather to 0.",
    ),
    (
        r"could not extend file|could not write to file \"(?:base|global|pg_\w+)/"
        r"|(?:ERROR|FATAL|PANIC): .*(?:No space left on device|[Dd]isk quota exceeded)",
        "The server's disk is full: free some space there.",
    ),
    (
        r"No space left on device|[Dd]isk quota exceeded",
        "The disk is full: free some space, or use an s3:// repository.",
    ),
    (r"File too large", "The file exceeds the size limit of this process (ulimit -f) or of the file system."),
    (
        r"could not create directory .*File exists|error: directory .* is not empty",
        "A dump in directory format needs a new directory: if a failed dump left this one, remove it.",
    ),
    (
        r"unsupported version .* in file header",
        "The archive is from a newer pg_dump: use a pg_restore of that version.",
    ),
    (
        r"does not support compression|not built with (?:zstd|lz4|zlib|gzip)|not supported in this installation",
        "This PostgreSQL client was built without that compression: choose another compression or another client.",
    ),
    (
        r"could not read from input file: end of file|unexpected end of file|input file (?:is too short|does not)",
        "The archive is truncated or damaged: verify the backup, and use an older one.",
    ),
    (
        r"unrecognized configuration parameter \"transaction_timeout\"",
        "A plain dump by pg_dump 17 or newer does not restore into a server before 17: "
        "dump in custom format, or with an older client.",
    ),
    (
        # 17.12 keeps pg_attver in pg_attribute.attoptions, which pg_dump 18.6 mistakes for a column option
        r"unrecognized parameter \"",
        "The dump sets an option of a table or column that this server does not have: restore into a server as new as "
        "the source, and dump with the newest patch release of the client.",
    ),
    (
        r"extension .* is not available|could not open extension control file",
        "Install the extension's package on the target server, or exclude the extension.",
    ),
    (
        r"pg_dump(?:all)?: error: query failed: ERROR: +role .* does not exist",
        "Check the option role: the server has no such role.",
    ),
    (
        r"role .* does not exist",
        "The target server lacks a role of the source: restore the globals first, or set no_owner and no_privileges.",
    ),
    (
        r"(?:function|operator|type) .* already exists",
        "The target is not empty, or an extension creates the object too: restore into an empty database. If it was "
        "empty, add the object to its extension again (ALTER EXTENSION ... ADD) in the source, and dump again.",
    ),
    (
        r"(?:relation|schema|database|role|table|extension|index|constraint) .* already exists",
        "The target is not empty: restore into an empty database.",
    ),
    (
        r"in a read-only transaction|recovery is in progress",
        "The server is a standby or read-only: connect to the primary (target_session_attrs=read-write).",
    ),
    (
        r"error: could not connect to database",
        "Check that the database exists, and that the user can connect to it.",
    ),
    (
        # parallel.c
        r"a worker process died unexpectedly|could not (?:read from|write to) the communication channel",
        "A process of a dump or restore with several jobs was killed, often by the OOM killer: see dmesg and the "
        "memory limits, or use fewer jobs.",
    ),
    # pg_dump and pg_restore at SIGINT, SIGTERM and SIGQUIT
    (r"terminated by user", "Something outside interrupted this program, such as an administrator: run it again."),
    (r"error: cannot run ", "Check that the program exists at that path and was built for this machine."),
]

_COMPILED = [(re.compile(pattern), hint) for pattern, hint in _TABLE]


def hint_for(text: str) -> str | None:
    """Return the hint for a message of a tool or of libpq, or None. The message must be in English."""
    for pattern, hint in _COMPILED:
        if pattern.search(text):
            return hint
    return None
