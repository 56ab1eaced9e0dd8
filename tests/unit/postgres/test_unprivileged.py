"""The user that a throwaway server runs as."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_pgbackup.errors import NotProven
from airflow_pgbackup.postgres.server import unprivileged

UID = 1000650000  # as OpenShift gives them


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_user_without_a_name(namespaces: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = ["unshare", "--user"] if namespaces else []
    monkeypatch.setattr(unprivileged.os, "geteuid", lambda: UID)
    monkeypatch.setattr(unprivileged, "has_name", lambda uid: False)
    monkeypatch.setattr(unprivileged, "_user_namespace", lambda: command)
    if namespaces:
        assert unprivileged.as_plain_user(tmp_path, tmp_path, []) == command
        return
    with pytest.raises(NotProven, match=f"uid {UID} has no entry in the user database") as caught:
        unprivileged.as_plain_user(tmp_path, tmp_path, [])
    assert "/etc/passwd" in str(caught.value.hint)
