"""Which sequences must have a value in a dump, by its options."""

from __future__ import annotations

import pytest

from airflow_pgbackup.backup.rehearsal.sequence_values import requires_value


@pytest.mark.parametrize(
    ("patterns", "excluded"),
    [
        (["alone"], True),
        (["ALONE"], True),
        (["public.alone"], True),
        (["pub*.al?ne"], True),
        (["*.*"], True),
        (['"public"."alone"'], True),
        (["app.public.alone"], True),
        (["film", "public.al*e"], True),
        (["al(o|i)ne"], True),  # not read: it may match
        (["f[a-z]+"], True),
        (["film"], False),
        (["other.alone"], False),
        (["al"], False),
        (['"al*"'], False),
        (['"al.one"', "a.lone"], False),
        ([], False),
    ],
    ids=str,
)
@pytest.mark.parametrize("option", ["exclude_table_data", "exclude_table_data_and_children"])
def test_patterns_that_exclude_the_value_of_a_sequence(patterns: list[str], excluded: bool, option: str) -> None:
    found = requires_value({option: patterns}, adopted=False)
    assert found("public", "alone") is not excluded
