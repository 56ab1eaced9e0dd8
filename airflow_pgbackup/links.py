"""Links on the page of a task instance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

from airflow_pgbackup.errors import PgBackupError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["BackupPageLink", "S3ConsoleLink"]

PAGE_PREFIX = "/pgbackup"
"""Where the app of the Backups page is mounted, below Airflow's base URL."""
PAGE_ROUTE = "backups"
"""The page's place in Airflow's navigation, ``/plugin/backups``."""


class S3ConsoleLink(BaseOperatorLink):
    """The folder of the task's backup in the S3 console of AWS.

    Airflow asks for it where the task runs, when the task ends, and stores it in XCom. It is empty, and no link is
    shown, for a repository on a file system or on another store.
    """

    name = "S3 console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return getattr(operator, "console_url", None) or ""


class PlaceOnPage(NamedTuple):
    """What of a repository a task worked on: a backup, a series (no ``id``), or all of it (no ``series`` either).

    :ivar series: its folder.
    """

    repository: str
    series: str | None = None
    id: str | None = None


class BackupPageLink(BaseOperatorLink):
    """The task's backup on the Backups page in Airflow's UI; for a prune task its series, or the overview.

    Airflow asks for it where the task runs, and stores it in XCom. It is empty, and no link is shown, unless
    ``[pgbackup] page_repositories`` or ``page_fleet`` names the repository there: these settings should be the same for
    workers and API servers. The address is relative to Airflow's base URL, which the UI adds. Airflow 3.2 opens the
    overview for each address.
    """

    name = "Backup"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        place: PlaceOnPage | None = getattr(operator, "place_on_page", None)
        return "" if place is None else _address(place)


def _address(place: PlaceOnPage) -> str:
    from airflow_pgbackup.settings import load

    try:
        given = load(airflow=True)
    except PgBackupError:  # the configuration of the page is no concern of a task; the page reports it
        return ""
    named = [plain_uri(uri) for uri in given.repositories_of_page]
    # Only the page reads the fleet's file; for a repository that the file does not name, the link shows "Not found".
    if plain_uri(place.repository) not in named and not given.page_fleet:
        return ""
    page = "backup" if place.id else "series" if place.series else ""
    asked = {"repository": place.repository, "series": place.series, "id": place.id} if page else {}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return f"plugin/{PAGE_ROUTE}{PAGE_PREFIX}/{page}{'?' if query else ''}{query}"


def plain_uri(uri: str) -> str:
    """Return the URI of a repository as its references have it, for a comparison."""
    from airflow_pgbackup.repository.open import open_repository

    try:
        return open_repository(uri).uri if uri.startswith("file:") else uri.rstrip("/")
    except PgBackupError:
        return uri
