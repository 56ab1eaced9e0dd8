"""The schema of a mapping of servers. Names are those of the operators' parameters wherever they mean the same."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Literal

from airflow.sdk import CronTriggerTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid
from croniter import CroniterBadDateError, croniter  # Airflow's own
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.calendar_time import find_zone
from airflow_pgbackup.repository.open import parse_uri
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.time_spans import parse_span

SERVER_NAME = r"^[A-Za-z0-9_.-]+$"
WITHOUT_IMPORTS = {"imports": False}
"""The context of a validation that imports nothing that the mapping names."""
LONGEST_NAME = 200  # Airflow's limit for the id of a DAG is 250 characters


def _invalid(text: str) -> PydanticCustomError:
    # The text is an argument of the template, as it may contain braces.
    return PydanticCustomError("invalid", "{text}", {"text": text})


def in_words(error: ConfigurationError) -> str:
    """Return message and hint as one clause after another."""
    hint = error.hint
    return f"{error.message}; {hint[0].lower()}{hint[1:].removesuffix('.')}" if hint else error.message


def _span(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = parse_span(value)
        except ConfigurationError as error:
            raise _invalid(in_words(error)) from None
    if not isinstance(value, timedelta):
        raise _invalid("not a time span; write 36h, 30d or 8w")
    if value <= timedelta(0):
        raise _invalid("not longer than zero; write 36h, 30d or 8w")
    return value


def _zone(name: str) -> str:
    try:
        find_zone(name)
    except ConfigurationError as error:
        raise _invalid(in_words(error)) from None
    return name


def place_of(uri: str) -> object:
    """Return what all URIs of a repository have in common; a template, which Airflow renders later, as it is.

    :raises ConfigurationError: not a URI of a repository.
    """
    return uri if "{{" in uri or "{%" in uri else parse_uri(uri)


def _uri(text: str) -> str:
    try:
        place_of(text)
    except ConfigurationError as error:
        raise _invalid(in_words(error)) from None
    return text


def _pool(text: str) -> str:
    if set(text.replace("{server}", "")) & set("{}"):
        raise _invalid("{server} is the only placeholder")
    return text


def _cron(text: str) -> str:
    usage = "write \"0 2 * * *\" or '@daily', in quotes"
    if text == "@quarterly":  # a preset of Airflow: in 3.2 not of every timetable, and never of croniter
        text = "0 0 1 */3 *"
    # croniter reads the sixth field as seconds, Quartz and Spring the first. R and H are random and hashed times.
    if not text.startswith("@") and (len(text.split()) != 5 or re.search(r"(?i)\b[RH]\b", text)):
        raise _invalid(f"expected minute, hour, day, month and weekday, without R and H; {usage}")
    try:
        CronTriggerTimetable(text, timezone="UTC").validate()
        croniter(text).get_next()
    except AirflowTimetableInvalid:
        raise _invalid(f"not a cron expression; {usage}") from None
    except CroniterBadDateError:
        raise _invalid(f"a date that does not exist; {usage}") from None
    return text


def _bytes(value: Any) -> int:
    units = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    text = str(value).replace(" ", "")
    number, unit = text[:-3], text[-3:]
    if unit in units and number.isdecimal() and 0 < len(number) < 10:
        return int(number) * units[unit]
    raise _invalid("not a size; write 500MiB, 50GiB or 2TiB")


def _callbacks(value: Any, info: ValidationInfo) -> Any:
    """Return the functions of an alert; a dotted path is imported now, so that a wrong one is noticed now.

    With the context :data:`WITHOUT_IMPORTS`, dotted paths stay as they are.
    """
    given = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if info.context == WITHOUT_IMPORTS:
        return list(given)
    return [_callback(each) for each in given]


def _callback(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = pkgutil.resolve_name(value)
        except Exception as error:  # noqa: BLE001  whatever the author's module raises
            raise _invalid(f"cannot import {value!r}: {type(error).__name__}: {error}") from None
    if isinstance(value, type) or not callable(value):
        raise _invalid("not a function or a notifier; name one that is made in a module, like alerts.on_call")
    return value


Span = Annotated[
    timedelta,
    BeforeValidator(_span),
    WithJsonSchema({"type": "string", "pattern": "^([0-9]+[hdw])+$", "examples": ["36h", "30d"]}),
]
Size = Annotated[
    int,
    PlainValidator(_bytes),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]+ ?(MiB|GiB|TiB)$", "examples": ["50GiB"]}),
]
Zone = Annotated[str, AfterValidator(_zone)]
Cron = Annotated[str, AfterValidator(_cron)]
Name = Annotated[str, StringConstraints(min_length=1)]
Pool = Annotated[Name, AfterValidator(_pool)]
Uri = Annotated[str, StringConstraints(min_length=1), AfterValidator(_uri)]
ServerName = Annotated[str, StringConstraints(pattern=SERVER_NAME, max_length=LONGEST_NAME)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Retries = Annotated[int, Field(ge=0, le=1000)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]  # Airflow's limit
Parallel = Annotated[int, Field(ge=1, le=1000)]
Callbacks = Annotated[
    list[Callable[..., Any]],
    PlainValidator(_callbacks),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]}),
]


class Part(BaseModel):
    """A mapping in the file: no other keys than its fields, and no value of another type than theirs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Retention(Part):
    """Which backups prune keeps; see docs/reference/retention.md."""

    keep_last: Count = 0
    keep_hourly: Count = 0
    keep_daily: Count = 0
    keep_weekly: Count = 0
    keep_monthly: Count = 0
    keep_yearly: Count = 0
    keep_within: Span | None = None
    replace_after: Span | None = None
    keep_at_least: Positive = 1
    keep_labels: list[Name] = []
    minimum_level: Literal["integrity", "archive", "restore"] | None = "archive"

    @model_validator(mode="after")
    def _is_a_policy(self) -> Retention:
        try:
            Policy(**self.model_dump())
        except ConfigurationError as error:
            raise _invalid(in_words(error)) from None
        return self


class Drill(Part):
    """A DAG of its own that rehearses the server's backups in turn; see docs/guides/drill.md."""

    schedule: Cron = Field(description="cron expression, in the server's time zone")
    max_size: Size = Field(
        default=50 << 30,
        description="rehearse as many backups as fit into this, and in addition a larger one when its series comes "
        "first",
        json_schema_extra={"default": "50GiB"},
    )
    scratch_conn_id: Name | None = Field(default=None, description="rehearse on this server instead of on the worker")
    queue: Name | None = Field(default=None, description="queue of the workers that have PostgreSQL's server programs")
    pool: Pool | None = Field(default=None, description="an existing Airflow pool; {server} is the server's name")


class Freshness(Part):
    """A DAG of its own that fails when the server has no recent verified backups; see docs/reference/freshness.md."""

    schedule: Cron = Field(description="cron expression, in the server's time zone")
    max_age: Span = Field(description="the greatest age of the newest verified backups, like 26h")
    exclude: list[Name] = Field(
        default=[], description="series to ignore, like crm/old_app of a database that was dropped, with * and ?"
    )
    allow_drop: list[Name] = Field(
        default=[], description="tables that may become empty, like public.job_queue, with * and ?"
    )
    max_drop: float | None = Field(
        default=0.9,
        gt=0,
        le=1,
        description="the share by which size and rows may not fall below those before; null: compare nothing",
    )


class Alerts(Part):
    """Whom to notify when a run ends, once for each run."""

    on_failure: Callbacks = Field(default=[], description="dotted paths of functions or notifiers")
    on_success: Callbacks = Field(default=[], description="the same, for runs that succeed")


class Settings(Part):
    """What defaults, a group or a server may set. A group overrides the defaults, a server its group."""

    postgres_conn_id: Name | None = Field(default=None, description="Airflow connection; by default the server's name")
    databases: list[Name] = Field(
        default=["*"], min_length=1, description="names and patterns of databases, with * and ?"
    )
    exclude: list[Name] = Field(default=[], description="names and patterns of databases to leave out")
    repository: Uri | None = Field(default=None, description="s3://bucket/prefix or file:///directory")
    aws_conn_id: Name | None = Field(default="aws_default", description="for the repository; null: boto3's own chain")
    upload_to: Uri | None = Field(default=None, description="a second repository, for copies")
    upload_aws_conn_id: Name | None = Field(default="aws_default", description="for upload_to")
    schedule: Cron | None = Field(default=None, description="cron expression; null: only by hand")
    time_zone: Zone = Field(default="UTC", description="of the schedules, and of the days of retention")
    level: Literal["integrity", "archive", "restore"] = Field(default="archive", description="of the verification")
    verify_while_dumping: bool = Field(default=False, description="decode each dump while it is written")
    retention: Retention | None = Field(default=None, description="null: nothing is deleted")
    upload_retention: Retention | None = Field(
        default=None, description="of the copies in upload_to; null: the same as retention"
    )
    drill: Drill | None = Field(default=None, description="null: no rehearsals")
    freshness: Freshness | None = Field(default=None, description="null: no check that recent backups exist")
    alerts: Alerts = Field(default=Alerts(), description="whom to notify, once for each run")
    parallel: Parallel = Field(default=2, description="how many databases of the server are dumped at once")
    pool: Pool | None = Field(default=None, description="an existing Airflow pool; {server} is the server's name")
    queue: Name | None = Field(default=None, description="queue of the workers for dumps, verifications and copies")
    retries: Retries = Field(default=2, description="of each task, ten minutes apart")
    deadline: Span | None = Field(default=None, description="the longest that one dump may run")
    dump: dict[str, Any] = Field(default={}, description="other parameters of PgDumpOperator; each database gets them")
    tags: list[Tag] = Field(default=["backup"], description="tags of the DAGs")


class Server(Settings):
    """A server, and what differs from its group."""

    group: Name | None = Field(default=None, description="one of the groups")


class Fleet(Part):
    """The mapping: servers, groups of servers, and defaults for all."""

    defaults: Settings | None = Field(default=None, description="settings of every server")
    groups: dict[Name, Settings | None] = Field(default={}, description="settings of the servers that name the group")
    servers: dict[ServerName, Server | None] = Field(min_length=1, description="by the names of their series and DAGs")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the mapping, for editors: ``docs/reference/fleet.schema.json``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Fleet.model_json_schema()}


def pool_of(pool: str, server: str) -> str:
    """Return the name of a server's pool."""
    return pool.replace("{server}", server)
