"""Read a YAML file with the line of every value. The file is bounded, and holds plain data only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from airflow_pgbackup.errors import FleetError, MappingError
from airflow_pgbackup.yaml_mapping.problem import Origin, Problem
from airflow_pgbackup.yaml_mapping.problem import Path as Keys

MAX_BYTES = 1024**2
"""The largest file that is read: a thousand servers take about 200 KiB."""
MAX_DEPTH = 16
"""The deepest nesting; the schema has 6 levels."""

# libyaml's loader is ten times as fast; a PyYAML built without libyaml has only its own.
_SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(_SAFE_LOADER):  # type: ignore[misc]
    """Takes ``12:30`` as text. For YAML 1.1 it is the number 750, and a long one takes minutes to compute."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return _TEXT if tag in _NUMBERS and ":" in value else tag


_QUOTE = "quote a value that begins with one of * & ! @ % `"


def read_yaml(file: Path, raises: type[MappingError] = FleetError) -> tuple[Any, Origin]:
    """Return the file's content, and the lines of its values.

    Aliases, anchors and tags are refused: with aliases a small file can become enormous, and a tag can name a class.

    :param raises: the class of the errors.
    :raises MappingError: the file cannot be read, is too large, is not YAML, or repeats a key.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _invalid(Origin(file.name, raises=raises), f"cannot read {file}: {error.strerror}") from None
    return parse_yaml(data, Origin(file.name, raises=raises))


def parse_yaml(data: bytes, origin: Origin) -> tuple[Any, Origin]:
    """Return the content of YAML text, and the lines of its values; see :func:`read_yaml`.

    :param origin: its name, and the class of the errors.
    :raises MappingError: as for :func:`read_yaml`.
    """
    try:
        if len(data) > MAX_BYTES:
            raise _invalid(origin, f"larger than {MAX_BYTES} bytes")
        text = data.decode("utf-8-sig")
        _refuse_references(origin, text)
        node = yaml.compose(text, Loader=_Loader)
        lines, problems = _inspect(node)
        origin = replace(origin, lines=lines)
        if problems:
            raise origin.error(problems)
        content = None if node is None else SafeConstructor().construct_document(node)
    except UnicodeDecodeError:
        raise _invalid(origin, "not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = str(error.problem or error.context)
        hint = f"; {_QUOTE}" if "start any token" in what or "alphabetic or numeric" in what else ""
        if hint and mark and text[mark.index : mark.index + 1] == "\t":
            hint = "; indent with spaces, not tabs"
        raise _invalid(origin, f"not valid YAML: {what}{hint}", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a forbidden character; a date like 2026-02-31
        raise _invalid(origin, f"not valid YAML: {' '.join(str(error).split())}") from None
    return content, origin


def _invalid(origin: Origin, text: str, line: int = 0) -> MappingError:
    return origin.error([Problem((), text, line)])


def _refuse_references(origin: Origin, text: str) -> None:
    """Refuse aliases, tags and deep nesting from the parser's events, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        what = None
        if isinstance(event, yaml.AliasEvent):
            what = "an alias"
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            what = "an anchor"
        elif getattr(event, "tag", None) not in (None, "!"):
            what = "a tag"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if what or depth > MAX_DEPTH:
            problem = f"{what} is not supported; {_QUOTE}" if what else f"nested more than {MAX_DEPTH} levels deep"
            raise _invalid(origin, problem, event.start_mark.line + 1)


def _inspect(top: Any) -> tuple[dict[Keys, int], list[Problem]]:
    """Return the line of every path, and the keys that are repeated or are not text."""
    lines: dict[Keys, int] = {}
    problems: list[Problem] = []
    waiting: list[tuple[Keys, Any]] = [((), top)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                inner = (*path, index)
                lines[inner] = item.start_mark.line + 1
                waiting.append((inner, item))
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.tag != _TEXT:
                    text = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "a key"
                    problems.append(Problem(path, f"{text} is not text; quote it", line))
                    continue
                inner = (*path, key.value)
                if inner in lines:
                    problems.append(Problem(inner, f"exists already in line {lines[inner]}", line))
                else:
                    lines[inner] = line
                    waiting.append((inner, value))
    return lines, problems
