"""What a store says that keeps no versions and locks nothing."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_pgbackup.errors import RepositoryError
from airflow_pgbackup.repository.protection import Protection, Version


def test_by_default_nothing_is_protected() -> None:
    protection = Protection()
    protection.require_lock()
    assert protection.settings() is None
    assert protection.locked("app") is None
    assert not protection.may_bypass_lock()
    assert protection.hold(["app"], on=True) == protection.hold(["app"], on=False) == "the store has no legal hold"
    assert list(protection.versions()) == []


def test_what_has_no_versions_cannot_be_restored() -> None:
    other = Version("app", "1", datetime.now(timezone.utc), latest=False, deleted=False)
    with pytest.raises(RepositoryError, match="cannot restore app: the store keeps no versions"):
        Protection().restore(other, [])
    with pytest.raises(RepositoryError, match="cannot read app: the store keeps no versions"):
        Protection().read(other, limit=10)
