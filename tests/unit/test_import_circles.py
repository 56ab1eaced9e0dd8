"""No import circle, neither of modules nor of packages; those for type checkers and inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import airflow_pgbackup

PACKAGE = Path(airflow_pgbackup.__file__).parent


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(path: Path) -> set[str]:
    """Return the modules of this package that a module imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in MODULES else node.module)
    return found & MODULES.keys()


def room(module: str) -> str:
    """Return the package of a module, ``airflow_pgbackup.postgres.tools``; a module outside a room is its own."""
    return ".".join(module.split(".")[:3])


@pytest.mark.parametrize("key", [str, room], ids=["modules", "packages"])
def test_there_is_no_import_circle(key: Callable[[str], str]) -> None:
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        graph.setdefault(key(name), set()).update(map(key, imports(path) - {name}))
    for name, imported in graph.items():
        imported.discard(name)  # modules of one package import each other
    assert len(graph) > 50
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' <- '.join(error.args[1])}")
