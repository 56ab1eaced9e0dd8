"""Whether a retry can help after a failure, by the messages of PostgreSQL's programs and of libpq.

``docs/reference/failures.md`` has the same table for people.
"""

from __future__ import annotations

import re
from typing import Literal

Retry = Literal["never", "once", "soon", "later"]
"""``never``: until somebody changes something, each attempt fails the same way. ``once``: one more attempt within
seconds, for a password or key that is being replaced; then never. ``soon``: the failed attempt has already waited, so
the next one need not: after a minute. ``later``: by the task's own retries."""

# The first pattern found wins. The wordings are those of PostgreSQL 15 to 18, in English.
_TABLE: list[tuple[str, Retry]] = [
    (
        r"canceling statement due to (?:lock|statement) timeout|conflict with recovery|deadlock detected"
        r"|too many clients already|remaining connection slots are reserved|too many connections for",
        "soon",
    ),
    (r"authentication failed for user|no password supplied", "once"),
    (
        r"no matching (?:tables|schemas|extensions|foreign servers) were found"
        r"|database \"[^\"]*\" does not exist|role \"[^\"]*\" does not exist"
        r"|unrecognized option|invalid option|server version mismatch|aborting because of server version"
        r"|permission denied|must be superuser|query would be affected by row-level security"
        r"|no pg_hba\.conf entry|pg_hba\.conf rejects|is not permitted to log in|does not have CONNECT privilege"
        r"|is not currently accepting connections|unsupported startup parameter"
        r"|SSL support is not compiled in|server does not support SSL|does not match host name"
        r"|root certificate file .* does not exist|private key file .* (?:has group|must be owned)"
        r"|unsupported version .* in file header|not built with|does not support compression"
        r"|extension .* is not available|already exists",
        "never",
    ),
]
_COMPILED = [(re.compile(pattern), retry) for pattern, retry in _TABLE]


def retry_after(message: str) -> Retry:
    """Return when to retry after a failure with this message; ``later`` if the message says nothing about it."""
    for pattern, retry in _COMPILED:
        if pattern.search(message):
            return retry
    return "later"
