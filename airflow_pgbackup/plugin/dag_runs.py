"""Runs of the DAGs that the page's actions trigger: who may trigger one, and the trigger itself.

A run is made by :func:`airflow.api.common.trigger_dag.trigger_dag`, which Airflow's own API calls for
``TriggerDagRunOperator`` (``execution_api/routes/dag_runs.py``); before it come the checks of the public API's
``trigger_dag_run``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.exceptions import DagRunAlreadyExists
from airflow.models.dag import DagModel
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi import HTTPException
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from starlette.requests import Request


class Refused(Exception):
    """An action cannot be done.

    :ivar status: of HTTP.
    :ivar message: what failed.
    :ivar hint: what to do.
    """

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


@dataclass(frozen=True)
class StartedRun:
    """A DAG run that an action made.

    :param state: its state, as Airflow names it.
    :param conf: the params that the action gave.
    """

    dag_id: str
    run_id: str
    state: str
    conf: Mapping[str, object]


def may(request: Request, user: BaseUser, dag_id: str, method: str = "POST") -> bool:
    """Return whether the user may trigger runs of a DAG (``GET``: see them), by the rules of Airflow's auth manager."""
    check = requires_access_dag(method=method, access_entity=DagAccessEntity.RUN, param_dag_id=dag_id)  # type: ignore[arg-type]
    try:
        check(request, user)
    except HTTPException:
        return False
    return True


def trigger(
    dag_id: str, run_id: str, conf: Mapping[str, str], user: BaseUser, *, setting: str, default: Mapping[str, str]
) -> None:
    """Make a run of a DAG, unless there is one with this id.

    :param conf: values for the DAG's params, each of which it must declare, unless it has its value in `default`.
    :param setting: which setting names the DAG, for hints.
    :raises Refused: the DAG does not exist, has import errors, is paused, or refuses the params.
    """
    conf = _check(dag_id, conf, setting, default)
    try:
        trigger_dag(
            dag_id=dag_id,
            run_id=run_id,
            conf=dict(conf),
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=user.get_name(),
        )
    except DagRunAlreadyExists:
        return
    except IntegrityError:  # the same form, sent twice at the same moment
        if find(dag_id, run_id) is None:
            raise
    except ValueError as error:  # params that the DAG's schema refuses
        reason = printable(str(error).strip().partition("\n")[0])[:500]
        raise Refused(
            400,
            f"DAG {dag_id} refused the backup: {reason}",
            "Its author lists the repositories, series and connections that it accepts. Have the missing one added "
            "to the DAG's params.",
        ) from None


def find(dag_id: str, run_id: str) -> StartedRun | None:
    """Return a run of a DAG, None if there is none."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        return None if run is None else StartedRun(dag_id, run_id, str(run.state), dict(run.conf or {}))


def _check(dag_id: str, conf: Mapping[str, str], setting: str, default: Mapping[str, str]) -> dict[str, str]:
    with create_session() as session:
        model = session.scalar(select(DagModel).where(DagModel.dag_id == dag_id, ~DagModel.is_stale))
        dag = None if model is None else DBDagBag().get_latest_version_of_dag(dag_id, session=session)
        if model is None or dag is None:
            raise Refused(
                409,
                f"DAG {dag_id} does not exist",
                f"Add it to Airflow's DAGs, or set {setting} to the id of one that takes {', '.join(conf)}. "
                "airflow_pgbackup/demo/dags has an example.",
            )
        if model.has_import_errors:
            raise Refused(
                409,
                f"DAG {dag_id} has import errors",
                "Airflow's home page shows them. Repair its file, then retry.",
            )
        if model.is_paused:
            raise Refused(
                409, f"DAG {dag_id} is paused", "Unpause it on its page in Airflow, then press the button again."
            )
        if model.allowed_run_types is not None and DagRunType.MANUAL not in model.allowed_run_types:
            raise Refused(409, f"DAG {dag_id} does not allow manual runs", "Add manual to its allowed_run_types.")
        given = {name: value for name, value in conf.items() if name in dag.params or default.get(name) != value}
        if missing := [name for name in given if name not in dag.params]:
            raise Refused(
                409,
                f"DAG {dag_id} declares no param {', '.join(missing)}",
                "Without it the run would work on something else than this backup. Declare it in the DAG, or set "
                f"{setting} to another.",
            )
        return given
