"""A mapping of servers is checked in full: every problem at once, with its line, its path and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from airflow_pgbackup.errors import ConfigurationError, FleetError
from airflow_pgbackup.pipelines.fleet.read import read_fleet
from airflow_pgbackup.yaml_mapping.yaml_file import MAX_BYTES, MAX_DEPTH

Problems = Callable[[str], list[str]]

MINIMAL = {"servers": {"crm": {"repository": "s3://my-backups/pg"}}}


@pytest.fixture
def problems(tmp_path: Path) -> Problems:
    """``problems(text)``: the lines of the error that a file with this text is refused with."""

    def read(text: str | bytes) -> list[str]:
        file = tmp_path / "fleet.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(FleetError) as caught:
            read_fleet(file)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return caught.value.problems

    return read


def problems_of(mapping: Any) -> list[str]:
    with pytest.raises(FleetError) as caught:
        read_fleet(mapping)
    return caught.value.problems


def test_a_server_has_the_settings_of_its_group_and_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(
        """
        defaults:
          repository: s3://my-backups/pg
          schedule: "0 2 * * *"
          retention: {keep_daily: 7, keep_monthly: 12}
        groups:
          small: {schedule: "@weekly", retention: {keep_last: 3}, aws_conn_id: null}
        servers:
          crm: {databases: [app, "tenant_*"], postgres_conn_id: crm_db, deadline: 36h}
          wiki: {group: small, schedule: "0 5 29 FEB,mar fri"}
          empty:
        """
    )
    servers = read_fleet(file)
    assert list(servers) == ["crm", "wiki", "empty"]
    crm, wiki, empty = servers.values()
    assert (crm.postgres_conn_id, crm.databases, crm.schedule) == ("crm_db", ["app", "tenant_*"], "0 2 * * *")
    assert crm.deadline == timedelta(hours=36)
    assert crm.aws_conn_id == "aws_default"
    assert (wiki.schedule, wiki.repository, wiki.aws_conn_id) == ("0 5 29 FEB,mar fri", "s3://my-backups/pg", None)
    assert wiki.retention is not None
    assert (wiki.retention.keep_last, wiki.retention.keep_daily) == (3, 0), "the whole of it is replaced"
    assert (empty.postgres_conn_id, empty.databases, empty.level) == ("empty", ["*"], "archive")


def test_quarterly_is_a_schedule_with_every_airflow() -> None:
    server = {"repository": "s3://aa/b", "schedule": "@quarterly"}
    assert read_fleet({"servers": {"crm": server}})["crm"].schedule == "0 0 1 */3 *"


def test_a_python_mapping_is_checked_too() -> None:
    assert read_fleet(MINIMAL)["crm"].repository == "s3://my-backups/pg"
    assert problems_of({"servers": {"crm": {"repo": "s3://aa/b"}}}) == [
        "servers.crm.repo: unknown key; did you mean 'repository'?"
    ]
    assert problems_of({"servers": {"crm": {}}}) == [
        "servers.crm: no repository; set it here, in the group or in defaults"
    ]


def test_other_mappings_of_python_are_as_good_as_dicts(tmp_path: Path) -> None:
    server = MappingProxyType({"repository": "s3://aa/b", "databases": ("a", "b")})
    assert read_fleet(MappingProxyType({"servers": {"crm": server}}))["crm"].databases == ["a", "b"]
    assert problems_of({"servers": {"crm": {"repository": tmp_path}}}) == [
        "servers.crm.repository: expected text, found PosixPath"
    ]


def test_what_is_left_empty_sets_nothing(problems: Problems, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "defaults:\ngroups: {crit: }\nservers:\n"
        "  crm: {group: crit, repository: 's3://aa/b', alerts: {on_failure: null}}\n"
    )
    assert read_fleet(file)["crm"].alerts.on_failure == []
    assert problems("groups: {crit: 5}\nservers: {crm: {group: crit}}\n") == [
        "fleet.yaml:1: groups.crit: expected a mapping, found a number"
    ]


def test_every_problem_is_named_at_once_with_its_line(problems: Problems) -> None:
    assert problems(
        """defaults:
  repository: s3://my-backups/pg
  schedul: "0 2 * * *"
  level: archived
  retention:
    keep_daily: "7"
    keep_weeky: 5
groups:
  critical:
    alerts: {on_failure: no_such_module.page}
servers:
  crm:
    group: critcal
    databases: [app, 12, yes]
    time_zone: Mars
    schedule: 0 25 * * *
    drill: {max_size: 50 GB}
    dump:
      exclude_table: [x]
  "bad name":
"""
    ) == [
        "fleet.yaml:3: defaults.schedul: unknown key; did you mean 'schedule'?",
        "fleet.yaml:4: defaults.level: must be 'integrity', 'archive' or 'restore'",
        "fleet.yaml:6: defaults.retention.keep_daily: expected a whole number, found text",
        "fleet.yaml:7: defaults.retention.keep_weeky: unknown key; did you mean 'keep_weekly'?",
        "fleet.yaml:10: groups.critical.alerts.on_failure: cannot import 'no_such_module.page': "
        "ModuleNotFoundError: No module named 'no_such_module'",
        "fleet.yaml:13: servers.crm.group: no such group; did you mean 'critical'?",
        "fleet.yaml:14: servers.crm.databases[1]: expected text, found a number; quote it",
        "fleet.yaml:14: servers.crm.databases[2]: expected text, found true or false; quote it",
        "fleet.yaml:15: servers.crm.time_zone: time zone 'Mars' does not exist; use an IANA name like 'Europe/Berlin'. "
        "On a system without time zones, pip install tzdata",
        "fleet.yaml:16: servers.crm.schedule: not a cron expression; write \"0 2 * * *\" or '@daily', in quotes",
        "fleet.yaml:17: servers.crm.drill.schedule: missing",
        "fleet.yaml:17: servers.crm.drill.max_size: not a size; write 500MiB, 50GiB or 2TiB",
        "fleet.yaml:19: servers.crm.dump.exclude_table: unknown key; did you mean 'exclude_tables'?",
        "fleet.yaml:20: servers.bad name: the name is part of a DAG's id; use letters, digits, '_', '-' and '.'",
    ]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"retention": {}}, "retention: the retention policy has no rule"),
        ({"retention": {"keep_daily": True}}, "retention.keep_daily: expected a whole number, found true or false"),
        ({"retention": {"keep_last": -1}}, "retention.keep_last: must be greater than or equal to 0"),
        ({"retention": {"keep_within": "1 year"}}, "retention.keep_within: '1 year' is not a time span"),
        ({"databases": []}, "databases: empty"),
        ({"databases": "app"}, "databases: expected a list, found text"),
        ({"parallel": 0}, "parallel: must be greater than or equal to 1"),
        ({"parallel": 5000}, "parallel: must be less than or equal to 1000"),
        ({"deadline": "0h"}, "deadline: not longer than zero; write 36h, 30d or 8w"),
        ({"deadline": timedelta(hours=-1)}, "deadline: not longer than zero; write 36h, 30d or 8w"),
        ({"retention": {"keep_within": "0d"}}, "retention.keep_within: not longer than zero"),
        ({"freshness": {"max_age": "0h", "schedule": "@daily"}}, "freshness.max_age: not longer than zero"),
        (
            {"freshness": {"max_drop": 90, "schedule": "@daily", "max_age": "1d"}},
            "freshness.max_drop: must be less than",
        ),
        ({"deadline": 6}, "deadline: not a time span; write 36h, 30d or 8w"),
        ({"dump": {"jobs": 4}}, "dump: jobs=4 and format='custom' cannot be combined"),
        ({"dump": {"repository": "s3://xx/y"}}, "dump.repository: belongs beside dump, not in it"),
        ({"dump": {"verify": "archive"}}, "dump.verify: unknown key; use verify_while_dumping beside dump"),
        ({"dump": {"recipients": "age1x"}}, "dump.recipients: expected a list, found text"),
        ({"dump": {"recipients": [5]}}, "dump.recipients: invalid recipients: number 1 is int"),
        ({"dump": {"recipients": ["age1x"]}}, "dump.recipients: the recipient 'age1x' is not a public key of age"),
        ({"dump": {"count_rows": "often"}}, "dump.count_rows: invalid count_rows 'often'; pass True or False"),
        ({"dump": {"count_rows": None}}, "dump.count_rows: invalid count_rows None"),
        ({"dump": {"max_replay_lag": "1h"}}, "dump.max_replay_lag: invalid max_replay_lag '1h'; give a number of"),
        ({"dump": {"max_replay_lag": True}}, "dump.max_replay_lag: invalid max_replay_lag True"),
        ({"dump": {"max_replay_lag": timedelta(-1)}}, "dump.max_replay_lag: invalid max_replay_lag datetime"),
        ({"dump": {"max_bytes_per_second": 10**400}}, "dump.max_bytes_per_second: invalid max_bytes_per_second"),
        (
            {"dump": {"max_bytes_per_second": 1e6, "format": "directory"}},
            "dump.max_bytes_per_second: max_bytes_per_second cannot be combined with format directory",
        ),
        ({"dump": {"jobs": "4", "format": "directory"}}, "dump.jobs: jobs is '4' of type str; pass an int"),
        ({"dump": {"schemas": "app", "if_exists": True, "clean": True}}, "dump.schemas: schemas is the string 'app'"),
        ({"dump": {"extra_args": ["-n"]}}, "dump.extra_args: extra_args has '-n'; give each flag as one"),
        ({"dump": {"labels": 5}}, "dump.labels: expected a list, found a number"),
        ({"dump": {"labels": ["a b"]}}, "dump.labels: invalid label 'a b'"),
        ({"dump": {"labels": [["a"]]}}, """dump.labels: invalid label "['a']\""""),
        ({"dump": {"labels": {"password": "hunter2"}}}, "dump.labels: expected a list, found a mapping"),
        ({"dump": {"artifact_template": "{foo}"}}, "dump.artifact_template: the artifact template '{foo}' holds"),
        ({"dump": {"no_role_passwords": True}}, "dump.no_role_passwords: unknown key; it is an option of pg_dumpall"),
        ({"pool": "pgbackup_{srv}"}, "pool: {server} is the only placeholder"),
        ({"tags": ["x" * 101]}, "tags[0]: must have at most 100 characters"),
        ({"retries": 10**20}, "retries: must be less than or equal to 1000"),
        ({"dump": {"snapshot": "00000003"}}, "dump.snapshot: unknown key"),
        ({"dump": {"repository_uuid": "x"}}, "dump.repository_uuid: unknown key"),
        ({"alerts": {"on_failure": "os.path"}}, "alerts.on_failure: not a function or a notifier"),
        (
            {"alerts": {"on_failure": ["airflow.sdk.BaseNotifier"]}},
            "alerts.on_failure: not a function or a notifier",
        ),
        ({"schedule": "0 0 2 * * *"}, "schedule: expected minute, hour, day, month and weekday, without R"),
        ({"schedule": "R 2 * MAR FRI"}, "schedule: expected minute, hour, day"),
        ({"schedule": "0 0 30 2 *"}, "schedule: a date that does not exist"),
        ({"databases": ["a", "b"], "exclude": ["?"]}, "exclude: leaves no database to back up"),
        ({"host": "db1"}, "host: unknown key; the server's address and user belong to the Airflow connection"),
    ],
    ids=str,
)
def test_a_setting_is_refused(setting: dict[str, Any], problem: str) -> None:
    (found,) = problems_of({"servers": {"crm": {"repository": "s3://aa/b", **setting}}})
    assert found.startswith(f"servers.crm.{problem}")


def test_parameters_of_the_dump_may_be_templates_and_text() -> None:
    dump = {
        "count_rows": "{{ params.count }}",
        "max_replay_lag": "60",
        "max_bytes_per_second": "{{ var.value.rate }}",
        "recipients": ["{{ var.value.key }}"],
    }
    assert read_fleet({"servers": {"crm": {"repository": "s3://aa/b", "dump": dump}}})["crm"].dump == dump


def test_a_problem_is_short() -> None:
    (found,) = problems_of({"servers": {"crm": {"repository": "s3://aa/b", "time_zone": "x" * 800_000}}})
    assert 1000 < len(found) < 3000


SECRET = "hunter2-1234"


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("servers.crm.password", {"password": SECRET}),
        ("servers.crm.db_passwd", {"db_passwd": SECRET}),
        ("servers.crm.aws_secret_access_key", {"aws_secret_access_key": SECRET}),
        ("servers.crm.dump.password", {"dump": {"password": SECRET}}),
        ("servers.crm.postgres_conn_id", {"postgres_conn_id": f"postgresql://backup:{SECRET}@db1/app"}),
        ("servers.crm.upload_to", {"upload_to": f"s3://AKIAX:{SECRET}@bucket/pg"}),
        ("servers.crm.dump.extra_args[0]", {"dump": {"extra_args": [f"--dbname=host=db1 password={SECRET}"]}}),
        ("servers.crm.dump.labels[0]", {"dump": {"labels": [f"password={SECRET}"]}}),
        ("servers.crm.dump.labels[0][0]", {"dump": {"labels": [[f"password={SECRET}"]]}}),
        ("servers.crm.time_zone", {"time_zone": f"password: {SECRET}"}),
        ("servers.crm.databases[0]", {"databases": [f"host=a password={SECRET}"]}),
        ("servers", {"crm": {}, f"postgres://backup:{SECRET}@db1/app": {}}),
    ],
)
def test_a_secret_is_refused_and_not_repeated(path: str, setting: dict[str, Any]) -> None:
    servers = setting if path == "servers" else {"crm": {"repository": "s3://aa/b", **setting}}
    found = problems_of({"servers": servers})
    assert f"{path}: secrets do not belong in this mapping; put them into the Airflow connection that it names" in found
    assert SECRET not in str(found)


def test_a_server_may_be_named_after_a_secret() -> None:
    assert list(read_fleet({"servers": {"token_service": {"repository": "s3://aa/b"}}})) == ["token_service"]


@pytest.mark.parametrize("upload_to", ["S3://my-backups/pg/", "{{ var.value.repository }}"])
def test_copies_need_another_repository(upload_to: str) -> None:
    repository = "s3://my-backups/pg" if upload_to.startswith("S3") else upload_to
    server = {"repository": repository, "upload_to": upload_to}
    assert problems_of({"servers": {"crm": server}}) == [
        "servers.crm: upload_to is the repository itself; copies need another one"
    ]
    assert read_fleet({"servers": {"crm": {**server, "upload_aws_conn_id": "other_store"}}})


def test_a_retention_of_copies_needs_copies(problems: Problems) -> None:
    text = """
defaults: {repository: "s3://aa/b", upload_retention: {keep_last: 9}}
groups: {all: {upload_retention: {keep_last: 9}}, nobody: {upload_retention: {keep_last: 9}}}
servers:
  crm: {group: all}
  erp:
    upload_retention: {keep_last: 9}
"""
    wrong = "upload_retention: there are no copies without upload_to; set it, or leave this out"
    assert problems(text) == [
        f"fleet.yaml:2: defaults.{wrong}",
        f"fleet.yaml:3: groups.all.{wrong}",
        f"fleet.yaml:7: servers.erp.{wrong}",
    ]
    # Where one server has copies, the others need not set it to null.
    assert problems(text.replace("{group: all}", "{group: all, upload_to: 's3://cc/d'}")) == [
        f"fleet.yaml:7: servers.erp.{wrong}"
    ]


def test_two_dags_of_one_id_are_refused(problems: Problems) -> None:
    assert problems(
        """
defaults: {repository: "s3://aa/b", drill: {schedule: "@weekly"}}
servers:
  crm:
  crm_drill:
"""
    ) == ["fleet.yaml:5: servers.crm_drill: its DAG would have the id of the drill of crm; rename it"]


QUOTE = "quote a value that begins with one of * & ! @ % `"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "fleet.yaml: servers: missing"),
        ("- crm", "fleet.yaml: expected a mapping, found a list"),
        ("servers:\n  crm: [", "fleet.yaml:3: not valid YAML: did not find expected node content"),
        (
            "servers:\n  crm: {schedule: @daily}",
            f"fleet.yaml:2: not valid YAML: found character that cannot start any token; {QUOTE}",
        ),
        (
            "servers:\n\tcrm: {}",
            "fleet.yaml:2: not valid YAML: found character that cannot start any token; indent with spaces, not tabs",
        ),
        (
            "servers:\n  crm: {databases: *}",
            f"fleet.yaml:2: not valid YAML: did not find expected alphabetic or numeric character; {QUOTE}",
        ),
        ("a: &a [1]\nb: *a", f"fleet.yaml:1: an anchor is not supported; {QUOTE}"),
        ("a: 1\nb: *tenants", f"fleet.yaml:2: an alias is not supported; {QUOTE}"),
        ("a:\n  !!python/object/apply:os.system [id]", f"fleet.yaml:2: a tag is not supported; {QUOTE}"),
        ("a: 1\nb: 2\na: 3", "fleet.yaml:3: a: exists already in line 1"),
        ("servers:\n  5: {}", "fleet.yaml:2: servers: the key 5 is not text; quote it"),
        ("? [a, b]\n: c", "fleet.yaml:1: a key is not text; quote it"),
        ("a: 2026-02-31", "fleet.yaml: not valid YAML: day is out of range for month"),
        ("[" * 1_000_000, f"fleet.yaml:1: nested more than {MAX_DEPTH} levels deep"),
        ("{a: " * 200_000, f"fleet.yaml:1: nested more than {MAX_DEPTH} levels deep"),
        ("#" * (MAX_BYTES + 1), f"fleet.yaml: larger than {MAX_BYTES} bytes"),
        (b"\xff\xfe\xff", "fleet.yaml: not UTF-8"),
    ],
    ids=range(17),
)
def test_hostile_and_broken_yaml(problems: Problems, text: str, found: str) -> None:
    assert problems(text) == [found]


def test_a_control_character_is_refused_and_not_printed(problems: Problems) -> None:
    (found,) = problems("a: \x1b[31m")
    assert found.startswith("fleet.yaml: not valid YAML: unacceptable character #x001b")
    assert problems('servers: {"\\e[31m": {repository: "s3://aa/b"}}')[0].startswith(
        "fleet.yaml:1: servers.\\x1b[31m: "
    )


def test_a_missing_file_is_named_with_its_directory(tmp_path: Path) -> None:
    assert problems_of(tmp_path / "fleet.yaml") == [
        f"fleet.yaml: cannot read {tmp_path}/fleet.yaml: No such file or directory"
    ]


def test_it_is_an_error_of_this_package() -> None:
    import pickle

    with pytest.raises(ConfigurationError) as caught:
        read_fleet({})
    assert pickle.loads(pickle.dumps(caught.value)).problems == ["servers: missing"]  # type: ignore[attr-defined]


def test_alerts_are_functions_of_modules_or_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fleet_alerts.py").write_text("def page(context): ...\ndef mail(context): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    server = {"repository": "s3://aa/b", "alerts": {"on_failure": ["fleet_alerts.page", "fleet_alerts.mail"]}}
    alerts = read_fleet({"servers": {"crm": server}})["crm"].alerts
    module = sys.modules.pop("fleet_alerts")
    assert alerts.on_failure == [module.page, module.mail]
    server = {"repository": "s3://aa/b", "alerts": {"on_success": module.page}}
    assert read_fleet({"servers": {"crm": server}})["crm"].alerts.on_success == [module.page]
