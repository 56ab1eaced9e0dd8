"""The actions of the Backups page: who may do what, what a form proves, and what a run is given."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from honest import write_backup

from airflow_pgbackup.backup.overview import Target, Targets
from airflow_pgbackup.links import PAGE_PREFIX
from airflow_pgbackup.plugin import actions, cache, csrf, forms
from airflow_pgbackup.plugin.cache import Cache
from airflow_pgbackup.plugin.dag_runs import Refused
from airflow_pgbackup.plugin.sources import PageRepository
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.layout import Series

Visitor = Callable[[str | None], TestClient]
APP = Series("prod", "app")
TAKES = """params={
    "repository": Param(type="string"),
    "series": Param(type="string", pattern="^[^/]+/[^/]+$"),
    "backup_id": Param(type="string", pattern="^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$"),
}"""
DAG_IDS = (
    "verify_one",
    "rehearse_one",
    "restore_one",
    "paused",
    "broken",
    "takes_less",
    "takes_another",
    "takes_connection",
    "not_by_hand",
)
DAGS = f"""
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param

for dag_id in {DAG_IDS[:5]}:
    with DAG(dag_id, schedule=None, {TAKES}):
        EmptyOperator(task_id="nothing")
with DAG("takes_less", schedule=None, params={{"series": Param("a/b"), "backup_id": Param("latest")}}):
    EmptyOperator(task_id="nothing")
with DAG("takes_connection", schedule=None, params={{
    "repository": Param("x"), "series": Param("a/b"), "backup_id": Param("x"), "aws_conn_id": Param("aws_default"),
}}):
    EmptyOperator(task_id="nothing")
with DAG("takes_another", schedule=None, params={{
    "repository": Param("s3://another/pg", enum=["s3://another/pg"]), "series": Param("a/b"), "backup_id": Param("x"),
}}):
    EmptyOperator(task_id="nothing")
with DAG("not_by_hand", schedule="@daily", allowed_run_types=["scheduled"], params={{"series": Param("a/b")}}):
    EmptyOperator(task_id="nothing")
"""


@pytest.fixture(scope="module")
def dags(airflow_db: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """DAGs as the DAG processor stores them: one paused, one with an import error."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    file = tmp_path_factory.mktemp("dags") / "actions_dags.py"
    file.write_text(DAGS)
    with create_session() as session:
        if session.get(DagBundleModel, "actions") is None:
            session.add(DagBundleModel(name="actions"))
    bag = DagBag(file, bundle_path=file.parent, bundle_name="actions")
    assert not bag.import_errors, bag.import_errors
    sync_bag_to_db(bag, "actions", None)
    with create_session() as session:
        for dag_id in bag.dags:
            values = {"is_paused": dag_id == "paused", "has_import_errors": dag_id == "broken"}
            session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(**values))


@pytest.fixture
def configured(dags: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All actions, and no run yet."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    for name in forms.ACTIONS:
        monkeypatch.setenv(f"PGBACKUP_PAGE_{name.upper()}_DAG_ID", f"{name}_one")
    monkeypatch.setattr(actions, "FOUND", Cache(patience=240.0))
    yield
    with create_session() as session:
        session.execute(delete(DagRun).where(DagRun.dag_id.in_(DAG_IDS)))


@pytest.fixture
def backup(repository: Repository, configured: None) -> str:
    """The id of a backup of prod/app, for which all actions are configured."""
    return add(repository, APP)


def add(repository: Repository, series: Series) -> str:
    started = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    return write_backup(repository, series, started, looks=("archive-pass",), seed=series.path).id


def runs() -> list[tuple[str, str, dict[str, Any], str | None]]:
    """Id of the DAG, id of the run, conf and the name of the user, of each run."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id.in_(DAG_IDS)).order_by(DagRun.id))
        return [(run.dag_id, run.run_id, dict(run.conf or {}), run.triggering_user_name) for run in found]


def form(client: TestClient, backup: str, action: str = "verify", series: Series = APP) -> dict[str, str]:
    """The fields of the form for an action on the page of a backup."""
    asked = {"repository": "0", "series": series.path, "id": backup}
    page = client.get(f"{PAGE_PREFIX}/backup", params=asked)
    assert page.status_code == 200, page.text
    (found,) = [each for each in page.text.split("<form ") if f'action="actions/{action}"' in each]
    return {name: html.unescape(value) for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', found)}


def post(client: TestClient, fields: dict[str, str], action: str = "verify", **headers: str) -> Any:
    return client.post(
        f"{PAGE_PREFIX}/actions/{action}", data=fields, headers={"Origin": "http://airflow.test", **headers}
    )


def words(answer: Any) -> str:
    return " ".join(html.unescape(re.sub(r"</?strong>", "", re.sub(r"<(?!/?strong)[^>]*>", " ", answer.text))).split())


@pytest.mark.parametrize("action", forms.ACTIONS)
def test_an_action_triggers_its_dag_for_that_backup(
    action: str, visitor: Visitor, repository: Repository, backup: str
) -> None:
    client = visitor("user")
    answer = post(client, form(visitor("user"), backup, action), action)
    assert answer.status_code == 303, answer.text
    ((dag_id, run_id, conf, who),) = runs()
    assert (dag_id, who) == (f"{action}_one", "user")
    assert conf == {"repository": repository.uri, "series": "prod/app", "backup_id": backup}
    shown = client.get(urlsplit(answer.headers["location"]).path.replace("..", PAGE_PREFIX), params=query(answer))
    assert shown.status_code == 200
    assert f"{forms.ACTIONS[action].noun} of prod/app, backup {backup}: the run is queued." in words(shown)
    assert f'href="../dags/{action}_one/runs/{run_id}"' in shown.text


def query(answer: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def test_a_form_makes_one_run_however_often_it_is_sent(visitor: Visitor, backup: str) -> None:
    client, fields = visitor("user"), form(visitor("user"), backup)
    first, second = post(client, fields), post(client, fields)
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert len(runs()) == 1
    assert post(client, form(visitor("user"), backup)).headers["location"] != first.headers["location"]
    assert len(runs()) == 2


def test_a_double_click_makes_one_run(visitor: Visitor, backup: str) -> None:
    fields = form(visitor("user"), backup)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda client: post(client, fields), (visitor("user"), visitor("user"))))
    assert [answer.status_code for answer in both] == [303, 303], [words(answer) for answer in both]
    assert len({answer.headers["location"] for answer in both}) == len(runs()) == 1


@pytest.mark.parametrize("role", ["user", "op", "admin"])
def test_who_may_trigger_the_dag_may_act(role: str, visitor: Visitor, backup: str) -> None:
    assert post(visitor(role), form(visitor(role), backup)).status_code == 303
    assert [run[3] for run in runs()] == [role]


def test_a_viewer_has_no_button_and_may_not_act(visitor: Visitor, repository: Repository, backup: str) -> None:
    assert buttons(visitor("user"), backup) == ["Verify now", "Rehearse now", "Plan a restore"]
    assert buttons(visitor("viewer"), backup) == []
    token = csrf.issue("viewer", "verify", repository.uri, "aws_default", "prod/app", backup)
    answer = post(visitor("viewer"), form(visitor("user"), backup) | {"token": token})
    assert answer.status_code == 403
    assert "you may not trigger DAG verify_one" in words(answer)
    assert post(visitor(None), form(visitor("user"), backup)).status_code == 401
    assert runs() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"token": ""}, "the form has no valid token"),
        ({"token": None}, "the form has no valid token"),
        ({"token": "x.y.z"}, "the form has no valid token"),
        ({"token": "other user"}, "the form was made for another user or backup"),
        ({"token": "other action"}, "the form was made for another user or backup"),
        ({"token": "other backup"}, "the form was made for another user or backup"),
        ({"token": "other repository"}, "the form was made for another user or backup"),
        ({"token": "other key"}, "the form has no valid token"),
    ],
    ids=str,
)
def test_a_form_that_the_page_did_not_make(
    change: dict[str, Any],
    says: str,
    visitor: Visitor,
    repository: Repository,
    backup: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from itsdangerous import URLSafeTimedSerializer

    bound = ("user", "verify", repository.uri, "aws_default", "prod/app", backup)
    made = {
        "other user": csrf.issue("admin", *bound[1:]),
        "other action": csrf.issue("user", "restore", *bound[2:]),
        "other backup": csrf.issue(*bound[:5], "20200101T000000Z-000000"),
        "other repository": csrf.issue("user", "verify", "s3://before/pg", *bound[3:]),
        "other key": URLSafeTimedSerializer("guessed", salt="airflow-pgbackup.actions").dumps([*bound, "0" * 16]),
    }
    fields = form(visitor("user"), backup) | {"token": made.get(change["token"], change["token"])}
    answer = post(visitor("user"), {name: value for name, value in fields.items() if value is not None})
    assert answer.status_code == 403
    assert says in words(answer)
    assert "Open the backup's page again and press its button." in words(answer)
    assert runs() == []


def test_a_form_expires(visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = form(visitor("user"), backup)
    monkeypatch.setattr(csrf, "MAX_AGE", -1)
    answer = post(visitor("user"), fields)
    assert (answer.status_code, "the form has expired" in words(answer)) == (403, True)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://airflow.test.evil.example"},
        {"Origin": "http://airflow.test:8081"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://[", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_a_request_from_another_site(headers: dict[str, str], visitor: Visitor, backup: str) -> None:
    answer = post(visitor("user"), form(visitor("user"), backup), **headers)
    assert answer.status_code == 403
    assert "the request comes from another site" in words(answer)
    assert runs() == []


@pytest.mark.parametrize("origin", ["null", "https://airflow.example.org"])
def test_the_origin_behind_a_proxy(origin: str, visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org/sub")
    headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert post(visitor("user"), form(visitor("user"), backup), **headers).status_code == 303


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "1"},
        {"repository": "file:///etc"},
        {"repository": "-1"},
        {"series": "../../etc"},
        {"series": "prod"},
        {"series": "prod/<script>alert(1)</script>"},
        {"id": "latest"},
        {"id": "../x"},
        {"id": "\u202e"},
        {"id": "20200101T000000Z-000000"},
        {"id": "x" * 20_000},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_backup_that_the_repository_does_not_list(
    change: dict[str, str], visitor: Visitor, repository: Repository, backup: str
) -> None:
    """Even with a token for it."""
    fields = form(visitor("user"), backup) | change
    number = fields["repository"]
    uri = repository.uri if number == "0" else number
    fields["token"] = csrf.issue("user", "verify", uri, "aws_default", fields["series"], fields["id"])
    answer = post(visitor("user"), fields)
    assert answer.status_code == 404, answer.text
    assert "there is no such backup" in words(answer)
    assert "<script>alert" not in answer.text
    assert runs() == []


def test_a_backup_that_was_removed_since_the_last_action(
    visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(cache, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    first, second = form(visitor("user"), backup), form(visitor("user"), backup)
    assert post(visitor("user"), first).status_code == 303
    shutil.rmtree(tmp_path / "pg" / "prod" / "app" / backup)
    clock[0] += 3600
    assert post(visitor("user"), second).status_code == 404
    (tmp_path / "pg").rename(tmp_path / "unmounted")
    clock[0] += 3600
    assert post(visitor("user"), second).status_code == 502
    assert len(runs()) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"repository", b"\xff=1", b"series=a&series=b", b"&".join(b"a%d=1" % i for i in range(99)), b"x" * 99_999],
)
def test_a_body_that_is_no_form(body: bytes, visitor: Visitor, backup: str) -> None:
    answer = visitor("user").post(f"{PAGE_PREFIX}/actions/verify", content=body)
    assert answer.status_code == 400
    assert "the request is not a form of this page" in words(answer)


def test_hostile_names_reach_the_dag_as_their_folder(
    visitor: Visitor, repository: Repository, configured: None
) -> None:
    series = Series("prod", '"><script>alert(1)</script>{{ 7*7 }}')
    id = add(repository, series)
    client = visitor("user")
    answer = post(client, form(visitor("user"), id, series=series))
    assert answer.status_code == 303, answer.text
    assert [run[2]["series"] for run in runs()] == [series.path]
    assert "<script>alert" not in client.get(f"{PAGE_PREFIX}/run", params=query(answer)).text


@pytest.mark.parametrize(
    ("dag_id", "status", "says", "hint"),
    [
        ("no_such", 409, "DAG no_such does not exist", "set [pgbackup] page_verify_dag_id to the id of one"),
        ("paused", 409, "DAG paused is paused", "Unpause it"),
        ("broken", 409, "DAG broken has import errors", "Repair its file"),
        ("not_by_hand", 409, "DAG not_by_hand does not allow manual runs", "allowed_run_types"),
        ("takes_less", 409, "DAG takes_less declares no param repository", "something else than this backup"),
        (
            "takes_another",
            400,
            "DAG takes_another refused the backup: Invalid input for param repository",
            "Its author",
        ),
    ],
)
def test_a_dag_that_cannot_be_triggered(
    dag_id: str, status: int, says: str, hint: str, visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGBACKUP_PAGE_VERIFY_DAG_ID", dag_id)
    answer = post(visitor("user"), form(visitor("user"), backup))
    assert answer.status_code == status
    assert says in words(answer)
    assert hint in words(answer)
    assert runs() == []


def test_nothing_can_be_done_unless_it_is_configured(
    visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = form(visitor("user"), backup)
    monkeypatch.delenv("PGBACKUP_PAGE_VERIFY_DAG_ID")
    for action in ("verify", "delete"):
        answer = post(visitor("user"), fields, action)
        assert (answer.status_code, "the action is not configured" in words(answer)) == (404, True)
    assert buttons(visitor("user"), backup) == ["Rehearse now", "Plan a restore"]


def buttons(client: TestClient, backup: str) -> list[str]:
    asked = {"repository": "0", "series": APP.path, "id": backup}
    return re.findall(r"<button title=[^>]*>([^<]*)</button>", client.get(f"{PAGE_PREFIX}/backup", params=asked).text)


@pytest.mark.parametrize(
    "params",
    [{}, {"action": "verify"}, {"action": "verify", "form": "0" * 16}, {"action": "x", "form": "../../etc/passwd"}],
    ids=str,
)
def test_a_run_that_no_form_made(
    params: dict[str, str], visitor: Visitor, repository: Repository, configured: None
) -> None:
    answer = visitor("admin").get(f"{PAGE_PREFIX}/run", params=params)
    assert answer.status_code == 404
    assert "there is no such run" in words(answer)


@pytest.mark.parametrize(
    "conf", [{}, {"series": 7}, {"repository": "file:///etc", "series": "a/b", "backup_id": "x"}], ids=str
)
def test_a_run_with_the_id_of_a_form_and_another_conf(
    conf: dict[str, Any], visitor: Visitor, repository: Repository, configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever may trigger the DAG can make one through Airflow's API."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import update

    backup = add(repository, APP)
    answer = post(visitor("user"), form(visitor("user"), backup))
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.dag_id.in_(DAG_IDS)).values(conf=conf))
    shown = visitor("user").get(f"{PAGE_PREFIX}/run", params=query(answer))
    assert (shown.status_code, "there is no such backup" in words(shown)) == (404, True)


@pytest.mark.parametrize("aws_conn_id", ["other", None])
def test_a_repository_of_another_connection(
    aws_conn_id: str | None, configured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    user: Any = SimpleNamespace(get_name=lambda: "somebody")
    source = PageRepository(0, "s3://bucket/pg", aws_conn_id, Targets(Target()))
    chosen = forms.Chosen(source, APP, "20260101T000000Z-abcdef")
    action = forms.ACTIONS["verify"]
    with pytest.raises(Refused, match="declares no param aws_conn_id"):
        forms.start(action, chosen, "0" * 16, user)
    assert runs() == []
    monkeypatch.setenv("PGBACKUP_PAGE_VERIFY_DAG_ID", "takes_connection")
    forms.start(action, chosen, "0" * 16, user)
    ((_, _, conf, _),) = runs()
    assert conf["aws_conn_id"] == (aws_conn_id or "")


def test_the_state_of_a_run_shows(visitor: Visitor, backup: str) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import update

    client = visitor("user")
    answer = post(client, form(client, backup))
    assert 'http-equiv="refresh"' in client.get(f"{PAGE_PREFIX}/run", params=query(answer)).text
    for state, look in (("success", "lead good"), ("failed", "lead bad")):
        with create_session() as session:
            session.execute(update(DagRun).where(DagRun.dag_id.in_(DAG_IDS)).values(state=state))
        shown = client.get(f"{PAGE_PREFIX}/run", params=query(answer))
        assert f"the run is {state}." in words(shown)
        assert f'class="{look}"' in shown.text
        assert "refresh" not in shown.text
        back = html.unescape(re.findall(r'href="(backup[^"]*)"', shown.text)[0])
        assert client.get(f"{PAGE_PREFIX}/{back}").status_code == 200


def test_an_invalid_configuration_of_the_page(visitor: Visitor, backup: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = form(visitor("user"), backup)
    monkeypatch.setenv("PGBACKUP_PAGE_LEVEL", "some")
    for answer in (
        post(visitor("user"), fields),
        visitor("user").get(f"{PAGE_PREFIX}/run?action=verify&form={'0' * 16}"),
    ):
        assert answer.status_code == 500
        assert "setting page_level is 'some' Choose one of integrity, archive, restore." in words(answer)


def test_get_does_nothing(visitor: Visitor, backup: str) -> None:
    answer = visitor("admin").get(f"{PAGE_PREFIX}/actions/verify", params=form(visitor("admin"), backup))
    assert (answer.status_code, answer.headers["location"]) == (303, "../")
    assert runs() == []
