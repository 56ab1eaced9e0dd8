"""Every truncation of a complete tar archive is detected."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.postgres.archive.tar_format import check_tar_entries, tar_members
from airflow_pgbackup.postgres.archive.toc import TocEntry

DATA = b"".join(b"%d\ttext of row %d\n" % (i, i * 7919) for i in range(60)) + b"\\.\n\n\n"


def nothing() -> None:
    """Called at each step."""


def entry(file: str | None, kind: str = "TABLE DATA", copy: str | None = "COPY public.t (a) FROM stdin;\n") -> TocEntry:
    return TocEntry(7, 1259, 16384, kind, "public", "t", "owner", copy_statement=copy, file=file)


@pytest.fixture
def tar_file(tmp_path: Path) -> Path:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("toc.dat", b"PGDMP"), ("1.dat", DATA), ("2.dat", b""), ("restore.sql", b"x" * 512)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    # pg_dump writes two zero blocks and no more; tarfile fills a record of 20 blocks.
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + bytes(-len(content) % 512 + 1024))
    return path


def test_the_members_of_a_tar_file(tar_file: Path) -> None:
    with tar_file.open("rb") as file:
        members = tar_members(file, nothing)
        offset, size = members["1.dat"]
        file.seek(offset)
        assert file.read(size) == DATA
    assert list(members) == ["toc.dat", "1.dat", "2.dat", "restore.sql"]


def test_every_truncated_tar_file_is_detected(tar_file: Path) -> None:
    content = tar_file.read_bytes()
    for length in range(len(content)):
        with pytest.raises(VerificationFailed, match=r"tar file (is empty|is truncated|does not end with two zero)"):
            tar_members(io.BytesIO(content[:length]), nothing)


def test_a_damaged_tar_header_is_detected(tar_file: Path) -> None:
    content = tar_file.read_bytes()
    for position in [*range(154), *range(156, 512)]:  # all but the padding after the checksum
        damaged = content[:position] + bytes([content[position] ^ 0x20]) + content[position + 1 :]
        with pytest.raises(VerificationFailed, match="checksum mismatch in the header at byte 0"):
            tar_members(io.BytesIO(damaged), nothing)


def test_the_size_of_members_over_8_gib_is_in_base_256() -> None:
    size = 9 << 30
    header = bytearray(tarfile.TarInfo("1.dat").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 0x20 + sum(header[156:]))
    with pytest.raises(VerificationFailed, match=f"member 1.dat ends at byte {512 + size}, the file at byte 1024"):
        tar_members(io.BytesIO(bytes(header) + bytes(512)), nothing)


def test_a_tar_file_must_have_the_members_in_its_table_of_contents() -> None:
    check_tar_entries(["toc.dat", "7.dat"], [entry("7.dat"), entry(None, "TABLE")])
    check_tar_entries(["blobs.toc"], [entry("7.dat", "BLOBS")])
    check_tar_entries(["blobs_7.toc"], [entry("7.dat", "BLOBS")])
    with pytest.raises(VerificationFailed, match=r"lacks 7.dat, the data of TABLE DATA public.t \(entry 7\)"):
        check_tar_entries(["toc.dat", "8.dat"], [entry("7.dat")])


@pytest.mark.parametrize("size", [b"-0000002000\0", b" " * 12, b"0000000000x\0"])
def test_a_header_without_a_size_is_damaged(tar_file: Path, size: bytes) -> None:
    """pg_restore reads such a size as 0, or up to the first other character."""
    content = bytearray(tar_file.read_bytes())
    content[124:136] = size
    content[148:156] = b"%06o\0 " % (sum(content[:148]) + 8 * 0x20 + sum(content[156:512]))
    with pytest.raises(VerificationFailed, match="damaged: no size in the header at byte 0"):
        tar_members(io.BytesIO(content), nothing)
