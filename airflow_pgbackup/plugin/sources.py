"""Which repositories the page shows, and what it requires of them: from ``[pgbackup]``, or from a fleet's mapping."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_pgbackup import settings
from airflow_pgbackup.backup.overview import Target, Targets
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.links import plain_uri
from airflow_pgbackup.repository.layout import Series
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.wording import setting

if TYPE_CHECKING:
    from airflow_pgbackup.pipelines.fleet.model import Server
    from airflow_pgbackup.postgres.tools.cancel import Cancel
    from airflow_pgbackup.repository.base import Repository


@dataclass(frozen=True)
class Source:
    """A repository that the page shows.

    :param number: its name in the page's addresses.
    :param uri: without secrets.
    :param aws_conn_id: of an ``s3://`` repository; None: boto's own chain.
    """

    number: int
    uri: str
    aws_conn_id: str | None
    targets: Targets

    @property
    def place(self) -> tuple[str, str | None]:
        """What tells its readings from those of other repositories."""
        return self.uri, self.aws_conn_id

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


def read_sources() -> list[Source]:
    """Return the repositories that are configured; none if nothing is.

    :raises ConfigurationError: a setting, or the fleet's mapping, is invalid.
    """
    given = settings.load(airflow=True)
    default = Target(
        max_age=timedelta(seconds=given.page_max_age), level=given.page_level, policy=_policy(given.page_retention)
    )
    found: list[tuple[str, str | None, Targets]] = []
    uris = given.page_repositories.replace(",", " ").split()
    found += [(uri, given.page_aws_conn_id or None, Targets(default)) for uri in uris]
    if given.page_fleet:
        found += _of_fleet(Path(given.page_fleet), default)
    return [Source(number, *one) for number, one in enumerate(found)]


def _policy(text: str) -> Policy | None:
    if not text:
        return None
    hint = f'Give {setting("page_retention")} the parameters of prune as JSON, such as {{"keep_daily": 7}}.'
    try:
        rules = json.loads(text)
        return Policy(**rules)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"setting page_retention is invalid: {error}", hint=hint) from None


def _of_fleet(path: Path, default: Target) -> Iterable[tuple[str, str | None, Targets]]:
    from airflow_pgbackup.pipelines.fleet.read import read_fleet

    try:
        servers = read_fleet(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the fleet's mapping {path}: {error.strerror}",
            hint=f"Check {setting('page_fleet')}: the API server reads this file.",
        ) from None
    repositories: dict[tuple[str, str | None], dict[str, Target]] = {}
    for name, server in servers.items():
        where = str(server.repository), server.aws_conn_id
        repositories.setdefault(where, {})[name] = _target(server, server.retention, default)
        if server.upload_to is not None:
            copies = str(server.upload_to), server.upload_aws_conn_id
            target = _target(server, server.upload_retention or server.retention, default)
            repositories.setdefault(copies, {})[name] = target
    for (uri, aws_conn_id), targets in repositories.items():
        yield uri, aws_conn_id, Targets(default, tuple((_of_server(name), one) for name, one in targets.items()))


def _target(server: Server, retention: object, default: Target) -> Target:
    rules = {name: getattr(retention, name) for name in getattr(retention, "model_fields_set", ())}
    return Target(
        max_age=server.freshness.max_age if server.freshness else default.max_age,
        level=server.level,
        policy=Policy(**{"minimum_level": server.level, "time_zone": server.time_zone, **rules}) if rules else None,
    )


def _of_server(name: str) -> Callable[[Series], bool]:
    return lambda series: series.server == name
