"""``pgbackup report``: report what was verified in a repository in the last days."""

from __future__ import annotations

import os
from urllib.parse import quote

from airflow_pgbackup.backup.overview import Target, Targets
from airflow_pgbackup.backup.report import as_html, as_text, report
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.output_file import output_file, replace_file
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.time_spans import parse_span


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    page, picture = output_file(arguments.html, "--html"), output_file(arguments.plot, "--plot")
    target = Target(max_age=parse_span(arguments.max_age), level=arguments.level)
    with session.working(f"reading {repository.uri}"):
        found = report(
            repositories=[repository],
            days=arguments.days,
            targets=Targets(target),
            skip_unreadable=False,
            context=session.context,
        )
    lines = as_text(found)
    if picture is not None:
        from airflow_pgbackup.backup.report.plot import plot

        replace_file(picture, plot(found))
        lines.append(f"wrote the picture to {picture}")
    if page is not None:
        shown = quote(os.fsencode(os.path.relpath(picture, page.parent))) if picture else None
        replace_file(page, as_html(found, picture=shown).encode())
        lines.append(f"wrote the report to {page}")
    session.result(found.as_json(), *lines)
