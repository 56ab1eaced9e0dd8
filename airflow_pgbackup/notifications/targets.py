"""Which backups a failed task or run is about: its repository, and there a series, a server's series, or all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_pgbackup.notifications.operator_module import operator_module
from airflow_pgbackup.repository.layout import SCOPES, Series


@dataclass(frozen=True, kw_only=True)
class AlertScope:
    """Series of a repository.

    :param server: None: every server's.
    :param databases: only these of the server; None: all.
    :param postgres_conn_id: only the database of this connection.
    :param cluster: only, or also, the server's pg_dumpall backups.
    :param scopes: those of these scopes.
    :param exclude: patterns of series to ignore.
    :param each: its series count, and not only its backup sets.
    """

    repository: str
    aws_conn_id: str | None
    server: str | None = None
    databases: tuple[str, ...] | None = None
    postgres_conn_id: str | None = None
    cluster: bool = False
    scopes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    each: bool = False

    @property
    def is_one_series(self) -> bool:
        number = len(self.databases or ()) + self.cluster + len(self.scopes) + (self.postgres_conn_id is not None)
        return number == 1 and not self.each

    @property
    def name(self) -> str:
        """The series, the server or the repository, for people."""
        if not self.is_one_series or self.postgres_conn_id is not None:
            return self.server or self.repository
        database = self.databases[0] if self.databases else None
        return str(Series(self.server or "", database, self.scopes[0] if self.scopes else None))


def targets_of(context: Mapping[str, Any]) -> list[AlertScope]:
    """Return what a callback is about: what its task works on, or what the tasks of its DAG do, the failed one first.

    Nothing for a task that is not of this package.
    """
    task = getattr(context.get("ti"), "task", None)
    if task is not None and "reason" not in context:
        if operator_module(task) is None:
            return []
        # Without an exception this is the DAG processor, where the task's fields are not rendered.
        if target := _target(task, _keep if "exception" in context else _unless_template):
            return [target]

    def render(task: Any, text: str) -> str | None:
        with suppress(Exception):  # of the author's template
            return str(task.render_template(text, context))
        return None

    failed = getattr(context.get("ti"), "task_id", None)
    tasks = sorted(getattr(context.get("dag"), "tasks", []), key=lambda one: one.task_id != failed)
    return _merged(filter(None, (_target(one, render) for one in tasks)))


def _keep(task: Any, text: str) -> str | None:
    """Return a rendered text as it is: rendered again, a name from outside would be a template."""
    return text


def _unless_template(task: Any, text: str) -> str | None:
    return None if "{" in text else text


class _Unknown(Exception):
    """An argument is a template or the result of a task, which is not known here."""


def _target(task: Any, render: Callable[[Any, str], str | None]) -> AlertScope | None:
    """Return what a task works on; None for one that is not ours, or where that is not known."""
    with suppress(_Unknown):
        if kind := operator_module(task):
            return _target_of(task, kind, render)
    return None


def _target_of(task: Any, kind: str, render: Callable[[Any, str], str | None]) -> AlertScope | None:
    mapped = hasattr(task, "partial_kwargs")

    def argument(name: str, default: Any = None) -> Any:
        value = task.partial_kwargs.get(name, default) if mapped else getattr(task, name, default)
        if isinstance(value, str) and (value := render(task, value)) is None:
            raise _Unknown
        return value

    def text(name: str, default: str | None = None) -> str | None:
        value = argument(name, default)
        if value is not None and not isinstance(value, str):
            raise _Unknown
        return value or None

    def names(name: str) -> tuple[str, ...] | None:
        found = _names(argument(name))
        rendered = [render(task, one) for one in found or ()]
        if None in rendered:
            raise _Unknown
        return tuple(filter(None, rendered)) or None

    repository, aws_conn_id = text("repository"), text("aws_conn_id", "aws_default")
    backup = argument("backup")
    if isinstance(backup, Mapping):
        return _of_series(backup.get("repository"), aws_conn_id, backup.get("series"))
    if repository is None:
        return None
    if kind in ("restore", "refresh", "choose_backup"):  # their connection is that of the target
        return _of_series(repository, aws_conn_id, argument("series"))
    server = text("server") or text("postgres_conn_id")
    everything = AlertScope(repository=repository, aws_conn_id=aws_conn_id, server=server)
    if mapped:
        return everything
    if kind == "backup_set":
        discovery = argument("discovery")
        server = discovery.get("server") if isinstance(discovery, Mapping) else None
        return AlertScope(repository=repository, aws_conn_id=aws_conn_id, server=server)
    known: dict[str, Any] = {"repository": repository, "aws_conn_id": aws_conn_id, "server": server}
    if kind == "dump_all":
        scopes = tuple(scope for scope in SCOPES if argument(f"{scope}_only"))
        return AlertScope(**known, scopes=scopes, cluster=not scopes)
    if kind in ("dump", "check") and argument("cluster") is not True:
        try:
            database = text("database")
        except _Unknown:
            return everything
        named: dict[str, Any] = (
            {"databases": (database,)} if database else {"postgres_conn_id": text("postgres_conn_id")}
        )
        return AlertScope(**known, **named)
    if kind == "freshness":
        return AlertScope(
            **known,
            databases=names("databases"),
            cluster=argument("cluster") is True,
            scopes=names("scopes") or (),
            exclude=names("exclude") or (),
            each=True,
        )
    if kind == "prune":
        try:
            series = AlertScope(
                **known,
                databases=names("databases"),
                postgres_conn_id=text("postgres_conn_id") if argument("databases") is None else None,
                cluster=argument("cluster") is True,
                scopes=names("scopes") or (),
            )
        except _Unknown:
            return everything
        return series if series.is_one_series else everything
    return everything


def _of_series(repository: object, aws_conn_id: str | None, path: object) -> AlertScope | None:
    if not isinstance(repository, str):
        return None
    try:
        series = Series.parse(str(path))
    except ValueError:
        return None
    return AlertScope(
        repository=repository,
        aws_conn_id=aws_conn_id,
        server=series.server,
        databases=None if series.database is None else (series.database,),
        cluster=series.database is None and series.scope is None,
        scopes=(series.scope,) if series.scope else (),
    )


def _names(value: object) -> tuple[str, ...] | None:
    """Return a list of names; None for anything else, such as the result of a task that is not known here."""
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, str) for one in value):
        return tuple(value) or None
    return None


def _merged(targets: Iterable[AlertScope]) -> list[AlertScope]:
    """Return one target for each server of a repository, where the tasks of a DAG work on more than one series."""
    of_repository: dict[tuple[str, str | None], list[AlertScope]] = {}
    for one in targets:
        of_repository.setdefault((one.repository, one.aws_conn_id), []).append(one)
    merged: list[AlertScope] = []
    for (repository, aws_conn_id), found in of_repository.items():
        distinct = list(dict.fromkeys(found))
        if len(distinct) == 1:
            merged += distinct
            continue
        servers: list[str | None] = [*dict.fromkeys(one.server for one in distinct if one.server)]
        merged += [
            AlertScope(repository=repository, aws_conn_id=aws_conn_id, server=server) for server in servers or [None]
        ]
    return merged
