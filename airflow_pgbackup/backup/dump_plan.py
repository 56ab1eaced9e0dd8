"""What a dump will be, decided before anything runs: the tool's arguments, the format, the compression."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from airflow_pgbackup.backup.progress import Progress
from airflow_pgbackup.backup.streams import Meter, has_fast_gzip
from airflow_pgbackup.errors import OptionError, ToolError
from airflow_pgbackup.postgres.archive.recompression import NEWEST_CLIENT, OLDEST_CLIENT
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.postgres.options.compression import Compression as Spec
from airflow_pgbackup.postgres.options.compression import default_compression
from airflow_pgbackup.postgres.tools.clients import Client
from airflow_pgbackup.repository.manifest import US, Compression

_OURS = ("none", "zstd", "gzip")

# With --verbose pg_dump says each table as it comes to it. Everything else it says then is chatter.
_TABLE = re.compile(r"^pg_dump: dumping contents of table ")
_ITEM = re.compile(r"^pg_dump: finished item (\d+) ", re.ASCII)
_CHATTER = re.compile(r"^pg_dump(all)?: (?!warning|error|hint|detail)")

_TRAILERS = {
    "pg_dump": b"-- PostgreSQL database dump complete",
    "pg_dumpall": b"-- PostgreSQL database cluster dump complete",
}
# Options after which the number of tables in the database says nothing about the number that will be dumped.
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
]


@dataclass(frozen=True)
class DumpPlan:
    """What was decided.

    :param argv: the tool's arguments without its path, connection and file.
    :param compression: how the artifact is compressed, and by whom.
    :param create: the artifact itself creates its database.
    :param selective: the options leave out some of the database."""

    tool: str
    argv: tuple[str, ...]
    format: str
    compression: Compression
    create: bool
    selective: bool
    verbose: bool

    @property
    def ours(self) -> bool:
        """Whether the tool's output is compressed by us: inside the custom format, around the plain one."""
        return self.compression.by == US

    @property
    def around(self) -> str | None:
        """What is around the tool's output in the end; None where its own tools need nothing undone before."""
        return self.compression.method if self.ours and self.format == "plain" else None

    @property
    def compression_text(self) -> str:
        if self.compression.method == "none":
            return "none"
        level = f":{self.compression.level}" if self.compression.level is not None else ""
        return f"{self.compression.method}{level} by {self.compression.by}"

    def listener(
        self, say: Callable[[str], None], progress: Progress, on_item: Callable[[int], None] = lambda dump_id: None
    ) -> Callable[[str], None]:
        """Takes the tool's stderr: tables go to the progress line, warnings and errors to the log.

        :param on_item: gets the dump id of what a pg_dump with jobs has written to its end.
        """

        def on_line(line: str) -> None:
            if _TABLE.match(line):
                progress.table_done()
            elif item := _ITEM.match(line):
                on_item(int(item[1]))
            if self.verbose or not _CHATTER.match(line):
                say(line)

        return on_line

    def check_ends(self, raw: Meter) -> None:
        """Exit status 0 is not a dump: does what the tool wrote begin and end as this format does?

        :raises ToolError: it does not.
        """
        if self.format == "custom":
            whole = raw.head.startswith(b"PGDMP")
        elif self.format == "tar":
            # POSIX: two zero blocks end an archive.
            whole = raw.size > 1024 and raw.tail.endswith(bytes(1024))
        else:
            whole = _TRAILERS[self.tool] in raw.tail
        if not whole:
            raise self.not_whole(raw)

    def not_whole(self, raw: Meter, detail: str = "") -> ToolError:
        """:param detail: what is wrong, where more is known."""
        return ToolError(
            f"{self.tool} ended with exit status 0, but its output of {raw.size} bytes "
            f"is not a whole {self.format} dump{f' ({detail})' if detail else ''}",
            tool=self.tool,
            exit_code=0,
            hint="a full disk or a wrapper around the tool can do that; nothing was kept, run it again",
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
    """Decide.

    :param compress: for pg_dumpall, whose options have none.
    :param compress_by: as in the settings.
    :param lock_wait_timeout: seconds, where the options say nothing.
    :param connect_to: pg_dumpall ignores PGDATABASE: the database it starts from, empty for its own choice.
    :raises OptionError: an option this client does not know, a compression it or we cannot do.
    """
    if options.lock_wait_timeout is None:
        options = dataclasses.replace(options, lock_wait_timeout=round(lock_wait_timeout * 1000))
    if isinstance(options, DumpAllOptions):
        spec = Spec.parse("none" if compress is None else compress)
        if options.database is None and connect_to:
            options = dataclasses.replace(options, database=connect_to)
        return _plan("pg_dumpall", options, client, spec, "plain", by_us=True, create=True)
    chosen = default_compression(client, options.format) if options.compress is None else options.compress
    spec = Spec.parse(chosen)
    if options.format == "plain":
        options = dataclasses.replace(options, compress=None)
        return _plan("pg_dump", options, client, spec, "plain", by_us=True, create=options.create)
    # --verbose changes what a plain dump holds; in the archive formats it only tells us how far the tool is.
    named = dataclasses.replace(options, compress=chosen, verbose=True)
    by_us = compress_by == US and options.format == "custom" and _faster_here(spec, client)
    if by_us:
        spec.argument(client)  # its pg_restore is to read it
        named = dataclasses.replace(named, compress="none")
    plan = _plan("pg_dump", named, client, spec, options.format, by_us=by_us, create=False)
    return dataclasses.replace(plan, verbose=options.verbose)


def _faster_here(spec: Spec, client: Client) -> bool:
    if not OLDEST_CLIENT <= client.major <= NEWEST_CLIENT:
        return False
    return has_fast_gzip(spec.level) if spec.method == "gzip" else spec.method == "zstd" and not spec.long


def _plan(
    tool: str,
    options: DumpOptions | DumpAllOptions,
    client: Client,
    spec: Spec,
    format: str,
    *,
    by_us: bool,
    create: bool,
) -> DumpPlan:
    if format == "plain" and spec.method not in _OURS:
        raise OptionError(
            f"compress={spec.method!r} for a plain dump, which is compressed by airflow-pgbackup",
            hint="use zstd, gzip or none, or an archive format",
        )
    by = None if spec.method == "none" else US if by_us else "pg_dump"
    return DumpPlan(
        tool=tool,
        # -w: there is nobody to answer a prompt, and without it a missing password hangs the tool.
        argv=("--no-password", *options.argv(client)),
        format=format,
        compression=Compression(method=spec.method, level=spec.level, by=by),
        create=create,
        selective=any(getattr(options, name, None) for name in _SELECTING),
        verbose=options.verbose,
    )
