"""A sample of ``tests/campaign/fuzz.py``: changed archives and scripts, read as PostgreSQL's programs read them."""

from __future__ import annotations

import io
from random import Random

import pytest
from campaign.fuzzing import archives, postgres_programs, scripts
from campaign.fuzzing.engine import Target, execute
from campaign.fuzzing.postgres_programs import Sent, newest, sent_by_psql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_pgbackup.backup.streams import compressed_inside
from airflow_pgbackup.errors import VerificationFailed

TARGETS = {target.name: target for target in (*archives.TARGETS, *scripts.TARGETS)}
# How many changed inputs: those of toc, script and decompression start no program.
_FEW = {"custom": 12, "recompressor": 20, "tar": 10, "directory": 10, "lexer": 15}


@pytest.fixture(autouse=True)
def _the_same_inputs_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_programs, "used", [])


@pytest.mark.parametrize("name", TARGETS)
def test_every_dump_is_accepted_and_a_changed_one_as_by_postgres(name: str) -> None:
    target: Target = TARGETS[name]
    seeds = [*target.seeds()]
    assert execute(target, seeds[0]).startswith("accepted")

    @settings(
        max_examples=_FEW.get(name, 40),
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(random=st.randoms(use_true_random=False), number=st.integers(0, len(seeds) - 1))
    def changed(random: Random, number: int) -> None:
        execute(target, target.mutate(random, seeds[number], seeds))

    changed()


def test_what_psql_sends_is_known_to_the_byte() -> None:
    script = (
        b"SET standard_conforming_strings = off;\nSELECT 'a\\';b';\nCOPY t (a) FROM stdin;\n1\n\\\\.\n\\.\nSELECT 2;\n"
    )
    assert sent_by_psql(newest(), script) == Sent(
        [
            (b"SET standard_conforming_strings = off;", None),
            (b"SELECT 'a\\';b';", None),
            (b"COPY t (a) FROM stdin;", b"1\n\\\\.\n"),
            (b"SELECT 2;", None),
        ]
    )
    assert sent_by_psql(newest(), b"SELECT 1;\n\\! true\nSELECT 2;\n") == Sent([(b"SELECT 1;", None)], refused=True)


def test_an_archive_of_before_zstd_is_not_compressed_with_it() -> None:
    # Version 1.14, of pg_dump 12 to 15, whose header has a level of gzip; no time, no names, no entries.
    archive = b"PGDMP" + bytes([1, 14, 0, 4, 8, 1]) + bytes(5) * (1 + 7 + 3 + 1)
    assert compressed_inside(io.BytesIO(archive), "gzip", 6).read() == archive[:12] + b"\x06" + archive[13:]
    with pytest.raises(VerificationFailed, match="which has no zstd"):
        compressed_inside(io.BytesIO(archive), "zstd", None).read()
