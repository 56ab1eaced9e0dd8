"""The results of a bulk verb: a line for each that is not done, a summary, the exit status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from airflow_pgbackup.backup.bulk import DONE, ERROR, FAILED, NOT_PROVEN, BackupResult, summary, worst
from airflow_pgbackup.cli.listing import Listing
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.quantities import counted

_STATUS = {FAILED: "check failed", ERROR: "failed", NOT_PROVEN: "not proven", DONE: "done"}


def show_results(
    session: Session, doing: str, results: Iterable[BackupResult], done: str, about: Mapping[str, object]
) -> None:
    """Work through the results and show them. The exit status is that of the worst one.

    :param doing: is shown meanwhile.
    :param done: the past participle of the verb, ``verified``.
    :param about: further members of the JSON document.
    """
    found: list[BackupResult] = []
    try:
        with session.working(doing, makes=True):
            for one in results:
                found.append(one)
                if one.outcome != DONE:
                    session.log(f"{one.outcome}: {one.name}: {one.reason}")
    except BaseException:
        if found:
            session.log(f"stopped; until then: {_counts(found, done)}")
        raise
    session.status = EXIT_STATUS[_STATUS[worst(found)]]
    document = {**about, "results": [one.as_json() for one in found], "summary": summary(found)}
    session.result(document, *_lines(found), _counts(found, done))


def _lines(found: Sequence[BackupResult]) -> list[str | Listing]:
    listing = Listing(("", "backup", "reason"), names=2)
    for one in found:
        if one.outcome != DONE:
            listing.add(one.outcome, one.name, one.reason or "")
    hints = dict.fromkeys(one.hint for one in found if one.hint and one.outcome != DONE)
    return [*([listing] if listing.rows else []), *(f"hint: {hint}" for hint in hints)]


def _counts(found: Sequence[BackupResult], done: str) -> str:
    numbers = summary(found)
    parts = [f"{numbers[DONE]:,} {done}", f"{numbers[FAILED]:,} failed"]
    if numbers[ERROR]:
        parts.append(counted(numbers[ERROR], "error"))
    parts += [f"{numbers[NOT_PROVEN]:,} not proven"] if done != "uploaded" else []
    parts.append(f"{numbers['skipped']:,} skipped")
    return f"{counted(len(found), 'backup')}: {', '.join(parts)}"


def one_or_all(session: Session) -> bool:
    """Return whether ``--all`` is given.

    :raises ConfigurationError: neither a series nor ``--all``, or arguments that belong to the other one.
    """
    arguments = session.arguments
    if arguments.all:
        if arguments.id != "latest":
            raise ConfigurationError("--all cannot be combined with the ID of a backup", hint="Omit one of them.")
        return True
    if arguments.series is None:
        raise ConfigurationError("neither a series nor --all is given", hint="Name a series, or give --all.")
    only_all = {"--newest": arguments.newest, "--server": arguments.server}
    if given := [flag for flag, value in only_all.items() if value is not None]:
        raise ConfigurationError(f"{given[0]} is only for --all", hint=f"Add --all, or omit {given[0]}.")
    return False
