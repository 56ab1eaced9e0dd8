"""PostgreSQL's own regression database through every format, level and mode.

    .venv/bin/python -m tests.campaign.regression_database [--major 18] [--bin-dir DIRECTORY] [--source DIRECTORY]
        [--cache DIRECTORY] [--mirror URL] [--only REGEX] [--json FILE]

The tests are fetched as Debian's source package (see :mod:`.regression_source`), which are run against a server of the
same version. The database that remains has an object of nearly every kind. It is dumped, verified, and restored; each
copy is compared with the source by :mod:`.database_facts`, and each difference needs a reason of :data:`REASONS`.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from airflow_pgbackup.backup.context import RunContext
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.repository.open import open_repository
from airflow_pgbackup.settings import Settings
from tests.campaign import regression_source
from tests.campaign.database_facts import observe
from tests.campaign.regression_cases import (
    cluster_and_set,
    new_server,
    other_verbs,
    refresh_masked,
    restore_beside,
    restore_in_every_mode,
)
from tests.campaign.regression_formats import dump_and_verify
from tests.campaign.regression_run import Campaign
from tests.campaign.results import part_result, write_result

PART = "regression_database"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--major", type=int, default=18)
    parser.add_argument("--bin-dir", type=Path, help="the server's programs; default: Debian's, or those of --cache")
    parser.add_argument("--source", type=Path, help="PostgreSQL's source tree, with regress.so built")
    parser.add_argument("--cache", type=Path, default=regression_source.default_cache())
    parser.add_argument("--mirror", help="of Debian; default: that of this machine's apt")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="only cases with such a name")
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        bin_dir = given.bin_dir or _programs(given.major, given.cache)
        source = regression_source.fetch(given.major, given.cache, source=given.source, mirror=given.mirror)
    except RuntimeError as error:
        print(f"not run: {error}")
        unknown = part_result(
            PART,
            seconds=0,
            parameters={"not run": str(error)},
            cases=0,
            outcomes={"not run": 1},
            violations=[],
            tables={},
        )
        write_result(unknown, given.json)
        return 0
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgbackup-regression-")))
        directory.chmod(0o755)
        results = directory / "results"
        results.mkdir()
        results.chmod(0o777)
        own = regression_source.own_installation(bin_dir, source.regress_so, directory / "installation")
        server = stack.enter_context(new_server(own))
        repository = open_repository((directory / "repository").as_uri())
        repository.init()
        context = RunContext(settings=Settings(client_dirs=(str(own),)))
        campaign = Campaign(server, repository, directory, given.only, context=context)
        tests = _run_tests(campaign, source, results)
        campaign.source = observe(campaign.database, own)
        _run(campaign, own)
        document = _document(campaign, tests, given, time.monotonic() - started)
    write_result(document, given.json)
    print(f"{campaign.cases} cases, {len(campaign.violations)} violations, {document['seconds']} s")
    return 1 if campaign.violations else 0


def _programs(major: int, cache: Path) -> Path:
    places = [Path(f"/usr/lib/postgresql/{major}/bin"), cache / f"postgresql-{major}/usr/lib/postgresql/{major}/bin"]
    for place in places:
        if (place / "initdb").exists():
            return place
    raise RuntimeError(f"no PostgreSQL {major} server in {places[0]} or {places[1]}: give --bin-dir")


def _run_tests(
    campaign: Campaign, source: regression_source.RegressionSource, results: Path
) -> regression_source.RegressionRun:
    print(f"running {len(source.schedule())} tests of PostgreSQL {campaign.server.version[0]}", flush=True)
    run = regression_source.run_tests(
        campaign.server, source, results, lambda name: print(f"  {name} has another output than expected", flush=True)
    )
    print(f"{run.passed} tests passed, {len(run.failed)} did not, in {run.seconds:.0f} s", flush=True)
    return run


def _run(campaign: Campaign, bin_dir: Path) -> None:
    references = dump_and_verify(campaign)
    custom = references.get("custom, zstd by us") or campaign.dump()
    custom = verify(reference=custom, repository=campaign.repository, context=campaign.context)
    restore_in_every_mode(campaign, custom)
    restore_beside(campaign, custom)
    refresh_masked(campaign, custom)
    cluster_and_set(campaign, bin_dir)
    other_verbs(campaign, references)


def _document(
    campaign: Campaign,
    tests: regression_source.RegressionRun,
    given: argparse.Namespace,
    seconds: float,
) -> dict[str, object]:
    facts = campaign.source
    kinds = Counter(kind for kind, _ in facts.objects.elements())
    return part_result(
        PART,
        seconds=seconds,
        parameters={"server": ".".join(map(str, campaign.server.version)), "only": given.only.pattern},
        cases=campaign.cases,
        outcomes=campaign.outcomes,
        violations=campaign.violations,
        tables={
            "PostgreSQL's regression database": (
                ["what", "number"],
                [
                    ["regression tests with the expected output", tests.passed],
                    ["regression tests with another output", ", ".join(tests.failed) or 0],
                    ["objects", sum(facts.objects.values())],
                    ["kinds of objects", len(kinds)],
                    ["tables and materialized views with rows", sum(rows.count > 0 for rows in facts.rows.values())],
                    ["rows", sum(rows.count for rows in facts.rows.values())],
                ],
            ),
            "Formats": (
                ["format", "MiB", "dump, s", "integrity, s", "archive, s", "restore, s", "result", "notes"],
                campaign.formats,
            ),
            "Restores": (["how", "s"], campaign.restores),
            "Refused, with a reason": (["case", "message", "reason"], campaign.refused),
            "Objects that differ after a restore": (
                ["what", "reason", "number", "objects"],
                [
                    [what, reason, len(names), ", ".join(sorted(names))]
                    for (what, reason), names in sorted(campaign.differing.items())
                ],
            ),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
