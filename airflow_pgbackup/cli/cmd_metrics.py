"""``pgbackup metrics``: print metrics of a repository for Prometheus, or write them for node_exporter."""

from __future__ import annotations

from airflow_pgbackup.backup.metrics import metrics, render
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.output_file import output_file, replace_file
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    output = output_file(arguments.output, "--output")
    with session.working(f"reading {repository.uri}"):
        families = metrics(repository=repository)
    text = render(families)
    document = {
        "repository": repository.uri,
        "output": None if output is None else str(output),
        "metrics": [family.as_json() for family in families],
    }
    if output is not None:
        replace_file(output, text.encode(), for_all=True)
        session.result(document, f"wrote {sum(len(family.samples) for family in families):,} samples to {output}")
    elif arguments.json:
        session.result(document)
    else:
        session.out.write(text.rstrip("\n"))
