"""Plan a dump before anything runs: the tool's arguments, the format, the compression."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from airflow_pgbackup.backup.progress import Step
from airflow_pgbackup.backup.streams import Meter, has_fast_gzip
from airflow_pgbackup.errors import OptionError, ToolError
from airflow_pgbackup.postgres.archive.recompression import NEWEST_CLIENT, OLDEST_CLIENT
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.options.compression import Compression, default_compression
from airflow_pgbackup.postgres.tools.capabilities import NEWEST_MAJOR, OLDEST_MAJOR
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.postgres.tools.stderr import INTERLEAVED
from airflow_pgbackup.repository.manifest import US, RecordedCompression

_OURS = ("none", "zstd", "gzip")

# With --verbose pg_dump names each table when it starts it. Its other verbose lines are chatter.
_TABLE = re.compile(rf"{INTERLEAVED} ?dumping contents of table ")
_ITEM = re.compile(rf"{INTERLEAVED} ?finished item (\d+) ", re.ASCII)
_CHATTER = re.compile(
    r"(?:pg_dump(?:all)?: ?)+(?! ?(?:pg_dump|warning|error|hint|detail))"
    r"| ?(?:dumping contents of table|(?:launching|processing|finished) item|executing SELECT) "
)

_TRAILERS = {
    "pg_dump": b"-- PostgreSQL database dump complete",
    "pg_dumpall": b"-- PostgreSQL database cluster dump complete",
}
# With one of these options, the number of tables in the database is not the number that will be dumped.
_SELECTING = [
    "schemas",
    "tables",
    "exclude_schemas",
    "exclude_tables",
    "extensions",
    "exclude_extensions",
    "exclude_table_data",
    "filters",
    "sections",
    "schema_only",
    "no_data",
    "statistics_only",
    "tables_and_children",
    "exclude_tables_and_children",
    "exclude_table_data_and_children",
    "globals_only",
    "roles_only",
    "tablespaces_only",
]


@dataclass(frozen=True)
class DumpPlan:
    """A planned dump.

    :param argv: the tool's arguments without its path, connection and file.
    :param compression: how the artifact is compressed, and by whom.
    :param create: the artifact creates its database itself.
    :param selective: the options leave out part of the database.
    """

    tool: str
    argv: tuple[str, ...]
    format: str
    compression: RecordedCompression
    create: bool
    selective: bool
    verbose: bool

    @property
    def ours(self) -> bool:
        """Whether airflow-pgbackup compresses the output: inside the custom format, around the plain format."""
        return self.compression.by == US

    @property
    def around(self) -> str | None:
        """The compression around the tool's output; None where PostgreSQL's own tools read the artifact as it is."""
        return self.compression.method if self.ours and self.format == "plain" else None

    @property
    def inside(self) -> str | None:
        """The compression inside an archive, which its reader must support; None for none."""
        return None if self.format == "plain" or self.compression.method == "none" else self.compression.method

    @property
    def compression_text(self) -> str:
        if self.compression.method == "none":
            return "none"
        level = f":{self.compression.level}" if self.compression.level is not None else ""
        return f"{self.compression.method}{level} by {self.compression.by}"

    def listener(
        self, say: Callable[[str], None], progress: Step, on_item: Callable[[int], None] = lambda dump_id: None
    ) -> Callable[[str], None]:
        """Return a function for the tool's stderr: it counts tables for the progress, and logs warnings and errors.

        :param on_item: takes the dump id of each item that a pg_dump with jobs has finished.
        """

        def on_line(line: str) -> None:
            if _TABLE.match(line):
                progress.begin_table()
            elif item := _ITEM.match(line):
                on_item(int(item[1]))
            if self.verbose or not _CHATTER.match(line):
                say(line)

        return on_line

    def check_ends(self, raw: Meter) -> None:
        """Check that the output begins and ends as its format does: exit status 0 proves no dump.

        :raises ToolError: it does not.
        """
        if self.format == "custom":
            complete = raw.head.startswith(b"PGDMP")
        elif self.format == "tar":
            # POSIX: two zero blocks end an archive.
            complete = raw.size > 1024 and raw.tail.endswith(bytes(1024))
        else:
            complete = _TRAILERS[self.tool] in raw.tail
        if not complete:
            raise self.incomplete(raw)

    def incomplete(self, raw: Meter, detail: str = "", *, ended: bool = True) -> ToolError:
        """Return the error for an incomplete dump.

        :param detail: what is wrong, if known.
        :param ended: False if the tool was stopped for it.
        """
        what = "ended with exit status 0, but" if ended else "was stopped, since"
        return ToolError(
            f"{self.tool} {what} its output of {raw.size} bytes "
            f"is not a complete {self.format} dump{f' ({detail})' if detail else ''}",
            tool=self.tool,
            exit_code=0 if ended else None,
            hint="A full disk or a wrapper around the tool can cause this. Nothing was kept; run the dump again.",
        )


def plan_dump(
    options: DumpOptions | DumpAllOptions,
    client: Client,
    *,
    compress: str | int | None = None,
    compress_by: str = US,
    lock_wait_timeout: float,
    connect_to: str,
) -> DumpPlan:
    """Return the plan of a dump.

    :param compress: for pg_dumpall, whose options have no compression.
    :param compress_by: as in the settings.
    :param lock_wait_timeout: in seconds, if the options set none.
    :param connect_to: the database that pg_dumpall connects to first, since it ignores PGDATABASE; empty for its own
        choice.
    :raises OptionError: an option that this client does not know, or a compression that is not available.
    """
    if options.lock_wait_timeout is None:
        options = dataclasses.replace(options, lock_wait_timeout=round(lock_wait_timeout * 1000))
    if isinstance(options, DumpAllOptions):
        spec = Compression.parse("none" if compress is None else compress)
        if options.database is None and connect_to:
            options = dataclasses.replace(options, database=connect_to)
        return _plan("pg_dumpall", options, client, spec, "plain", by_us=True, create=True)
    chosen = default_compression(client, options.format) if options.compress is None else options.compress
    spec = Compression.parse(chosen)
    if options.format == "plain":
        options = dataclasses.replace(options, compress=None)
        return _plan("pg_dump", options, client, spec, "plain", by_us=True, create=options.create)
    # --verbose adds lines to a plain dump; in the archive formats it only reports progress.
    named = dataclasses.replace(options, compress=chosen, verbose=True)
    by_us = compress_by == US and options.format == "custom" and _faster_here(spec, client)
    if by_us:
        spec.argument(client)  # raises if the pg_restore of this client could not read it
        named = dataclasses.replace(named, compress="none")
    plan = _plan("pg_dump", named, client, spec, options.format, by_us=by_us, create=False)
    return dataclasses.replace(plan, verbose=options.verbose)


def _faster_here(spec: Compression, client: Client) -> bool:
    if not OLDEST_CLIENT <= client.major <= NEWEST_CLIENT:
        return False
    return has_fast_gzip(spec.level) if spec.method == "gzip" else spec.method == "zstd" and not spec.long


def _plan(
    tool: str,
    options: DumpOptions | DumpAllOptions,
    client: Client,
    spec: Compression,
    format: str,
    *,
    by_us: bool,
    create: bool,
) -> DumpPlan:
    if format == "plain" and spec.method not in _OURS:
        raise OptionError(
            f"a plain dump cannot be compressed with {spec.method}",
            hint="Use zstd, gzip or none, or an archive format.",
        )
    # A task cannot answer a prompt: without --no-password a missing password hangs the tool.
    argv = ("--no-password", *options.argv(client))
    if client.major > NEWEST_MAJOR:
        _check_flags(tool, client, argv)
    by = None if spec.method == "none" else US if by_us else "pg_dump"
    return DumpPlan(
        tool=tool,
        argv=argv,
        format=format,
        compression=RecordedCompression(method=spec.method, level=spec.level, by=by),
        create=create,
        selective=any(getattr(options, name, None) for name in _SELECTING),
        verbose=options.verbose,
    )


def _check_flags(tool: str, client: Client, argv: Sequence[str]) -> None:
    """Check the flags against the ``--help`` of a client that is newer than this package knows.

    :raises OptionError: it has no such flag any more.
    """
    unknown = [flag for word in argv if (flag := word.partition("=")[0]).startswith("--")]
    unknown = [flag for flag in unknown if flag not in client.flags(tool)]
    if unknown:
        raise OptionError(
            f"{tool} {client} has no option {unknown[0]}, by its --help",
            hint="Leave the option out, or use an older client that supports the server. "
            f"This release knows the options of versions {OLDEST_MAJOR} to {NEWEST_MAJOR}.",
        )
