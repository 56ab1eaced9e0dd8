"""Which repositories the page shows, and what it requires of them: from ``[pgbackup]``, or from a fleet's mapping."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup import settings
from airflow_pgbackup.backup.overview import Target, Targets
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.links import plain_uri
from airflow_pgbackup.postgres.sql.patterns import exact_name
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.open import parse_uri
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.text import did_you_mean
from airflow_pgbackup.time_spans import parse_span
from airflow_pgbackup.wording import setting

if TYPE_CHECKING:
    from airflow_pgbackup.pipelines.fleet.model import Server
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository

Rule = tuple[Callable[[Series], bool], Target]

AWS_DEFAULT = "aws_default"
"""The connection of operators, and of the DAGs of the actions, that name none."""


@dataclass(frozen=True)
class PageRepository:
    """A repository that the page shows.

    :param number: its name in the page's addresses.
    :param uri: without secrets.
    :param aws_conn_id: of an ``s3://`` repository; None: boto3's own chain.
    """

    number: int
    uri: str
    aws_conn_id: str | None
    targets: Targets

    @property
    def place(self) -> tuple[str, str | None]:
        """What distinguishes its readings from those of other repositories."""
        return self.uri, self.aws_conn_id

    @property
    def aws_param(self) -> str:
        """The connection as a param of a DAG; empty for boto3's own chain. ``file://`` needs none: the default."""
        return self.aws_conn_id or "" if self.uri.lower().startswith("s3://") else AWS_DEFAULT

    @property
    def plain_uri(self) -> str:
        """The URI as references have it."""
        return plain_uri(self.uri)

    def open(self, cancel: Cancel | None = None) -> Repository:
        """Open the repository. No request is sent to S3 yet.

        :raises ConfigurationError: an unknown kind of URI.
        """
        from airflow_pgbackup.hooks.repository import open_repository

        return open_repository(self.uri, self.aws_conn_id, cancel=cancel)


def read_sources() -> list[PageRepository]:
    """Return the repositories that are configured; none if nothing is.

    :raises ConfigurationError: a setting, or the fleet's mapping, is invalid.
    """
    given = settings.load(airflow=True)
    default = Target(
        max_age=timedelta(seconds=given.page_max_age), level=given.page_level, policy=_policy(given.page_retention)
    )
    uris = given.repositories_of_page
    _refuse_secrets(uris)
    places = [(uri, given.page_aws_conn_id or None) for uri in uris]
    fleet = _read_fleet(Path(given.page_fleet), default) if given.page_fleet else _Fleet()
    places += fleet.places
    # One repository may be written in several ways, and be named by a fleet and beside it.
    every = {(plain_uri(uri), aws_conn_id): (uri, aws_conn_id) for uri, aws_conn_id in reversed(places)}
    return [
        PageRepository(number, *place, Targets(default, fleet.rules(plain[0]), fleet.stored.get(plain, {})))
        for number, (plain, place) in enumerate(reversed(every.items()))
    ]


def _refuse_secrets(uris: Sequence[str]) -> None:
    """Refuse URIs that may hold a secret: the page shows the URI of a repository even if it cannot be opened."""
    for number, uri in enumerate(uris, 1):
        try:
            parse_uri(uri)
        except ConfigurationError:
            if set(uri) & set("@?"):
                raise ConfigurationError(
                    f"setting page_repositories is invalid: URI {number} holds credentials or options",
                    hint="Set the credentials in the connection that page_aws_conn_id names.",
                ) from None


def _policy(text: str) -> Policy | None:
    if not text:
        return None
    invalid = "setting page_retention is invalid"
    hint = f'Give {setting("page_retention")} the parameters of prune as JSON, such as {{"keep_daily": 7}}.'
    try:
        rules = json.loads(text)
    except (ValueError, RecursionError):
        rules = None
    if not isinstance(rules, dict):
        raise ConfigurationError(f"{invalid}: not a JSON object", hint=hint)
    known = {field.name for field in fields(Policy)}
    for name in sorted(rules.keys() - known):
        raise ConfigurationError(f"{invalid}: unknown parameter {name!r}", hint=did_you_mean(name, known, hint))
    try:
        for name in ("keep_within", "replace_after"):
            if rules.get(name) is not None:
                rules[name] = parse_span(str(rules[name]))
        return Policy(**rules)
    except ConfigurationError as error:
        raise ConfigurationError(f"{invalid}: {error.message}", hint=error.hint) from None


@dataclass(frozen=True)
class _Fleet:
    """What a fleet's mapping says.

    :param places: the repositories, as the mapping has them.
    :param stored: the servers that are backed up to a repository, by its plain URI and connection, each with the
        databases that the mapping names without a pattern.
    :param targets: those of servers in a repository, by its plain URI, with their retention there.
    :param everywhere: those of all servers, with the retention that the page knows by default.
    """

    places: list[tuple[str, str | None]] = field(default_factory=list)
    stored: dict[tuple[str, str | None], dict[str, list[str]]] = field(default_factory=dict)
    targets: dict[str, dict[str, Rule]] = field(default_factory=dict)
    everywhere: list[Rule] = field(default_factory=list)

    def rules(self, plain: str) -> tuple[Rule, ...]:
        """Return the targets of the servers in a repository, also of those that the fleet does not back up to it."""
        return *self.targets.get(plain, {}).values(), *self.everywhere


def _read_fleet(path: Path, default: Target) -> _Fleet:
    from airflow_pgbackup.pipelines.fleet.read import read_fleet

    try:
        servers = read_fleet(path, imports=False)  # the API server does not have the modules beside the DAG files
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the fleet's mapping {path}: {error.strerror}",
            hint=f"Check {setting('page_fleet')}: the API server reads this file.",
        ) from None
    fleet = _Fleet()

    def add(uri: str, aws_conn_id: str | None, name: str, target: Target) -> None:
        plain = plain_uri(uri)
        fleet.places.append((uri, aws_conn_id))
        fleet.stored.setdefault((plain, aws_conn_id), {})[name] = _named(servers[name])
        fleet.targets.setdefault(plain, {}).setdefault(name, (_of_server(name), target))

    for name, server in servers.items():
        target = _target(server, server.retention, default)
        fleet.everywhere.append((_of_server(name), replace(target, policy=default.policy)))
        add(str(server.repository), server.aws_conn_id, name, target)
        if server.upload_to is not None:
            target = _target(server, server.upload_retention or server.retention, default)
            add(str(server.upload_to), server.upload_aws_conn_id, name, target)
    return fleet


def _named(server: Server) -> list[str]:
    """Return the databases that a server names without a pattern. Longer names do not exist in PostgreSQL."""
    names = dict.fromkeys(map(exact_name, server.databases))
    return [one for one in names if one and "\0" not in one and len(one.encode()) < 64]


def _target(server: Server, retention: object, default: Target) -> Target:
    rules = {name: getattr(retention, name) for name in getattr(retention, "model_fields_set", ())}
    return Target(
        max_age=server.freshness.max_age if server.freshness else default.max_age,
        level=server.level,
        policy=Policy(**{"minimum_level": server.level, "time_zone": server.time_zone, **rules}) if rules else None,
    )


def _of_server(name: str) -> Callable[[Series], bool]:
    return lambda series: series.server == name
