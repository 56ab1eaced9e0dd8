"""Count the S3 requests of a backup's life, on a real S3 server: dump, verify, upload, list, prune.

    python benchmarks/bench_s3_requests.py [--mib 0.1 64]

Each row is a database with rows of that size that hardly compress, in custom format. docs/deployment/sizing.md builds
on the numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.dump import dump_database
from airflow_pgbackup.backup.prune import prune
from airflow_pgbackup.backup.upload import upload
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.embedded import S3Server, postgres_bin_dir
from airflow_pgbackup.postgres.options import DumpOptions
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository
from airflow_pgbackup.repository.catalogue import read_catalogue
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.repository.retention import Policy
from airflow_pgbackup.repository.s3.options import S3Options
from airflow_pgbackup.settings import Settings

MIB = 1024**2
PUT, GET, FREE = "PUT, COPY, POST, LIST", "GET, HEAD", "DELETE, abort"
"""The classes that AWS charges for: https://aws.amazon.com/s3/pricing/"""

CLASSES = {
    "PutObject": PUT,
    "CreateMultipartUpload": PUT,
    "UploadPart": PUT,
    "UploadPartCopy": PUT,
    "CompleteMultipartUpload": PUT,
    "CopyObject": PUT,
    "ListObjectsV2": PUT,
    "ListObjectVersions": PUT,
    "ListMultipartUploads": PUT,
    "ListParts": PUT,
    "GetObject": GET,
    "HeadObject": GET,
    "HeadBucket": GET,
    "DeleteObject": FREE,
    "DeleteObjects": FREE,
    "AbortMultipartUpload": FREE,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, nargs="+", default=[0.1, 64])
    arguments = parser.parse_args()
    bin_dir = postgres_bin_dir(18)
    print(f"| rows | artifact | | {PUT} | {GET} | {FREE} | in detail |\n|---|---|---|---|---|---|---|")
    with PostgresServer(bin_dir) as server, S3Server() as s3:
        for mib in arguments.mib:
            count(server, s3, mib, RunContext(settings=Settings(client_dirs=(str(bin_dir),))))
    return 0


def count(server: PostgresServer, s3: S3Server, mib: float, context: RunContext) -> None:
    with server.params.connect() as session:
        session.execute("DROP TABLE IF EXISTS t")
        session.execute("CREATE TABLE t (id int, data bytea)")
        session.execute(
            "INSERT INTO t SELECT i, decode(string_agg(md5(random()::text), ''), 'hex') "
            "FROM generate_series(1, %s) i, generate_series(1, 64) GROUP BY i",
            [int(mib * 1024)],
        )
    requests: Counter[str] = Counter()
    client = s3.client()
    client.meta.events.register("before-call.s3", lambda model, **_: requests.update([model.name]))
    bucket = s3.bucket()

    def opened(name: str) -> Repository:
        """Open a repository as a new task does: repository.json is read again."""
        return open_repository(f"s3://{bucket}/{name}", s3=S3Options(client_factory=lambda: client))

    def counted(what: str, work: Callable[[], object]) -> None:
        requests.clear()
        work()
        classes: Counter[str] = Counter()
        for name, number in requests.items():
            classes[CLASSES[name]] += number
        detail = ", ".join(f"{number} {name}" for name, number in sorted(requests.items()))
        size = f"{mib:g} MiB | {reference.get('size', 0) / MIB:.1f} MiB"
        print(f"| {size} | {what} | {classes[PUT]} | {classes[GET]} | {classes[FREE]} | {detail} |", flush=True)

    opened("one").init()
    opened("two").init()
    reference: dict[str, object] = {}

    def dump() -> None:
        reference.update(
            dump_database(
                connection=server.params,
                server="bench",
                repository=opened("one"),
                options=DumpOptions(),
                context=context,
            )
        )

    # The series of a nightly dump has a backup.
    dump()
    verify(reference=reference, repository=opened("one"), context=context)
    counted("dump", dump)
    counted("verify, archive", lambda: verify(reference=reference, repository=opened("one"), context=context))
    counted(
        "upload",
        lambda: upload(reference=reference, source=opened("one"), destination=opened("two"), context=context),
    )
    counted("list", lambda: read_catalogue(opened("one")))
    counted(
        "prune of one backup of two",
        lambda: prune(repository=opened("one"), policy=Policy(keep_last=1), dry_run=False, context=context),
    )


if __name__ == "__main__":
    sys.exit(main())
