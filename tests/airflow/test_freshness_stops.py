"""A freshness sensor that is asked to stop, or reaches its execution_timeout, ends, whatever it does about errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, AirflowTaskTimeout

from airflow_pgbackup.errors import Canceled
from airflow_pgbackup.notifications.cause import find_cause
from airflow_pgbackup.sensors.freshness import PgBackupFreshnessSensor

SILENT = (
    {},
    {"silent_fail": True},
    {"never_fail": True},
    {"soft_fail": True},
    {"silent_fail": True, "soft_fail": True},
)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    causes: list[str] = []
    monkeypatch.setattr("airflow_pgbackup.sensors.freshness.send_failure", lambda _, cause: causes.append(cause))
    return causes


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """``check(function)``: the function does each check of the repository."""

    def replace(function: Callable[[], Any]) -> None:
        monkeypatch.setattr("airflow_pgbackup.triggers.freshness.check_freshness", lambda **_: function())

    return replace


def sensor(**arguments: Any) -> PgBackupFreshnessSensor:
    given = {"repository": "file:///nowhere", "max_age": 60, "timeout": 600, "poke_interval": 600, **arguments}
    return PgBackupFreshnessSensor(task_id="fresh", **given)


def assert_stopped(task: PgBackupFreshnessSensor, sent: list[str]) -> None:
    with pytest.raises(AirflowException, match=r"^stopped: the task was asked to stop$") as caught:
        task.execute({})
    assert not isinstance(caught.value, AirflowSkipException)
    assert sent == ["Canceled"]
    cause = find_cause({"exception": caught.value})
    assert cause is not None
    assert cause.message == "stopped: the task was asked to stop"


@pytest.mark.parametrize("arguments", SILENT)
@pytest.mark.parametrize("deferrable", [False, True])
def test_asked_to_stop_during_a_check(
    check: Callable[..., None], sent: list[str], arguments: dict[str, Any], deferrable: bool
) -> None:
    task = sensor(**arguments, deferrable=deferrable)

    def stop() -> None:
        task.on_kill()
        raise Canceled("canceled")

    check(stop)
    assert_stopped(task, sent)


def test_asked_to_stop_at_the_end_of_a_check(check: Callable[..., None], sent: list[str]) -> None:
    task = sensor()

    def stop() -> dict[str, Any]:
        task.on_kill()
        return {"fresh": False, "series": [], "problems": []}

    check(stop)
    assert_stopped(task, sent)


def test_asked_to_stop_before_it_began(check: Callable[..., None], sent: list[str]) -> None:
    check(lambda: pytest.fail("checked"))
    task = sensor(silent_fail=True)
    task.on_kill()
    assert_stopped(task, sent)


def test_the_execution_timeout(check: Callable[..., None], sent: list[str]) -> None:
    def ring() -> None:
        raise AirflowTaskTimeout("Timeout")

    check(ring)
    task = sensor(execution_timeout=timedelta(hours=4), silent_fail=True)
    with pytest.raises(AirflowTaskTimeout) as caught:
        task.execute({})
    assert sent == ["AirflowTaskTimeout"]
    cause = find_cause({"exception": caught.value})
    assert cause is not None
    assert cause.message == "stopped at its execution_timeout of 4:00:00"
    assert cause.hint == "Raise execution_timeout, or find out what the task waited for."
