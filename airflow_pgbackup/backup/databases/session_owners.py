"""What to do if a dump by ``--use-set-session-authorization`` does not restore."""

from __future__ import annotations

from airflow_pgbackup.wording import parameter


def as_owners_hint() -> str:
    """Return the hint of the error."""
    return (
        f"The dump was made with {parameter('use_set_session_authorization', True)}: only a superuser can restore it, "
        "and only if each owner may create its objects at that point of the dump, as its privileges come last. Dump "
        "without that option, or GRANT CREATE ON DATABASE … TO the owners before the restore."
    )
