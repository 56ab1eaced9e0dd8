"""FailureAlert: give any notifier the cause, the hint, and the last verified backup with its age.

.. code-block:: python

    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    alert = FailureAlert(SmtpNotifier(to="dba@example.com", subject="{{ pgbackup.subject }}",
                                      html_content="{{ pgbackup.html }}"))

    with DAG("app_nightly", schedule="0 2 * * *", on_failure_callback=alert): ...
"""

from __future__ import annotations

import copy
import html
import logging
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from airflow_pgbackup.notifications.cause import Cause, find_cause
from airflow_pgbackup.notifications.last_backup import LastBackup, last_backups
from airflow_pgbackup.notifications.targets import targets_of
from airflow_pgbackup.text import printable

__all__ = ["FailureAlert", "FailureMessage"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST, _LONGEST_SUBJECT = 1000, 200
_MOST_MASKED = 20 * _LONGEST
_MOST_BACKUPS = 5
_AIRFLOW_ERRORS = ("AirflowException", "AirflowFailException", "AirflowSensorTimeout")
_USER_INFO = re.compile(r"(?<=://)(?:[^/\s]{1,500}|[^/\s]{0,500}:\S{0,500})@")  # a secret may hold "/" and "@"
_UNKNOWN = "unknown; see the log"


class FailureAlert:
    """Call a notifier with ``pgbackup``, a :class:`FailureMessage`, in the context of its templates.

    Use it as ``on_failure_callback`` or ``on_retry_callback`` of a task, or as ``on_failure_callback`` of a DAG, and in
    the ``alerts`` of a fleet. Each call works on a copy, because a notifier's templates can be rendered once only.

    :param notifier: a notifier of any provider, or a function that takes the context.
    """

    def __init__(self, notifier: Callable[[Any], object]) -> None:
        self.notifier = notifier

    def __call__(self, context: Mapping[str, Any]) -> None:
        copy.copy(self.notifier)({**context, "pgbackup": FailureMessage(context)})


class FailureMessage:
    """What an alert says about a failed task or run.

    Each attribute is text of limited length, without control characters and without the secrets that Airflow masks.
    Reading one never raises. The repository is read at the first use, for at most 20 s; if it does not answer, the text
    says so.

    :param context: of a callback.
    """

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = context

    @cached_property
    def what(self) -> str:
        """What failed: ``app_nightly.dump``, ``app_nightly.dump[3]`` for a mapped task, ``DAG app_nightly``."""
        return _try(self._what, _UNKNOWN)

    @cached_property
    def run(self) -> str:
        """The id of the run, and the try of the task: ``run manual__2026-11-27T02:00:00+00:00, try 2``."""
        return _try(self._run, _UNKNOWN)

    @cached_property
    def cause(self) -> str:
        """The message of the error."""
        return _clean(self._found.message)

    @cached_property
    def hint(self) -> str:
        """What to do about it; empty if nothing is known."""
        return _clean(self._found.hint or "")

    @cached_property
    def last_backup(self) -> str:
        """The last verified backup of the series, or the last complete backup set of the server, and its age.

        One sentence for each if there are several, at most five; empty if the task is not of this package.
        """
        return "; ".join(self._last_backups)

    @cached_property
    def log_url(self) -> str:
        """The address of the task's log in Airflow's UI; empty if it is unknown."""
        return _try(self._log_url, "")

    @cached_property
    def subject(self) -> str:
        """One line: ``app_nightly.dump failed: last verified backup 1 d 4 h old``."""
        worst = max(self._looked_up, key=lambda one: one.urgency, default=None)
        text = f"{self.what} failed" + (f": {worst.short}" if worst else "")
        return text[:_LONGEST_SUBJECT]

    @cached_property
    def text(self) -> str:
        """All of it as plain text, in lines."""
        return "\n".join([f"{self.what} failed ({self.run})", *self._lines, *([self.log_url] if self.log_url else [])])

    @cached_property
    def html(self) -> str:
        """All of it as HTML, escaped."""
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in self._lines)
        link = f'<p><a href="{html.escape(self.log_url)}">log</a></p>' if self.log_url else ""
        return f"<p><b>{html.escape(self.what)} failed</b> ({html.escape(self.run)})</p>{lines}{link}"

    @cached_property
    def slack(self) -> str:
        """All of it as Slack's mrkdwn, escaped.

        https://docs.slack.dev/messaging/formatting-message-text#escaping
        """
        url = self.log_url.replace("|", "%7C")
        link = [f"<{_slack(url)}|log>"] if url else []
        return "\n".join([f"*{_slack(self.what)} failed* ({_slack(self.run)})", *map(_slack, self._lines), *link])

    def __str__(self) -> str:
        return self.text

    @property
    def _lines(self) -> list[str]:
        hint = [f"hint: {self.hint}"] if self.hint else []
        return [f"cause: {self.cause}", *hint, *self._last_backups]

    @cached_property
    def _last_backups(self) -> list[str]:
        found = self._looked_up
        more = len(found) - _MOST_BACKUPS
        sentences = [_clean(one.sentence) for one in found[:_MOST_BACKUPS]]
        return [*sentences, f"and {more} more"] if more > 0 else sentences

    @cached_property
    def _looked_up(self) -> list[LastBackup]:
        none: list[LastBackup] = []
        return _try(lambda: last_backups(targets_of(self._context)), none)

    @cached_property
    def _found(self) -> Cause:
        return _try(self._cause, Cause(_UNKNOWN))

    def _cause(self) -> Cause:
        if cause := find_cause(self._context):
            return cause
        error = self._context.get("exception")
        if error is None:
            reason = self._context.get("reason")
            if reason not in (None, "task_failure"):
                return Cause(f"the run ended with {reason}")
            return Cause("the error is unknown, for example after a kill" if reason is None else _UNKNOWN)
        if not isinstance(error, BaseException) or type(error).__name__ in _AIRFLOW_ERRORS:
            return Cause(str(error))
        return Cause(f"{type(error).__name__}: {error}")

    def _what(self) -> str:
        ti, dag = self._context.get("ti"), self._context.get("dag")
        if ti is None or "reason" in self._context:
            return _clean(f"DAG {dag.dag_id}" if dag is not None else _UNKNOWN)
        index = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
        return _clean(f"{ti.dag_id}.{ti.task_id}{index}")

    def _run(self) -> str:
        ti, run_id = self._context.get("ti"), self._context.get("run_id")
        if ti is None:
            return _clean(f"run {run_id}")
        if "reason" in self._context:
            return _clean(f"run {run_id}, last failed task {ti.task_id}")
        return _clean(f"run {run_id}, try {ti.try_number}")

    def _log_url(self) -> str:
        url = str(self._context["ti"].log_url)
        return url if url.startswith(("http://", "https://")) and url.isprintable() and len(url) <= _LONGEST else ""


def _try(function: Callable[[], T], default: T) -> T:
    """Return what a function returns; an alert with less in it is better than none."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001
        log.warning("an alert lacks a part: %s", type(error).__name__)
        return default


def _clean(text: str) -> str:
    """Return a text for an alert: one line of limited length, without secrets."""
    return _try(lambda: _masked(text), _UNKNOWN)


def _masked(text: str) -> str:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    # Masked before it is cut, which could leave a part of a secret; an error's message may have any length.
    shown = printable(str(redact(_USER_INFO.sub("***@", text[:_MOST_MASKED]))))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def _slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
