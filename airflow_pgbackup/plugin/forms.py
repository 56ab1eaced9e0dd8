"""Actions of the Backups page: each triggers a run of a DAG that the deployment names, and does nothing else.

Off unless configured: ``[pgbackup] page_verify_dag_id`` and so on. A user needs the right to trigger the DAG, by
Airflow's own rules. The backup is one that the repository lists; no URI comes from the request.

A form makes one run however often it is sent: its token names the run. Whoever wants another run loads the page again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.requests import Request  # FastAPI looks the annotations of a dependency up

from airflow_pgbackup.plugin import csrf, dag_runs
from airflow_pgbackup.plugin.dag_runs import Refused, StartedRun
from airflow_pgbackup.plugin.sources import AWS_DEFAULT, PageRepository, read_sources
from airflow_pgbackup.repository.layout import Series, parse_backup_id
from airflow_pgbackup.settings import load

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

AGAIN = "Open the backup's page again and press its button."
_MOST = 32 * 1024
_NONCE = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Action:
    """What a button of the page does.

    :param name: in its URL and its setting.
    :param noun: what a run does, a title.
    :param label: of the button.
    :param about: what a run does, for the button's tooltip.
    """

    name: str
    noun: str
    label: str
    about: str

    @property
    def setting(self) -> str:
        """The setting that names the DAG."""
        return f"page_{self.name}_dag_id"

    @property
    def dag_id(self) -> str:
        """The DAG; empty: the action is off."""
        return str(getattr(load(airflow=True), self.setting))

    def run_id(self, nonce: str) -> str:
        """Return the id of the run that a form makes."""
        return f"manual__backups-page-{self.name}-{nonce}"


ACTIONS = {
    action.name: action
    for action in (
        Action("verify", "Verification", "Verify now", "reads the complete backup and records the result"),
        Action("rehearse", "Rehearsal", "Rehearse now", "restores the backup into a throwaway server and compares it"),
        Action(
            "restore",
            "Restore",
            "Plan a restore",
            "plans a restore and waits for an approval before it changes anything",
        ),
    )
}


@dataclass(frozen=True)
class Chosen:
    """A backup that a form is about."""

    source: PageRepository
    series: Series
    id: str


@dataclass(frozen=True)
class Button:
    """A form with one button.

    :param token: for its hidden field.
    """

    action: Action
    chosen: Chosen
    token: str


def buttons(request: Request, user: BaseUser, chosen: Chosen) -> list[Button]:
    """Return the buttons that a user sees for a backup: those of configured actions whose DAG they may trigger.

    This reads Airflow's database, so an asynchronous route calls it in a thread. ``actions.html`` shows the buttons.
    """
    return [
        Button(action, chosen, csrf.issue(user.get_id(), *_bound(action, chosen)))
        for action in ACTIONS.values()
        if (dag_id := action.dag_id) and dag_runs.may(request, user, dag_id)
    ]


async def read_body(request: Request) -> bytes | None:
    """Return the body of a request; None if it is too long for a form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST:
            return None
    return body


def check(request: Request, user: BaseUser, name: str, body: bytes | None) -> tuple[Action, Chosen, str]:
    """Return what a form asks for, and the random part of its token, once everything about the request is checked.

    :param name: of the action.
    :param body: of the request, see :func:`read_body`.
    :raises Refused: the action is off, the request does not come from a form of the page for this user, or the user
        may not trigger the DAG.
    """
    action = ACTIONS.get(name)
    if action is None or not action.dag_id:
        raise Refused(404, "the action is not configured", "An administrator can set its DAG in [pgbackup].")
    if not csrf.is_own_origin(request):
        raise Refused(403, "the request comes from another site", AGAIN)
    form = _parse(body)
    chosen = _chosen(form)
    try:
        nonce = csrf.accept(form.get("token", ""), user.get_id(), *_bound(action, chosen))
    except csrf.InvalidToken as error:
        raise Refused(403, str(error), AGAIN) from None
    if not dag_runs.may(request, user, action.dag_id):
        raise Refused(
            403,
            f"you may not trigger DAG {action.dag_id}",
            "An administrator can grant the right to create runs of this DAG.",
        )
    return action, chosen, nonce


def start(action: Action, chosen: Chosen, nonce: str, user: BaseUser) -> None:
    """Trigger the DAG of an action for a backup that its repository lists.

    :raises Refused: the DAG cannot be triggered.
    """
    conf = {"repository": chosen.source.uri, "series": chosen.series.path, "backup_id": chosen.id}
    # The bucket of another account can have the same name, and the same backup.
    conf["aws_conn_id"] = chosen.source.aws_param
    default = {"aws_conn_id": AWS_DEFAULT}
    setting = f"[pgbackup] {action.setting}"
    dag_runs.trigger(action.dag_id, action.run_id(nonce), conf, user, setting=setting, default=default)


def started(request: Request, user: BaseUser, name: str, nonce: str) -> tuple[Action, Chosen, StartedRun]:
    """Return an action, and the backup and the run of its form, for a user who may see runs of the DAG.

    :raises Refused: there is none, or the user may not see it.
    """
    action = ACTIONS.get(name)
    missing = Refused(404, "there is no such run", "The page of the DAG in Airflow lists its runs.")
    if action is None or not action.dag_id or not _NONCE.fullmatch(nonce):
        raise missing
    if not dag_runs.may(request, user, action.dag_id, "GET"):
        raise missing
    run = dag_runs.find(action.dag_id, action.run_id(nonce))
    if run is None:
        raise missing
    # Whoever may trigger the DAG can give a run this id, and any conf.
    conf = {name: str(run.conf.get(name)) for name in ("repository", "series", "backup_id")}
    place = conf["repository"], str(run.conf.get("aws_conn_id", AWS_DEFAULT))
    source = next((str(one.number) for one in read_sources() if (one.uri, one.aws_param) == place), "")
    chosen = _chosen({"repository": source, "series": conf["series"], "id": conf["backup_id"]})
    return action, chosen, run


def _parse(body: bytes | None) -> Mapping[str, str]:
    """Return the fields of a URL-encoded form, each of which occurs once.

    :raises Refused: the body is something else, or too long.
    """
    try:
        fields = parse_qs((body or b"").decode(), strict_parsing=True, max_num_fields=8)
    except ValueError:
        fields = {}
    if not fields or any(len(values) > 1 for values in fields.values()):
        raise Refused(400, "the request is not a form of this page", AGAIN)
    return {name: values[0] for name, values in fields.items()}


def unknown() -> Refused:
    """Return the refusal of a backup that no repository lists."""
    return Refused(404, "there is no such backup", "Prune may have removed it. Go back to the list of backups.")


def _bound(action: Action, chosen: Chosen) -> tuple[str, ...]:
    # The repository too: after a change of the configuration, the number could be that of a copy with the same backup.
    return action.name, chosen.source.uri, chosen.source.aws_param, chosen.series.path, chosen.id


def _chosen(form: Mapping[str, str]) -> Chosen:
    try:
        source = {str(one.number): one for one in read_sources()}[form["repository"]]
        chosen = Chosen(source, Series.parse(form["series"]), form["id"])
    except (KeyError, ValueError):
        raise unknown() from None
    if parse_backup_id(chosen.id) is None:
        raise unknown()
    return chosen
