"""The routes of the actions: a form is posted, and its answer leads to a page about the run that it made."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from airflow_pgbackup.errors import BackupNotFound, ConfigurationError
from airflow_pgbackup.plugin import forms, pages
from airflow_pgbackup.plugin.cache import Cache
from airflow_pgbackup.plugin.dag_runs import Refused
from airflow_pgbackup.plugin.forms import Chosen
from airflow_pgbackup.repository.catalogue import find_backup

FOUND: Cache[bool] = Cache()
"""Which backups were found in their repositories, for a minute: an older answer never counts."""

Body = Annotated[bytes | None, Depends(forms.read_body)]


def add_to(app: FastAPI) -> None:
    """Add the routes of the actions."""
    app.add_api_route("/actions/{name}", _post, methods=["POST"])
    app.add_api_route("/actions/{name}", _back)
    app.add_api_route("/run", _run)


async def _post(request: Request, name: str, user: GetUserDep, body: Body) -> Response:
    """Trigger the DAG of an action, then show the run."""
    try:
        # Airflow's database is read in the threads in which Airflow's own routes read it.
        action, chosen, nonce = await run_in_threadpool(forms.check, request, user, name, body)
        await _find(chosen)
        await run_in_threadpool(forms.start, action, chosen, nonce, user)
    except (Refused, ConfigurationError) as refused:
        return _refusal(refused, "Not started", root="../")
    # Relative: Airflow may be below a path of its host. 303: loading the next page again posts nothing.
    return RedirectResponse(f"../run?action={action.name}&form={nonce}", 303)


def _back(name: str) -> Response:
    """Redirect a GET of a form's address to the overview: reloading Airflow's page after a refused form sends one."""
    return RedirectResponse("../", 303)


def _run(request: Request, user: GetUserDep, action: str = "", form: str = "") -> Response:
    """Show the run that a form made."""
    try:
        known, chosen, run = forms.started(request, user, action, form)
    except (Refused, ConfigurationError) as refused:
        return _refusal(refused, "No run")
    return pages.render("run.html", title=known.noun, action=known, chosen=chosen, run=run)


def _refusal(problem: Refused | ConfigurationError, title: str, root: str = "") -> Response:
    status = problem.status if isinstance(problem, Refused) else 500
    return pages.render("refused.html", status=status, title=title, problem=problem, root=root)


async def _find(chosen: Chosen) -> None:
    """Read in its repository whether it holds a backup.

    :raises Refused: it does not, or it cannot be read.
    """
    source = chosen.source
    key = *source.place, chosen.series, chosen.id
    reading = await FOUND.get(key, lambda: _holds(chosen), lane=source.place)
    known = reading.value is not None and not reading.old
    if not known and reading.problem is not None:
        raise Refused(502, reading.problem.message, reading.problem.hint or "Check that the repository can be reached.")
    if not known:
        raise Refused(504, f"{source.uri} has not answered yet", "Press the button again in a minute.")
    if not reading.value:
        raise forms.unknown()


def _holds(chosen: Chosen) -> bool:
    try:
        find_backup(chosen.source.open(), chosen.series, chosen.id)
    except BackupNotFound:
        return False
    return True
