"""Turn the end of a tool into the error to raise."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from airflow_pgbackup.errors import ToolError, ToolKilled
from airflow_pgbackup.postgres.tools.stderr import detail_and_hint, errors_of, most_useful


def exit_status(status: int, *, sandboxed: bool) -> int:
    """Return the exit status of a tool, negative for a signal as in :mod:`subprocess`.

    :param status: of its leader.
    :param sandboxed: it ran under bubblewrap, which like a shell exits with 128 + N if the tool died by signal N.
    """
    return 128 - status if sandboxed and status > 128 else status


def failure(tool: str, status: int, stderr: Sequence[str]) -> ToolError:
    """Return the error for a tool that failed on its own account.

    :param status: its exit status, not 0; negative for a signal.
    :param stderr: the last lines of its stderr, without statements and rows.
    """
    if status > 0:
        cause, hint = most_useful(stderr)
        detail, server_hint = detail_and_hint(stderr, cause)
        message = f"{tool} failed (exit {status}): {cause or 'no error output'}" + (f" ({detail})" if detail else "")
        return ToolError(message, tool=tool, exit_code=status, stderr=stderr, hint=hint or server_hint)
    cause, _ = most_useful(errors_of(stderr))  # progress lines name no reason for a signal
    return ToolKilled(
        f"{tool} was killed by {_signal_name(-status)}" + (f": {cause}" if cause else ""),
        tool=tool,
        exit_code=status,
        stderr=stderr,
        hint="Killed from outside, often by the OOM killer: see dmesg and the memory limits.",
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
