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
    # Above this module, and only here: operators name the link, which asks the page what it shows.
    from airflow_pgbackup.plugin import PREFIX, ROUTE
    from airflow_pgbackup.plugin.sources import read_sources

    try:
        number = next((one.number for one in read_sources() if _plain(one.uri) == _plain(place.repository)), None)
    except PgBackupError:  # the configuration of the page is no concern of a task; the page reports it
        return ""
    if number is None:
        return ""
    page = "backup" if place.id else "series" if place.series else ""
    named = {"repository": number, "series": place.series, "id": place.id} if page else {}
    query = urlencode({name: value for name, value in named.items() if value is not None})
    return f"plugin/{ROUTE}{PREFIX}/{page}{'?' if query else ''}{query}"


def _plain(uri: str) -> str:
    """Return the URI of a repository as its references have it."""
    from airflow_pgbackup.repository.open import open_repository

    return open_repository(uri).uri if uri.startswith("file:") else uri.rstrip("/")
