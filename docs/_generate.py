"""Write the tables of parameters and options into the pages below this directory: ``make docs``.

A page asks for a table by a pair of comments; the text between them is replaced::

    <!-- generated: parameters airflow_pgbackup.operators.dump PgDumpAllOperator PgDumpOperator -->
    <!-- end -->
    <!-- generated: pipeline pg_backup -->
    <!-- end -->
    <!-- generated: options DumpAllOptions database -->
    <!-- end -->
    <!-- generated: excluded DumpOptions -->
    <!-- end -->
    <!-- generated: restorability table -->
    <!-- end -->
    <!-- generated: restorability examples -->
    <!-- end -->
    <!-- generated: awkward databases -->
    <!-- end -->
    <!-- generated: settings Settings -->
    <!-- end -->

``parameters`` are those of the first class's constructor; each is described by the first of the classes whose docstring
mentions it. ``pipeline`` are those of a task group of :mod:`airflow_pgbackup.pipelines`. ``options`` are the tables
of :mod:`airflow_pgbackup.postgres.options`, without the fields named after the class. ``excluded`` are the flags that
are not offered as parameters. ``restorability`` are the problems of
:mod:`airflow_pgbackup.backup.check.restorability_problems`, as a table and one by one. ``awkward`` is the table of the
tests of awkward databases. ``settings`` are the keys of a part of a mapping of servers, whose JSON Schema is written,
too.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import runpy
from collections.abc import Callable, Iterable
from pathlib import Path

from airflow_pgbackup import pipelines
from airflow_pgbackup.backup.check.restorability_problems import PROBLEMS, RestorabilityProblem
from airflow_pgbackup.pipelines.fleet import model
from airflow_pgbackup.postgres import options
from airflow_pgbackup.postgres.options.kinds import Choice, Integer, Option, Pair
from airflow_pgbackup.postgres.options.tool import ToolOptions
from airflow_pgbackup.postgres.tools.capabilities import OLDEST_MAJOR

_BLOCK = re.compile(r"(<!-- generated: (\w+) (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
_PARAM = re.compile(r"^ *:param (\w+): (.*?)(?=^ *:param |^ *:return|^ *:raises |^ *$|\Z)", re.DOTALL | re.MULTILINE)


def generated(page: str) -> str:
    """Return the page with its tables up to date."""
    return _BLOCK.sub(lambda block: f"{block[1]}{_table(block[2], block[3].split())}{block[4]}", page)


def _table(kind: str, arguments: list[str]) -> str:
    if kind == "options":
        return _options(getattr(options, arguments[0]), without=arguments[1:])
    if kind == "excluded":
        excluded = getattr(options, arguments[0]).excluded()
        return _rows(("flag", "reason"), ((f"`{flag}`", _markdown(why)) for flag, why in sorted(excluded.items())))
    if kind == "awkward":
        return _awkward()
    if kind == "settings":
        return _settings(getattr(model, arguments[0]))
    if kind == "pipeline":
        return _pipeline(getattr(pipelines, arguments[0]).function)
    if kind == "restorability":
        return _problems() if arguments == ["table"] else "".join(map(_problem, PROBLEMS.values()))
    module = importlib.import_module(arguments[0])
    return _parameters([getattr(module, name) for name in arguments[1:]])


def _awkward() -> str:
    path = Path(__file__).parents[1] / "tests" / "integration" / "awkward.py"
    kinds = runpy.run_path(str(path))["KINDS"]
    shown = {"notproven": "not proven"}
    return _rows(
        ("the database has", "custom", "plain", "restores into the same version", "`check` finds"),
        (
            (
                _markdown(kind.what),
                *(shown.get(verdict, verdict) for verdict in map(kind.verdict_of, ("custom", "plain"))),
                "yes" if kind.restores else "no",
                ", ".join(f"`{code}`" for code in kind.found),
            )
            for kind in kinds.values()
        ),
    )


def _settings(part: type[model.Part]) -> str:
    def default(name: str) -> str:
        schema = part.model_json_schema()["properties"][name]
        return f"`{json.dumps(schema['default'])}`" if "default" in schema else "required"

    return _rows(
        ("key", "default", "meaning"),
        ((f"`{name}`", default(name), _markdown(field.description or "")) for name, field in part.model_fields.items()),
    )


def schema_text() -> str:
    """Return the JSON Schema of a mapping of servers."""
    return json.dumps(model.json_schema(), indent=2) + "\n"


def _parameters(classes: list[type]) -> str:
    described: dict[str, str] = {}
    for cls in reversed(classes):
        described |= {name: _markdown(text) for name, text in _PARAM.findall(inspect.getdoc(cls) or "")}
    rendered = set(getattr(classes[0], "template_fields", ()))
    signature = inspect.signature(classes[0].__init__).parameters  # type: ignore[misc]
    return _rows(
        ("parameter", "default", "template", "description"),
        (
            (
                f"`{name}`",
                "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`",
                "yes" if name in rendered else "",
                described[name],
            )
            for name, parameter in signature.items()
            if name in described
        ),
    )


def _pipeline(function: Callable[..., object]) -> str:
    described = dict(_PARAM.findall(inspect.getdoc(function) or ""))
    rows = []
    for name, parameter in inspect.signature(function).parameters.items():
        others = parameter.kind is parameter.VAR_KEYWORD
        default = "" if others else "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"
        rows.append((f"`**{name}`" if others else f"`{name}`", default, _markdown(described[name])))
    return _rows(("parameter", "default", "description"), rows)


def _options(tool: type[ToolOptions], without: Iterable[str] = ()) -> str:
    return _rows(
        ("parameter", "flag", "since", "description"),
        (
            (f"`{name}`", _flags(option), _since(option), _what(option))
            for name, option in tool.table().items()
            if name not in without
        ),
    )


def _flags(option: Option) -> str:
    if not isinstance(option, Pair):
        return f"`{option.flag}`"
    flags = f"`{option.flag}`, `{option.no_flag}`"
    if option.renamed:
        yes, no, major = option.renamed
        flags += f" (before {major}: `{yes}`, `{no}`)"
    return flags


def _since(option: Option) -> str:
    if option.since == ((OLDEST_MAJOR, 0),):
        return ""
    return option.since_text.removesuffix(" or newer")


def _what(option: Option) -> str:
    what = _markdown(option.help)
    if isinstance(option, Choice):
        what += f": {', '.join(f'`{choice!r}`' for choice in option.choices)}"
    if isinstance(option, Pair):
        what += "; `True`, `False`, or `None` for the tool's default" if "None" not in what else ""
    if isinstance(option, Integer) and option.low < 1:
        what += f"; {option.low} to {option.high}"
    if option.repeat:
        what += "; a list"
    return what + ("; kept out of the manifest" if option.secret else "")


def _problems() -> str:
    return _rows(
        ("code", "severity", "what was found", "at restore"),
        (
            (
                f"[`{problem.code}`](#{problem.code})",
                problem.severity,
                problem.message.removesuffix(": {}"),
                problem.consequence,
            )
            for problem in PROBLEMS.values()
        ),
    )


def _problem(problem: RestorabilityProblem) -> str:
    objects = ", ".join(problem.objects) or "…"
    text = f"### {problem.code}\n\n{problem.severity}: `{problem.message.format(objects)}`\n\n"
    text += f"At restore: {problem.consequence}.\n\n{problem.hint_about(objects)}\n\n"
    if problem.condition:
        text += f"Example: {problem.condition}{':' if problem.example else '.'}\n\n"
    if problem.example:
        text += "```sql\n" + "".join(f"{statement};\n" for statement in problem.example) + "```\n\n"
    return text


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"``\1``", text)
    text = " ".join(text.replace("``", "`").split())
    return text.replace("|", "\\|")


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.rglob("*.md")):
        before = path.read_text()
        if (after := generated(before)) != before:
            path.write_text(after)
    (Path(__file__).parent / "reference" / "fleet.schema.json").write_text(schema_text())
