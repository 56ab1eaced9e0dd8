"""OpenLineage: what a task read and wrote, for the provider's listener, which asks a task when it ends.

Datasets are named as OpenLineage's specification names them (https://openlineage.io/docs/spec/naming): a database is
``postgres://host:port`` and its name, an artifact ``s3://bucket`` or ``file`` and its key or path. No user and no
password is among them. Nothing is read for it: the facets say what the task has found out anyway.

The provider is optional: without it, nobody calls these functions, and they alone import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_pgbackup.errors import VerificationFailed
from airflow_pgbackup.text import printable

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors.base import OperatorLineage

    from airflow_pgbackup.postgres.connection.conninfo import ConnectionParams
    from airflow_pgbackup.repository.verification import Verification

_RESTORED = ("restored", "earlier")
MOST_TABLES = 1000
"""Tables that the schema of an artifact lists; the event is sent over a network."""


@dataclass
class Work:
    """What a task has done so far, for its lineage.

    :ivar reads_database: whether the database is the source; else it is the target.
    :ivar database: host, port and name; the name is empty for a server.
    :ivar read: the reference of the backup that the task read.
    :ivar wrote: the reference of the backup that it wrote.
    :ivar databases: names of the restored databases; None: a restore has not finished, or has only been planned.
    """

    database: tuple[str, str, str] | None = None
    reads_database: bool = False
    read: Mapping[str, object] | None = None
    wrote: Mapping[str, object] | None = None
    databases: list[str] | None = None
    rows: int | None = None
    verification: Verification | None = None
    failure: BaseException | None = None

    def connects(self, connection: ConnectionParams, *, reads: bool) -> ConnectionParams:
        """Note the database, and return the connection.

        :param reads: whether the task dumps it; else it restores into it.
        """
        host = (connection.host or connection.keywords.get("hostaddr", "")).partition(",")[0]
        if not host or host.startswith(("/", "@")):  # a socket of this machine
            host = "localhost"
        elif ":" in host:
            host = f"[{host}]"
        self.database = host, connection.port.partition(",")[0] or "5432", connection.dbname
        self.reads_database = reads
        return connection

    def finish(self, result: Mapping[str, object]) -> None:
        """Note what a restore returned: that of a database or cluster, or of a backup set."""
        restored = result.get("databases")
        if self.reads_database or result.get("dry_run") or not isinstance(restored, list):
            return
        done = [one["name"] for one in restored if isinstance(one, dict) and one.get("outcome") in _RESTORED]
        self.databases = [*done, *(one for one in restored if isinstance(one, str))]
        self.rows = _as_int(result.get("rows"))


def lineage(work: Work, *, rows: int | None = None, failed: bool = False) -> OperatorLineage[Any, Any]:
    """Return the datasets of a task that has ended.

    :param rows: in the backup that the task wrote; None where nothing counted them.
    :param failed: whether the task failed, for whatever reason: it wrote no backup then.
    """
    from airflow.providers.openlineage.extractors.base import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    inputs: list[Any] = []
    outputs: list[Any] = []
    failed = failed or work.failure is not None
    if work.read is not None:
        namespace, name = artifact(work.read)
        inputs.append(InputDataset(namespace, name, inputFacets=_quality(work), facets=_schema(work)))
    if work.wrote is not None and not failed:
        namespace, name = artifact(work.wrote)
        size = work.wrote.get("size")
        files = None if work.wrote.get("format") == "directory" else 1
        facet = statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=_as_int(size), fileCount=files)
        outputs.append(OutputDataset(namespace, name, outputFacets={"outputStatistics": facet}, facets=_schema(work)))
    if work.database is not None:
        host, port, database = work.database
        server = f"postgres://{host}:{port}"
        if work.reads_database:
            inputs.append(InputDataset(server, printable(database)))
        else:
            names = work.databases or []
            facet = statistics.OutputStatisticsOutputDatasetFacet(rowCount=work.rows)
            facets: dict[str, Any] = {"outputStatistics": facet} if work.rows is not None and len(names) == 1 else {}
            outputs += [OutputDataset(server, printable(name), outputFacets=facets) for name in names]
    return OperatorLineage(inputs=inputs, outputs=outputs)


def artifact(reference: Mapping[str, object]) -> tuple[str, str]:
    """Return namespace and name of the artifact of a backup."""
    scheme, _, place = str(reference["repository"]).partition("://")
    if scheme == "s3":
        bucket, _, key = f"{place.rstrip('/')}/{reference['key']}".partition("/")
        return f"s3://{bucket}", key
    return scheme, f"{unquote(place).rstrip('/')}/{reference['key']}"  # as the repository decodes its URI


def _quality(work: Work) -> dict[str, Any]:
    """Return the verification of a task as facets: one assertion, and the number of rows that it counted."""
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as assertions
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as metrics

    seen = work.verification
    # A result of "not proven" says nothing about the backup.
    if seen is None or not (seen.result == "pass" or isinstance(work.failure, VerificationFailed)):
        return {}
    passed = seen.result == "pass"
    assertion = assertions.Assertion(assertion=f"verified at level {seen.level}", success=passed)
    facets: dict[str, Any] = {
        "dataQualityAssertions": assertions.DataQualityAssertionsDatasetFacet(assertions=[assertion])
    }
    if seen.tables:
        rows, size = sum(table.rows for table in seen.tables), _as_int(work.read and work.read.get("size"))
        facets["dataQualityMetrics"] = metrics.DataQualityMetricsInputDatasetFacet(
            rowCount=rows, bytes=size, columnMetrics={}
        )
    return facets


def _schema(work: Work) -> dict[str, Any]:
    """Return the tables of a verified artifact, each as a field with its rows. Their columns are not known."""
    from openlineage.client.facet_v2 import schema_dataset as schema

    tables = work.verification.tables if work.verification else ()
    if not tables:
        return {}
    fields = [
        schema.SchemaDatasetFacetFields(
            name=printable(".".join(filter(None, (table.database, table.schema, table.name)))),
            type="table",
            description=f"{table.rows} rows",
        )
        for table in tables[:MOST_TABLES]
    ]
    if len(tables) > MOST_TABLES:
        more = f"{len(tables) - MOST_TABLES} more tables are in the verification"
        fields.append(schema.SchemaDatasetFacetFields(name="…", type="note", description=more))
    return {"schema": schema.SchemaDatasetFacet(fields=fields)}


def _as_int(value: object) -> int | None:
    return value if type(value) is int else None
