"""Lack of memory, open files or disks is not taken for damage of an archive."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_pgbackup
from airflow_pgbackup.errors import NotProven, ToolError, VerificationFailed
from airflow_pgbackup.postgres.archive.machine_errors import machine_error
from airflow_pgbackup.postgres.archive.pg_restore_output import PgRestoreOutput
from airflow_pgbackup.postgres.archive.reader import ArchiveReader
from airflow_pgbackup.postgres.archive.toc import read_toc
from airflow_pgbackup.postgres.tools.clients import Client, find_clients
from airflow_pgbackup.postgres.tools.process import ToolProcess

GOLDEN = Path(__file__).parents[2] / "golden" / "dumps"

OF_THE_MACHINE = [
    "out of memory",
    'pg_restore: error: could not open input file "d/toc.dat": Too many open files',
    'pg_restore: error: could not open file "d/3501.dat": Permission denied',
    "pg_restore: error: could not read from input file: Input/output error",
    "pg_restore: error: could not read from input file: Stale file handle",
    'pg_restore: error: could not open large object TOC file "d/blobs.toc" for input: Input/output error',
    "pg_restore: error: could not read from input file: d/3501.dat.gz: Stale file handle",
    "pg_restore: error: could not uncompress data: insufficient memory",
    "pg_restore: error: could not decompress data: Allocation error : not enough memory",
    "pg_restore: error: could not initialize compression library: (null)",
    "pg_restore: error: out of memory",
    "bwrap: Creating new namespace failed: Resource temporarily unavailable",
]
OF_THE_ARCHIVE = [
    "pg_restore: error: could not read from input file: end of file",
    "pg_restore: error: could not uncompress data: invalid distance too far back",
    'pg_restore: error: could not open file "d/3501.dat": No such file or directory',
    "pg_restore: error: unexpected block ID (5) when reading data -- expected 7",
    "pg_restore: error: invalid ENCODING item: Permission denied",
    'pg_restore: error: unrecognized encoding "not enough memory"',
    'pg_restore: error: could not open input file "d/not enough memory": No such file or directory',
]


def restored(tmp_path: Path, *lines: str) -> Exception | None:
    """Return the error after a pg_restore that writes these lines and exits 1."""
    program = tmp_path / "pg_restore"
    program.write_text("#!/bin/sh\ncat >&2 <<'END'\n" + "".join(f"{line}\n" for line in lines) + "END\nexit 1\n")
    program.chmod(0o700)
    with ToolProcess([program], env={}) as process:
        try:
            PgRestoreOutput(process, client=Client(tmp_path, (18, 1), "PATH")).read()
        except (NotProven, VerificationFailed) as error:
            return error
    return None


def test_an_error_of_the_machine_in_pg_restore_proves_nothing(tmp_path: Path) -> None:
    error = restored(tmp_path, OF_THE_MACHINE[1])
    assert isinstance(error, NotProven)
    assert "could not be read on this machine: pg_restore failed (exit 1): could not open input file" in str(error)


@pytest.mark.parametrize("text", ["Permission denied", "not enough memory", "\nout of memory", "\nbwrap: x"])
def test_an_archive_whose_own_text_is_an_error_of_the_machine(
    text: str, tmp_path: Path, client_dirs: list[str]
) -> None:
    entry = b"SET client_encoding = 'UTF8';\n"
    archive = tmp_path / "changed"
    archive.write_bytes(GOLDEN.joinpath("custom-none").read_bytes().replace(entry, text.encode().rjust(len(entry))))
    client = max(find_clients(client_dirs), key=lambda client: client.version)
    with pytest.raises(VerificationFailed, match="the archive cannot be read to its end"):
        ArchiveReader(archive, format="custom", client=client, deadline=600).digest()


@pytest.mark.parametrize(
    "lines", [[], ["prlimit: failed to set the NPROC resource limit: Invalid argument"], ["choom: failed to set"]]
)
def test_a_failure_of_another_program_before_pg_restore_is_not_of_the_archive(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(ToolError, match="exit 1"):
        restored(tmp_path, *lines)


def test_a_leader_that_cannot_start_pg_restore_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a limit on the number of processes: it cannot fork."""
    leader = tmp_path / "_leader.py"
    package = Path(airflow_pgbackup.__file__).parents[1]
    real = (
        (package / "airflow_pgbackup/postgres/tools/_leader.py")
        .read_text()
        .replace("tool = os.fork()", "raise OSError(12, 'out of memory')")
    )
    leader.write_text(real.replace("{__file__}/../../../..", str(package)))
    monkeypatch.setattr("airflow_pgbackup.postgres.tools.leader._LEADER", leader)
    with pytest.raises(ToolError, match=r"exit 125.: cannot start: .*out of memory"):
        restored(tmp_path)


@pytest.mark.parametrize("line", OF_THE_MACHINE)
def test_messages_about_the_machine(line: str) -> None:
    assert machine_error([line])


@pytest.mark.parametrize("line", OF_THE_ARCHIVE)
def test_messages_about_the_archive(line: str) -> None:
    assert not machine_error([line])


def test_too_few_open_files_for_pg_restore(client_dirs: list[str]) -> None:
    reader = ArchiveReader(
        GOLDEN / "custom-none",
        format="custom",
        client=max(find_clients(client_dirs), key=lambda client: client.version),
        deadline=600,
        within=lambda *_: ["prlimit", "--nofile=4"],
    )
    with pytest.raises(NotProven, match="Too many open files"):
        reader.digest()


def test_a_damaged_dump_id_for_which_no_machine_has_memory(tmp_path: Path, client_dirs: list[str]) -> None:
    """pg_restore allocates an array of the length of the largest one."""
    content = GOLDEN.joinpath("custom-none").read_bytes()
    largest = max(entry.dump_id for entry in read_toc(io.BytesIO(content), what="it")[0].entries)
    entry = b"\0" + largest.to_bytes(4, "little")
    assert content.count(entry) == 1
    archive = tmp_path / "damaged"
    archive.write_bytes(content.replace(entry, b"\0\xff\xff\xff\x7f"))
    client = max(find_clients(client_dirs), key=lambda client: client.version)
    with pytest.raises(VerificationFailed, match="invalid dump ID: 2147483647"):
        ArchiveReader(archive, format="custom", client=client, deadline=600).digest()


TOO_LITTLE_MEMORY = """
import io, os, resource
import lz4.frame, zstandard
from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.archive.decompression import Decompressed

data = os.urandom(1 << 20) * 4
far = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compressobj()
content = {"zstd": far.compress(data) + far.flush(), "lz4": lz4.frame.compress(data, block_size=7)}
readers = {method: Decompressed(io.BytesIO(each), method, "it") for method, each in content.items()}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20),) * 2)
for method, reader in readers.items():
    try:
        while reader.read(1 << 16):
            pass
    except NotProven as error:
        print(method, error)
"""


def test_too_little_memory_to_decompress() -> None:
    done = subprocess.run([sys.executable, "-c", TOO_LITTLE_MEMORY], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["zstd", "lz4"]
    assert all("it could not be read on this machine: " in line and "memory" in line for line in lines), lines
