"""The report at the end of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.quantities import human_bytes, human_seconds
from airflow_pgbackup.repository.manifest import Manifest
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.terminal import Terminal, styled


@dataclass(frozen=True)
class Outcome:
    """The result of the demo.

    :param uri: of the artifact.
    :param source: ``schema.table`` to rows, counted in the live database; the same for ``restored``.
    """

    uri: str
    manifest: Manifest
    verification: Verification
    source: Mapping[str, int]
    restored: Mapping[str, int]
    seconds: float

    @property
    def verified(self) -> dict[str, int]:
        return {f"{table.schema}.{table.name}": table.rows for table in self.verification.tables}

    @property
    def problem(self) -> str | None:
        """The difference that was found, or None if the backup is proven."""
        if self.verification.result != "pass":
            return f"the verification's result is {self.verification.result}"
        names = self.source.keys() | self.verified.keys() | self.restored.keys()
        differing = sorted(
            name for name in names if not self.source.get(name) == self.verified.get(name) == self.restored.get(name)
        )
        return f"row counts of source, archive and restored copy differ: {', '.join(differing)}" if differing else None

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON."""
        return {
            "artifact": self.uri,
            "series": self.manifest.series.path,
            "id": self.manifest.id,
            "verified": self.verification.level,
            "rows": {"source": dict(self.source), "verified": self.verified, "restored": dict(self.restored)},
            "restore_command": restore_command_of(self.manifest),
            "duration_seconds": round(self.seconds, 3),
        }


def print_report(outcome: Outcome, terminal: Terminal) -> None:
    manifest, verification = outcome.manifest, outcome.verification
    table = Table("table", box=box.SIMPLE_HEAD)
    for title in ("rows in the source", "verified", "restored from S3"):
        table.add_column(title, justify="right")
    verified = outcome.verified
    for name in sorted(outcome.source.keys() | verified.keys() | outcome.restored.keys()):
        counts = [rows.get(name) for rows in (outcome.source, verified, outcome.restored)]
        style = None if len(set(counts)) == 1 else "bold red"
        table.add_row(name, *("missing" if count is None else f"{count:,}" for count in counts), style=style)
    table.add_section()
    table.add_row(
        f"{len(outcome.source)} tables",
        *(f"{sum(rows.values()):,}" for rows in (outcome.source, verified, outcome.restored)),
        style="bold",
    )
    terminal.print(table)
    size = f"{human_bytes(manifest.artifact.size)} in {human_seconds(manifest.duration_seconds)}"
    client, server = manifest.client, manifest.source.server_version
    checking = human_seconds(verification.duration_seconds)
    lines: dict[str, str | Text] = {
        "backup": outcome.uri,
        "dumped": f"{size}, by {client.tool} {client.version} from PostgreSQL {server}",
        "sha256": manifest.artifact.sha256,
        "verified": f"{verification.result}, level {verification.level}, in {checking}",
        "restore": restore_command_of(manifest),
        "proven": "this command was run on a copy from S3, and restored the rows above",
        "demo": f"{outcome.seconds:.0f} s in total; the servers and all files were removed",
    }
    if outcome.problem:
        lines["proven"] = styled(f"no: {outcome.problem}", "red")
    for name, value in lines.items():
        terminal.say(styled(f"{name:>9}", "bold"), "  ", value)
