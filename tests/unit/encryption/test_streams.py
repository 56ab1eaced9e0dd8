"""Streams encrypted and decrypted: every size, every error of both ends, every damage."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pyrage
import pytest

from airflow_pgbackup.byte_streams import PieceReader, Readable
from airflow_pgbackup.cli.vocabulary import Command, argument
from airflow_pgbackup.cli.wording import CommandWording
from airflow_pgbackup.encryption.header import MAGIC
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.encryption.streams import decrypt, decrypted, encrypt, encrypted
from airflow_pgbackup.errors import NotProven, VerificationFailed
from airflow_pgbackup.wording import spoken

CHUNK = 64 * 1024  # of age's payload
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, (1 << 20) - 1, 1 << 20, 3 * (1 << 20) + 5]

OWNER = pyrage.x25519.Identity.generate()
IDENTITIES = Identities((OWNER,))


def recipients() -> Recipients:
    found = Recipients.parse([str(OWNER.to_public())])
    assert found is not None
    return found


def content(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def encrypted_bytes(data: bytes) -> bytes:
    with encrypted(io.BytesIO(data), recipients()) as stream:
        return stream.read()


def read_all(opening: AbstractContextManager[Readable], check: Callable[[bytes], object] = bool) -> bytes:
    """Read in odd sizes. :param check: takes all that was read, after each read."""
    read = b""
    with opening as stream:
        while piece := stream.read(70_001):
            read += piece
            check(read)
    return read


@pytest.mark.parametrize("size", SIZES)
def test_what_goes_in_comes_out(size: int) -> None:
    stored = encrypted_bytes(content(size))
    assert stored.startswith(MAGIC)
    assert pyrage.decrypt(stored, [OWNER]) == content(size), "any age program reads it"
    assert read_all(decrypted(io.BytesIO(stored), IDENTITIES, "app.dump.age")) == content(size)


def test_files_are_converted_as_streams_are() -> None:
    stored, plain = io.BytesIO(), io.BytesIO()
    encrypt(io.BytesIO(content(200_000)), stored, recipients())
    decrypt(io.BytesIO(stored.getvalue()), plain, IDENTITIES, "1.dat.age")
    assert plain.getvalue() == content(200_000)


def failing(data: bytes) -> Iterator[bytes]:
    yield data
    raise TimeoutError("the tool failed")


@pytest.mark.parametrize("size", [1, 100_000, 3 << 20])
@pytest.mark.parametrize("direction", ["encrypt", "decrypt"])
def test_the_error_of_a_source_is_not_changed(size: int, direction: str) -> None:
    """The failure of pg_dump is a read error at the end of its output: no writer may see a clean end."""
    data = content(size) if direction == "encrypt" else encrypted_bytes(content(size))[: size + 100]
    source = PieceReader(failing(data))
    opening = (
        encrypted(source, recipients()) if direction == "encrypt" else decrypted(source, IDENTITIES, "app.dump.age")
    )
    with pytest.raises(TimeoutError, match="the tool failed"):
        read_all(opening)


class Full(io.BytesIO):
    def write(self, data: object, /) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "convert",
    [
        lambda: encrypt(io.BytesIO(b"x"), Full(), recipients()),
        lambda: decrypt(io.BytesIO(encrypted_bytes(b"x")), Full(), IDENTITIES, "x"),
        lambda: encrypt(PieceReader(failing(b"x")), io.BytesIO(), recipients()),
        lambda: decrypt(PieceReader(failing(encrypted_bytes(b"x")[:-1])), io.BytesIO(), IDENTITIES, "x"),
    ],
)
def test_the_errors_of_both_ends_pass(convert: Callable[[], None]) -> None:
    with pytest.raises(OSError, match=r"No space left|the tool failed") as caught:
        convert()
    assert not isinstance(caught.value, VerificationFailed)


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with encrypted(io.BytesIO(content(50 << 20)), recipients()) as stream:
        assert stream.read(10) == MAGIC[:10]
    with decrypted(io.BytesIO(encrypted_bytes(content(5 << 20))), IDENTITIES, "x") as stream:
        assert stream.read(10) == content(10)
    assert threading.active_count() == before


@pytest.mark.parametrize("size", [0, 10, CHUNK, 5 * CHUNK])
@pytest.mark.parametrize("cut", [1, 16, 17, CHUNK + 16])
def test_a_cut_is_an_error(size: int, cut: int) -> None:
    stored = encrypted_bytes(content(size))[:-cut]
    with pytest.raises(VerificationFailed, match=r"app\.dump\.age cannot be decrypted"):
        read_all(decrypted(io.BytesIO(stored), IDENTITIES, "app.dump.age"))


@pytest.mark.parametrize("place", [0, 30, 100, -17, -CHUNK, -3 * CHUNK])
def test_no_byte_after_a_flipped_one_comes_out(place: int) -> None:
    data = content(5 * CHUNK)
    stored = bytearray(encrypted_bytes(data))
    stored[place] ^= 1

    def is_beginning(read: bytes) -> None:
        assert data.startswith(read)

    with pytest.raises((VerificationFailed, NotProven)):
        read_all(decrypted(io.BytesIO(bytes(stored)), IDENTITIES, "x"), is_beginning)


def test_without_the_right_identity_nothing_is_said_against_the_backup() -> None:
    stored = encrypted_bytes(b"x")
    other = Identities((pyrage.x25519.Identity.generate(),))
    with pytest.raises(NotProven, match=r"none of the identities decrypts app\.dump\.age"):
        read_all(decrypted(io.BytesIO(stored), other, "app.dump.age"))
    with pytest.raises(NotProven, match=r"no identity was given .*identity_conn_id .*identity_file"):
        read_all(decrypted(io.BytesIO(stored), Identities(), "app.dump.age"))
    keys = [f"age1{number}" for number in range(6)]
    command = Command("get", "", "", (argument("--identity"),), "")
    for identities in (other, Identities()):
        with (
            spoken(CommandWording(command, program="pgbackup")),
            pytest.raises(NotProven, match=r"age12, age13 and 2 more\) with --identity, or in"),
        ):
            read_all(decrypted(io.BytesIO(stored), identities, "app.dump.age", keys))
