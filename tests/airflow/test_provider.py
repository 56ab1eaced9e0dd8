"""What Airflow knows about the provider, and what the operators' constructors guarantee."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from airflow.sdk import BaseOperator

import airflow_pgbackup
from airflow_pgbackup import __version__
from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions
from airflow_pgbackup.provider_info import get_provider_info
from airflow_pgbackup.settings import Settings, load


def airflow(*arguments: str) -> str:
    """Airflow's own command line; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments], capture_output=True, text=True, timeout=400, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_airflow_lists_the_provider() -> None:
    providers = json.loads(airflow("providers", "list", "--output", "json"))
    (ours,) = [provider for provider in providers if provider["package_name"] == "airflow-pgbackup"]
    assert ours["version"] == __version__


def test_airflow_shows_the_provider() -> None:
    (shown,) = json.loads(airflow("providers", "get", "airflow-pgbackup", "--full", "--output", "json"))
    assert shown["package-name"] == "airflow-pgbackup"
    assert "airflow_pgbackup.operators.dump" in str(shown["operators"])
    assert "airflow_pgbackup.hooks.pgbackup" in str(shown["hooks"])


def test_airflow_loads_no_dags_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``load_examples``, Airflow's default, it loads ``example_dags`` of each provider: DAGs of the same ids as
    those that a user made from our examples would take their place."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    bundles = [bundle.name for bundle in DagBundlesManager().get_all_dag_bundles()]
    assert "example_dags" in bundles
    assert [name for name in bundles if "pgbackup" in name] == []


def test_airflow_knows_every_setting_and_its_default() -> None:
    options = get_provider_info()["config"]["pgbackup"]["options"]
    assert set(options) == {field.name for field in dataclasses.fields(Settings)}
    assert all(option["description"] for option in options.values())
    assert load(airflow=True, environ={}) == Settings()


def test_a_setting_from_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__PGBACKUP__LOCK_WAIT_TIMEOUT", "7")
    assert load(airflow=True, environ={}).lock_wait_timeout == 7
    assert load(airflow=True, environ={"PGBACKUP_LOCK_WAIT_TIMEOUT": "8"}).lock_wait_timeout == 8


def test_provider_info_is_valid() -> None:
    import airflow
    import jsonschema

    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


@pytest.mark.parametrize("name", ["PgDumpOperator", "PgDumpAllOperator"])
def test_the_operator_has_every_option(name: str) -> None:
    """Same names, types and defaults, in the same order: pg_dump's --help."""
    from airflow_pgbackup.operators import dump

    options = {"PgDumpOperator": DumpOptions, "PgDumpAllOperator": DumpAllOptions}[name]
    signature = inspect.signature(getattr(dump, name).__init__).parameters
    own = [argument for argument in signature if argument in options.__dataclass_fields__]
    wanted = [*options.table(), "extra_args"]
    if name == "PgDumpAllOperator":
        # among the arguments of every dump operator
        wanted.remove("database")
        own.remove("database")
    assert own == wanted
    for argument in own:
        field = options.__dataclass_fields__[argument]
        parameter = signature[argument]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert (parameter.annotation, parameter.default) == (field.type, field.default), argument


def operators() -> Mapping[str, type[BaseOperator]]:
    """Every public operator and sensor, by its name."""
    found: dict[str, type[BaseOperator]] = {}
    for package in ("operators", "sensors"):
        for name in modules_in(package):
            module = importlib.import_module(f"airflow_pgbackup.{package}.{name}")
            found |= {
                name: value
                for name, value in vars(module).items()
                if name.startswith("Pg") and isinstance(value, type) and value.__module__ == module.__name__
            }
    found.pop("PgBackupOperator", None)  # the base
    return found


def modules_in(package: str) -> list[str]:
    directory = Path(airflow_pgbackup.__file__).parent / package
    return sorted(path.stem for path in directory.glob("*.py") if not path.stem.startswith("_"))


NAMES = sorted(operators())


def test_provider_info_names_every_module() -> None:
    """A new operator, sensor, trigger or hook has an entry."""
    info = get_provider_info()
    for package in ("hooks", "operators", "sensors", "triggers"):
        (entry,) = info[package]
        assert entry["python-modules"] == [f"airflow_pgbackup.{package}.{name}" for name in modules_in(package)]
    for name in info["cli"]:
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_operators_are_found() -> None:
    assert NAMES == [
        "PgBackupCheckOperator",
        "PgBackupFreshnessSensor",
        "PgBackupPruneOperator",
        "PgBackupReportOperator",
        "PgBackupRewrapOperator",
        "PgBackupSetOperator",
        "PgBackupUploadOperator",
        "PgBackupVerifyOperator",
        "PgDiscoverOperator",
        "PgDumpAllOperator",
        "PgDumpOperator",
        "PgRefreshOperator",
        "PgRestoreOperator",
        "PgRestoreSetOperator",
    ]


# The rendered fields are for everybody to see, and this one may be a secret; that one is a word of pg_dump's.
NO_TEMPLATE = {"restrict_key", "sync_method"}


@pytest.mark.parametrize("name", NAMES)
def test_every_text_and_list_is_a_template_field(name: str) -> None:
    operator = operators()[name]
    parameters = inspect.signature(operator.__init__).parameters.values()
    texts = {p.name for p in parameters if any(word in str(p.annotation) for word in ("str", "Mapping", "Sequence"))}
    assert set(operator.template_fields) == texts - NO_TEMPLATE


@pytest.mark.parametrize("name", NAMES)
def test_every_list_and_mapping_is_shown_as_json(name: str) -> None:
    operator = operators()[name]
    parameters = inspect.signature(operator.__init__).parameters
    nested = {
        field
        for field in operator.template_fields
        if any(word in str(parameters[field].annotation) for word in ("Mapping", "Sequence"))
    }
    assert operator.template_fields_renderers == dict.fromkeys(nested, "json")


def test_the_default_name_of_an_artifact() -> None:
    from airflow_pgbackup.operators.dump import PgDumpOperator
    from airflow_pgbackup.repository.layout import DEFAULT_ARTIFACT

    assert inspect.signature(PgDumpOperator.__init__).parameters["artifact_template"].default == DEFAULT_ARTIFACT


def test_no_argument_hides_one_of_airflow_s() -> None:
    from airflow.sdk import BaseOperator

    taken = set(dir(BaseOperator)) | set(inspect.signature(BaseOperator.__init__).parameters)
    for name, operator in operators().items():
        own = set(inspect.signature(operator.__init__).parameters) - {"self", "kwargs"}
        assert own & taken == set(), name


OTHERS = {"delete": False, "max_age": 60, "server": "s", "discovery": {}, "backups": [], "repositories": []}


def test_a_constructor_only_stores() -> None:
    backup = {"repository": "file:///r"}
    for name, operator in operators().items():
        required = {"repository": "nonsense://", "backup": backup, "destination": "nonsense://", **OTHERS}
        parameters = inspect.signature(operator.__init__).parameters
        task = operator(task_id="t", **{key: value for key, value in required.items() if key in parameters})
        for parameter in parameters.values():
            if parameter.name not in ("self", "kwargs"):
                assert getattr(task, parameter.name) == required.get(parameter.name, parameter.default), name


def test_operators_survive_serialization() -> None:
    import copy

    from airflow.sdk import DAG
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG("d", schedule=None) as dag:
        for name, operator in operators().items():
            parameters = inspect.signature(operator.__init__).parameters
            required = {"repository": "file:///r", "backup": {"id": "x"}, "destination": "file:///s", **OTHERS}
            task = operator(task_id=name, **{key: value for key, value in required.items() if key in parameters})
            copy.deepcopy(task)
    DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


def test_importing_an_operator_loads_nothing_heavy() -> None:
    """A DAG file is parsed every few seconds: what only a running task needs is imported there."""
    code = """
import importlib, os, sys
import airflow.sdk
from airflow.sdk import DAG, BaseOperator
before = set(sys.modules)
for module in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(module)
        print(*sorted(set(sys.modules) - before), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, module
"""
    modules = [f"airflow_pgbackup.operators.{module}" for module in modules_in("operators")]
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True, timeout=400
    )
    heavy = ("boto", "psycopg", "jsonschema", "zstandard", "airflow.providers", "airflow_pgbackup.backup")
    for module, loaded in zip(modules, map(str.split, done.stdout.splitlines()), strict=True):
        assert module in loaded
        assert [name for name in loaded if name.startswith(heavy)] == [], module
