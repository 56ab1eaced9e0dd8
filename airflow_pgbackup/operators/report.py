"""PgBackupReportOperator: mail a report on the state of the backups in the last days."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_pgbackup.errors import ConfigurationError, PgBackupError
from airflow_pgbackup.operators._base import PgBackupOperator, is_true, whole_number, with_lists
from airflow_pgbackup.private_directory import PrivateDirectory
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_pgbackup.backup.context import RunContext
    from airflow_pgbackup.backup.report import Report

_MOST_NAMED = 100


class PgBackupReportOperator(PgBackupOperator):
    """Mail a report on the state of the backups in some repositories.

    The log has the report as text. The task succeeds whatever the report says: it informs, and the freshness sensor
    alarms. It fails if the mail cannot be sent. It returns ``{"sentence", "start", "end" (ISO 8601), "in_danger":
    ["server/database", …] (the worst 100), "unread": [URI, …], "empty": [URI, …], "mailed_to": [address, …]}``.

    :param repositories: URIs. One that cannot be read is in the report as such.
    :param days: length of the period that ends now, 1 to 366.
    :param max_age: the greatest age of the newest verified backup of a series that could be restored in time.
    :param level: the level at which it must be verified.
    :param aws_conn_id: for ``s3://`` repositories; None is boto3's own chain.
    :param to: addresses; none: no mail. It needs the SMTP provider, ``apache-airflow-providers-smtp``.
    :param smtp_conn_id: the connection of the mail server, which also gives the sender.
    :param subject: of the mail, before the first words of the report.
    :param picture: attach the picture as PNG. It needs matplotlib: ``airflow-pgbackup[report]``.
    """

    template_fields = (
        "repositories",
        "days",
        "level",
        "aws_conn_id",
        "to",
        "smtp_conn_id",
        "subject",
        "picture",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"repositories": "json", "to": "json"}

    def __init__(
        self,
        *,
        repositories: Sequence[str],
        days: int | str = 7,
        max_age: timedelta = timedelta(hours=26),
        level: str = "archive",
        aws_conn_id: str | None = "aws_default",
        to: Sequence[str] = (),
        smtp_conn_id: str = "smtp_default",
        subject: str = "PostgreSQL backups",
        picture: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.repositories = repositories
        self.days = days
        self.max_age = max_age
        self.level = level
        self.aws_conn_id = aws_conn_id
        self.to = to
        self.smtp_conn_id = smtp_conn_id
        self.subject = subject
        self.picture = picture

    def _run(self, context: Context, run: RunContext) -> dict[str, object]:
        from airflow_pgbackup.backup.overview import Target, Targets
        from airflow_pgbackup.backup.report import as_text, report
        from airflow_pgbackup.hooks.repository import Repositories

        given = with_lists({"repositories": self.repositories, "to": self.to})
        opened = Repositories(cancel=run.cancel)
        found = report(
            repositories=[opened.open(uri, self.aws_conn_id) for uri in given["repositories"]],
            days=whole_number("days", self.days, 1),
            targets=Targets(Target(max_age=self.max_age, level=self.level)),
            context=run,
        )
        for line in as_text(found):
            run.log(line)
        if given["to"]:
            run.cancel.check()
            self._mail(found, list(given["to"]), run)
        return {
            "sentence": printable(found.sentence),
            "start": found.start.isoformat(),
            "end": found.end.isoformat(),
            "in_danger": [printable(f"{one.server}/{one.database}") for one in found.in_danger[:_MOST_NAMED]],
            "unread": [each.uri for each in found.unread],
            "empty": [each.uri for each in found.empty],
            "mailed_to": list(given["to"]),
        }

    def _mail(self, found: Report, to: list[str], run: RunContext) -> None:
        try:
            from airflow.providers.smtp.hooks.smtp import SmtpHook
        except ImportError:
            raise ConfigurationError(
                "the mail needs the SMTP provider, which is not installed",
                hint="Install apache-airflow-providers-smtp, or pass no addresses.",
            ) from None
        from airflow_pgbackup.backup.report import as_html
        from airflow_pgbackup.quantities import counted

        danger = len(found.in_danger) + len(found.unread)
        state = f"{danger} in danger" if danger else "all restorable" if found.all_restorable else "no backup"
        if not danger and 0 < len(found.empty) < len(found.repositories):
            state = f"{counted(len(found.empty), 'repository', 'repositories')} without a backup"
        elif not danger and found.unknown:
            state = "not all known"
        subject = f"{self.subject}: {state}"
        files = []
        with ExitStack() as stack:
            if is_true("picture", self.picture):
                from airflow_pgbackup.backup.report.plot import plot

                picture = stack.enter_context(PrivateDirectory(run.settings.temp_dir)) / "backups.png"
                picture.write_bytes(plot(found))
                files.append(str(picture))
                run.cancel.check()  # the plot takes seconds
            try:
                with SmtpHook(smtp_conn_id=self.smtp_conn_id) as smtp:
                    smtp.send_email_smtp(to=to, subject=printable(subject), html_content=as_html(found), files=files)
            except Exception as error:  # noqa: BLE001  smtplib's, the hook's, or the network's
                raise PgBackupError(
                    f"cannot mail the report by connection {self.smtp_conn_id}: {type(error).__name__}: "
                    f"{printable(str(error))[:300]}",
                    hint="Check the connection: its host, port, login, and from_email in its extra.",
                ) from None
