"""Read a mapping of servers: from a file or from Python, checked in full before the first DAG is made."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.pipelines.fleet.check_servers import check_copies, check_servers
from airflow_pgbackup.pipelines.fleet.model import (
    WITHOUT_IMPORTS,
    Alerts,
    Drill,
    Fleet,
    Freshness,
    Retention,
    Server,
    Settings,
    in_words,
)
from airflow_pgbackup.repository.labels import check_labels
from airflow_pgbackup.repository.layout import artifact_name
from airflow_pgbackup.time_spans import seconds_of_lag
from airflow_pgbackup.yaml_mapping.problem import Origin, Problem, did_you_mean
from airflow_pgbackup.yaml_mapping.problem import Path as Keys
from airflow_pgbackup.yaml_mapping.yaml_file import read_yaml

_PARTS: dict[str, type[BaseModel]] = {
    "retention": Retention,
    "upload_retention": Retention,
    "drill": Drill,
    "freshness": Freshness,
    "alerts": Alerts,
}
# What belongs to the Airflow connection.
_ADDRESS = {"host", "hostname", "port", "user", "username", "login", "sslmode", "uri", "url", "conninfo", "extra"}
_SECRET_KEY = re.compile(
    r"(?i)passw|passphrase|secret|token|credential|private_?key|api_?key|access_key|pgpass|\bdsn\b|^pwd$"
)
_SECRET_VALUE = re.compile(
    r"""(?ix) ://[^/\s:@]*:[^/\s@]+@            # user:password@ in a URI
    | \b(passw(or)?d|secret\w*|token)\s*[=:]\s*\S   # password=…, as in a conninfo
    | \bA(KI|SI)A[0-9A-Z]{16}\b                 # an access key of AWS
    | -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY """
)
_NO_SECRETS = "secrets do not belong in this mapping; put them into the Airflow connection that it names"
_TYPES = {
    bool: "true or false",
    str: "text",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}
_WANTED = {
    "bool_type": "true or false",
    "string_type": "text",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
# Parameters of PgDumpOperator that have a key of their own here, or that differ from task to task.
_NOT_IN_DUMP = {
    "repository",
    "postgres_conn_id",
    "database",
    "aws_conn_id",
    "server",
    "deadline",
    "init_repository",
    "repository_uuid",
    "snapshot",
    "restrict_key",
    "verify",
}
_LISTS = {"labels", "recipients"}


def read_fleet(source: Path | Mapping[str, Any], *, imports: bool = True) -> dict[str, Server]:
    """Return the servers by name, each with its group's settings and the defaults filled in.

    Nothing but the file is read: no connection, no repository.

    :param imports: import the functions of the alerts. False, for a process that never calls them, leaves their dotted
        paths unchecked: the modules need not exist there, and no code of theirs runs.
    :raises FleetError: the mapping is invalid; the error lists every problem.
    """
    content, origin = read_yaml(source) if isinstance(source, Path) else (_plain(source), Origin())
    secrets = list(_secrets(content))
    layers = _layers(content)
    problems = [*_check_dump(layers), *_check_groups(content, layers)]
    try:
        fleet = Fleet.model_validate({} if content is None else content, context=None if imports else WITHOUT_IMPORTS)
    except ValidationError as error:
        problems += _translate(error)
    # Report a secret once; drop other problems at its path, of what contains it, as they may quote it, and those whose
    # path has a key that is itself a secret.
    named = {problem.path[:length] for problem in secrets for length in range(len(problem.path) + 1)}
    problems = [each for each in problems if each.path not in named and not any(map(_is_secret, each.path))]
    if secrets or problems:
        raise origin.error([*secrets, *problems])
    servers = {name: _resolve(fleet, name, server or Server()) for name, server in fleet.servers.items()}
    if problems := [*check_servers(servers), *check_copies(fleet, servers)]:
        raise origin.error(problems)
    return servers


def _plain(value: Any) -> Any:
    """Return a Python mapping as YAML would give it: other mappings as dicts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _layers(content: Any) -> dict[Keys, Mapping[str, Any]]:
    """Return defaults, groups and servers by their paths, as far as they are mappings."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[Keys, Any] = {("defaults",): content.get("defaults")}
    for part in ("groups", "servers"):
        if isinstance(members := content.get(part), Mapping):
            found |= {(part, name): member for name, member in members.items()}
    return {path: layer for path, layer in found.items() if isinstance(layer, Mapping)}


def _resolve(fleet: Fleet, name: str, server: Server) -> Server:
    """Return the server with what it does not set itself. A setting given again replaces the other as a whole."""
    given: dict[str, Any] = {}
    for layer in (fleet.defaults, fleet.groups.get(server.group or ""), server):
        if layer is not None:
            given |= {field: getattr(layer, field) for field in layer.model_fields_set}
    # Also for a null, which undoes the connection of the group.
    given["postgres_conn_id"] = given.get("postgres_conn_id") or name
    return Server.model_construct(**given)


def _check_groups(content: Any, layers: Mapping[Keys, Mapping[str, Any]]) -> Iterator[Problem]:
    members = content.get("groups") if isinstance(content, Mapping) else None
    groups = list(map(str, members)) if isinstance(members, Mapping) else []
    for path, layer in layers.items():
        if path[0] == "servers" and isinstance(group := layer.get("group"), str) and group not in groups:
            yield Problem((*path, "group"), f"no such group{did_you_mean(group, groups)}")


def _is_secret(text: object) -> bool:
    return isinstance(text, str) and _SECRET_VALUE.search(text) is not None


def _secrets(content: Any) -> Iterator[Problem]:
    """Find values and keys that are secrets, without repeating them."""
    waiting: list[tuple[Keys, Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if _is_secret(value):
            yield Problem(path, _NO_SECRETS)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if _is_secret(key):
                    yield Problem(path, _NO_SECRETS)
                else:
                    waiting.append(((*path, key), item))
        elif isinstance(value, list | tuple):
            waiting += [((*path, index), item) for index, item in enumerate(value)]


def _check_dump(layers: Mapping[Keys, Mapping[str, Any]]) -> Iterator[Problem]:
    """Check the parameters for PgDumpOperator by its own signature and pg_dump's options."""
    for path, layer in layers.items():
        if isinstance(dump := layer.get("dump"), Mapping) and dump:
            yield from _check_parameters((*path, "dump"), dump)


def _check_parameters(path: Keys, dump: Mapping[str, Any]) -> Iterator[Problem]:
    from airflow_pgbackup.operators.dump import PgDumpOperator
    from airflow_pgbackup.postgres.options import DumpOptions

    known = set(inspect.signature(PgDumpOperator.__init__).parameters) - _NOT_IN_DUMP - {"self", "kwargs"}
    options: dict[str, Any] = {}
    is_valid = True
    for name, value in dump.items():
        if name in Settings.model_fields and name not in known:
            yield Problem((*path, name), "belongs beside dump, not in it")
        elif name == "verify":
            yield Problem((*path, name), "unknown key; use verify_while_dumping beside dump")
        elif name not in known:
            yield Problem((*path, name), _unknown_key(str(name), known))
        elif problem := _problem_of(name, value, str(dump.get("format", "custom"))):
            is_valid = False
            yield Problem((*path, name), problem)
        elif name in DumpOptions.table() or name == "extra_args":
            options[name] = value
    try:
        if is_valid:  # together
            DumpOptions(**options).validate()
    except OptionError as error:
        yield Problem(path, in_words(error))


def _problem_of(name: str, value: Any, format: str) -> str | None:
    """Return what is wrong with a parameter. Airflow renders templates later."""
    from airflow_pgbackup.operators._base import is_true
    from airflow_pgbackup.postgres.options import DumpOptions

    if name in _LISTS and not isinstance(value, list | tuple):
        return f"expected a list, found {_type_of(value)}"
    checks: dict[str, Callable[[Any], object]] = {
        "labels": check_labels,
        "artifact_template": _check_artifact_template,
        "recipients": _check_recipients,
        "count_rows": partial(is_true, "count_rows"),
        "max_replay_lag": seconds_of_lag,
        "max_bytes_per_second": partial(_check_rate, format),
    }
    try:
        if (option := DumpOptions.table().get(name)) is not None:
            option.check(name, value)
        elif name == "extra_args":
            DumpOptions(extra_args=value).validate()
        elif name in checks and "{{" not in str(value) and "{%" not in str(value):
            checks[name](value)
    except ConfigurationError as error:
        return in_words(error)
    return None


def _check_artifact_template(template: Any) -> None:
    if not isinstance(template, str):
        raise OptionError(f"expected text, found {_type_of(template)}")
    artifact_name(template, database="app", server="main", started_at=datetime.now(timezone.utc), format="custom")


def _check_recipients(recipients: Any) -> None:
    from airflow_pgbackup.encryption.recipients import Recipients
    from airflow_pgbackup.operators._base import given_recipients

    Recipients.parse(given_recipients(recipients))


def _check_rate(format: str, rate: Any) -> None:
    from airflow_pgbackup.backup.throttle import rate_of
    from airflow_pgbackup.settings import Settings as NoLimit

    rate_of(rate, NoLimit(), format=format)


def _translate(error: ValidationError) -> Iterator[Problem]:
    for found in error.errors(include_url=False):
        path: Keys = tuple(part for part in found["loc"] if part != "[key]")
        yield Problem(path, _text(path, found["type"], found["msg"], found["input"]))


def _text(path: Keys, kind: str, message: str, value: Any) -> str:
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), _fields_at(path[:-1]))
    if kind == "missing":
        return "missing"
    if kind == "string_pattern_mismatch":
        return "the name is part of a DAG's id; use letters, digits, '_', '-' and '.'"
    if kind == "too_short":
        return "empty"
    if kind in _WANTED:
        found = _type_of(value)
        quote = "; quote it" if kind == "string_type" and not isinstance(value, list | dict | os.PathLike) else ""
        return f"expected {_WANTED[kind]}, found {found}{quote}"
    return message.replace("Input should be", "must be").replace("String should have", "must have")


def _type_of(value: Any) -> str:
    return next((text for cls, text in _TYPES.items() if isinstance(value, cls)), type(value).__name__)


def _unknown_key(name: str, known: set[str]) -> str:
    from airflow_pgbackup.postgres.options import DumpAllOptions, DumpOptions

    if name in DumpAllOptions.table().keys() - DumpOptions.table().keys():  # no_role_passwords is no secret
        return "unknown key; it is an option of pg_dumpall, and dump takes those of pg_dump"
    if _SECRET_KEY.search(name):
        return _NO_SECRETS
    if name in _ADDRESS:
        return "unknown key; the server's address and user belong to the Airflow connection named by postgres_conn_id"
    return "unknown key" + did_you_mean(name, sorted(known))


def _fields_at(path: Keys) -> set[str]:
    """Return the keys that the mapping at a path may have."""
    model: type[BaseModel] = Fleet
    if path:
        model = _PARTS.get(str(path[-1]), Server if path[0] == "servers" else Settings)
    return set(model.model_fields)
