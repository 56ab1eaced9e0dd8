"""Links on the page of a task instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["S3ConsoleLink"]


class S3ConsoleLink(BaseOperatorLink):
    """The folder of the task's backup in the S3 console of AWS.

    Airflow asks for it where the task runs, when the task ends, and stores it in XCom. It is empty, and no link is
    shown, for a repository on a file system or on another store.
    """

    name = "S3 console"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        return getattr(operator, "console_url", None) or ""
