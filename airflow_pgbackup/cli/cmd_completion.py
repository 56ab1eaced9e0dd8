"""``pgbackup completion``: print the script that completes commands, options and their values in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from airflow_pgbackup.backup.restore.target import MODES
from airflow_pgbackup.cli.parser import make_parser
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.repository.layout import LEVELS

_VALUES = {"LEVEL": LEVELS, "MODE": MODES, "SECTION": ("pre-data", "data", "post-data")}
_FILES, _DIRECTORIES = ("FILE", "SOURCE"), ("DIRECTORY",)


def run(session: Session) -> None:
    import shtab

    shell, parser = session.arguments.shell, make_parser()
    for action in _actions(parser):
        if values := _VALUES.get(str(action.metavar)):
            action.choices = [*values, *(["none"] if action.dest == "minimum_level" else [])]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _DIRECTORIES:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    script = shtab.complete(parser, shell)
    session.result({"shell": shell, "script": script}, *script.rstrip("\n").split("\n"))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action
