"""The app behind the page: its routes, who may call them, and what it answers when something goes wrong."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException

from airflow_pgbackup.plugin import actions, details, pages
from airflow_pgbackup.plugin.security import may_see, with_headers

_STATIC = {
    "backups.css": "text/css",
    "backups.js": "text/javascript",
    "icon-light.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}


@lru_cache(maxsize=1)
def app() -> FastAPI:
    """Return the app, made once for each process."""
    made = FastAPI(
        title="Backups",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(may_see())],
        redirect_slashes=False,
    )
    made.middleware("http")(with_headers)
    made.add_exception_handler(AnyHTTPException, _refused)
    made.add_exception_handler(pages.ProblemPage, _problem)
    made.add_api_route("/", pages.overview_page, response_class=HTMLResponse)
    made.add_api_route("/series", details.series_page, response_class=HTMLResponse)
    made.add_api_route("/backup", details.backup_page, response_class=HTMLResponse)
    actions.add_to(made)
    # A route of Starlette has no dependencies: the page that asks for a login needs the style sheet and the script.
    made.add_route("/static/{name}", _static)
    for route in made.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods:
            route.methods.add("HEAD")  # FastAPI, unlike Starlette, adds no HEAD to a GET route
    made.add_api_route("/{path:path}", _nothing, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    return made


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    content = (files("airflow_pgbackup.plugin") / "static" / name).read_bytes()
    return Response(content, media_type=_STATIC[name], headers={"Cache-Control": "private, max-age=3600"})


def _nothing(path: str) -> Response:
    raise HTTPException(404)


async def _refused(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, AnyHTTPException)  # noqa: S101
    title, say = {
        401: ("Log in to Airflow", "This page shows backups to users who have logged in."),
        403: ("No access", "Your Airflow role may not see assets; ask an administrator for that right."),
        404: ("Not found", "There is no such page, series or backup. Prune may have removed it."),
    }.get(error.status_code, ("Not possible", "The request was refused."))
    path = request.url.path.removeprefix(request.scope["root_path"])
    root = "../" * (path.count("/") - 1)
    problem: dict[str, Any] = {"title": title, "say": say, "login": error.status_code == 401, "root": root}
    return pages.render("message.html", status=error.status_code, headers=error.headers, **problem)


async def _problem(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, pages.ProblemPage)  # noqa: S101
    return error.page
