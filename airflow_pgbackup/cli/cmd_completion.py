"""``pgbackup completion``: print the script that completes commands and options in a shell."""

from __future__ import annotations

from airflow_pgbackup.cli.parser import make_parser
from airflow_pgbackup.cli.session import Session


def run(session: Session) -> None:
    import shtab

    shell = session.arguments.shell
    script = shtab.complete(make_parser(), shell)
    session.result({"shell": shell, "script": script}, *script.rstrip("\n").split("\n"))
