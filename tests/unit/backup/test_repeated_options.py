"""The options of a manifest, which may be of another release or changed, for the dump of the copy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_pgbackup.backup.rehearsal.repeated_options import repeated_options
from airflow_pgbackup.errors import NotProven


@pytest.mark.parametrize("options", [{"tables": 5}, {"tables": [5]}, {"exclude_tables": [None]}, {"of_a_later": True}])
def test_unknown_options_prove_nothing(options: dict[str, Any]) -> None:
    manifest: Any = SimpleNamespace(
        options=options, series=SimpleNamespace(database="app"), artifact=SimpleNamespace(format="custom")
    )
    with pytest.raises(NotProven, match="options that this release does not know"):
        repeated_options(manifest, create=False)
