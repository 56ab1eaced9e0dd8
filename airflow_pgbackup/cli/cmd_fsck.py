"""``pgbackup fsck``: check a repository's structure without reading its artifacts."""

from __future__ import annotations

from airflow_pgbackup.backup.fsck import fsck
from airflow_pgbackup.backup.fsck.findings import ERROR, WARNING, FsckReport
from airflow_pgbackup.cli.arguments import repository_argument
from airflow_pgbackup.cli.session import Session
from airflow_pgbackup.cli.vocabulary import EXIT_STATUS
from airflow_pgbackup.quantities import counted, human_bytes
from airflow_pgbackup.time_spans import parse_span


def run(session: Session) -> None:
    arguments, repository = session.arguments, repository_argument(session)
    with session.working(f"checking {repository.uri}"):
        report = fsck(
            repository=repository,
            read=arguments.read,
            repair=arguments.repair,
            revert=arguments.revert,
            grace=parse_span(arguments.grace),
            context=session.context,
        )
    if not report.sound:
        session.status = EXIT_STATUS["check failed"]
    session.result(report.as_json(), *map(str, report.findings), *_summary(report))


def _summary(report: FsckReport) -> list[str]:
    lines = [f"{number:,} more findings of code {code} are not shown" for code, number in report.more]
    lines += [f"removed the leftovers of a killed process: {path}" for path in report.swept]
    if report.read:
        read = report.read
        lines.append(
            f"read {read.files:,} of {counted(read.of_files, 'file')} ({read.share}), "
            f"{human_bytes(read.size)} of {human_bytes(read.of_size)}"
        )
    lines.append(
        f"{counted(report.backups, 'backup')} in {counted(report.series, 'series')}, {counted(report.files, 'file')}, "
        f"{human_bytes(report.size)}"
    )
    repaired = sum(finding.repaired for finding in report.findings)
    found = [counted(report.count(ERROR), "error"), counted(report.count(WARNING), "warning")]
    if repaired:
        found.append(f"{repaired:,} repaired")
    elif repairable := sum(finding.repair is not None for finding in report.findings):
        found.append(f"{repairable:,} can be repaired (--repair)")
    lines.append("; ".join([", ".join(found[:2]), *found[2:]]) if report.findings else "no problems found")
    return lines
