"""The documentation says what the code does: tables, parameters, findings, links."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tables_are_up_to_date(page: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.generated(page.read_text()) == page.read_text(), "run: make docs"


@pytest.mark.parametrize(
    ("page", "module", "name"),
    [
        ("check", "check", "PgBackupCheckOperator"),
        ("dump", "dump", "PgDumpOperator"),
        ("dump_all", "dump", "PgDumpAllOperator"),
        ("verify", "verify", "PgBackupVerifyOperator"),
        ("upload", "upload", "PgBackupUploadOperator"),
        ("restore", "restore", "PgRestoreOperator"),
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
        and getattr(node.func, "attr", "") in ("error", "warning", "failed")
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_are_python(page: Path) -> None:
    for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        ast.parse(textwrap.dedent(example))


def test_examples_name_what_there_is() -> None:
    """Every import in an example works."""
    imports = {
        line.strip()
        for page in PAGES
        for example in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        for line in example.splitlines()
        if re.match(r"from airflow_pgbackup[\w.]* import \w+", line)
    }
    assert imports
    subprocess.run([sys.executable, "-W", "ignore", "-c", "\n".join(sorted(imports))], check=True)
