"""Every truncation of a complete member of a directory archive is detected."""

from __future__ import annotations

import contextlib
import gzip
import io
from pathlib import Path

import pytest

from airflow_pgbackup.backup.adopt.directory_members import DirectoryMembers
from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.directory_format import check_directory
from airflow_pgbackup.postgres.archive.toc import Toc, TocEntry

DATA = b"".join(b"%d\ttext of row %d\n" % (i, i * 7919) for i in range(60)) + b"\\.\n\n\n"


def nothing() -> None:
    """Called at each step."""


def entry(file: str | None, kind: str = "TABLE DATA", copy: str | None = "COPY public.t (a) FROM stdin;\n") -> TocEntry:
    return TocEntry(7, 1259, 16384, kind, "public", "t", "owner", copy_statement=copy, file=file)


def members_of(entries: list[TocEntry], *names: str) -> DirectoryMembers:
    toc = Toc((1, 16), "directory", "none", "app", "18.1", "18.1", entries, 0)
    return DirectoryMembers(toc, ["toc.dat", *names], nothing)


@pytest.mark.parametrize(
    ("content", "copy"),
    [
        (b"\\.\n\n\n", True),
        (DATA, True),
        (b"\n\n", False),
        (b"INSERT INTO public.t VALUES (1);\nINSERT INTO public.t VALUES (2);\n\n\n", False),
    ],
)
def test_every_truncated_member_is_detected(tmp_path: Path, content: bytes, copy: bool) -> None:
    entries = [entry("7.dat", copy="COPY public.t (a) FROM stdin;\n" if copy else None)]
    member = tmp_path / "7.dat"
    member.write_bytes(content)
    check_directory(tmp_path, entries, nothing)
    for length in range(len(content)):
        member.write_bytes(content[:length])
        with pytest.raises(VerificationFailed, match=r"7.dat is empty|7.dat, the data of .*, is truncated"):
            check_directory(tmp_path, entries, nothing)
    member.unlink()
    with pytest.raises(VerificationFailed, match="the directory lacks 7"):
        check_directory(tmp_path, entries, nothing)


@pytest.mark.parametrize("suffix", ["gz", "zst", "lz4"])
def test_an_emptied_compressed_member_is_detected(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"7.dat.{suffix}").write_bytes(b"")
    with pytest.raises(VerificationFailed, match=f"7.dat.{suffix} is empty"):
        check_directory(tmp_path, [entry("7.dat")], nothing)
    members = members_of([entry("7.dat")], f"7.dat.{suffix}")
    with pytest.raises(VerificationFailed, match=f"7.dat.{suffix}, the data of .*, is empty"):
        members.check(io.BytesIO(b""), f"7.dat.{suffix}")


@pytest.mark.parametrize("suffix", ["gz", "zst", "lz4"])
def test_a_large_object_without_data_is_a_gzip_stream_or_an_empty_file(tmp_path: Path, suffix: str) -> None:
    entries, name = [entry("blobs_7.toc", "BLOBS", copy=None)], f"blob_16401.dat.{suffix}"
    (tmp_path / "blobs_7.toc").write_bytes(b"16401 blob_16401.dat\n")
    members = members_of(entries, "blobs_7.toc", name)
    for content in [b"", gzip.compress(b"")] if suffix == "gz" else [b""]:
        (tmp_path / name).write_bytes(content)
        fault = contextlib.nullcontext() if content or suffix != "gz" else pytest.raises(VerificationFailed)
        with fault:
            check_directory(tmp_path, entries, nothing)
        with fault:
            members.check(io.BytesIO(content), name)


def test_every_large_object_is_listed_and_present(tmp_path: Path) -> None:
    entries = [entry("blobs_7.toc", "BLOBS", copy=None)]
    toc = tmp_path / "blobs_7.toc"
    complete = b"16401 blob_16401.dat\n16402 blob_16402.dat\n"
    toc.write_bytes(complete)
    (tmp_path / "blob_16401.dat").write_bytes(b"")
    (tmp_path / "blob_16402.dat.gz").write_bytes(gzip.compress(b"text"))
    check_directory(tmp_path, entries, nothing)
    for length in range(len(complete)):
        toc.write_bytes(complete[:length])
        with pytest.raises(VerificationFailed, match="truncated"):
            check_directory(tmp_path, entries, nothing)
    toc.write_bytes(complete)
    (tmp_path / "blob_16401.dat").unlink()
    with pytest.raises(VerificationFailed, match="the directory lacks blob_16401"):
        check_directory(tmp_path, entries, nothing)


def test_a_table_of_contents_cannot_name_a_file_outside(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed, match="which pg_dump never writes"):
        check_directory(tmp_path, [entry("../7.dat")], nothing)
