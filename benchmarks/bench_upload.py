"""Compare a dump directly to S3 with the usual shell commands of a BashOperator.

    python benchmarks/bench_upload.py [--size 1100] [--rounds 5] [--results FILE] [--plot FILE] [--quick]
    python benchmarks/bench_upload.py --draw FILE --plot FILE      table and plot of earlier results

The database is generated text. The clients are PostgreSQL's newest one with zstd (searched in the directories of
PGBACKUP_TEST_CLIENT_DIRS and the standard locations), then the gzip-only one of the wheel. Each run of a candidate is a
new process, measured from its start to its end, imports included; our dump is also measured without the imports, most
of which an Airflow task's process has loaded. Rounds are interleaved; Ctrl-C stops after the completed rounds.

The stores are ``weed mini``, which shares the cores with everything else; a server that discards bodies; and the same
server behind a line of 40 MiB/s, for the directory format, whose upload begins while pg_dump still writes.
Exit status 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from texty_database import TABLES, fill
from upload_candidates import (
    DIRECTORY,
    DISCARD,
    FLOOR,
    LINE,
    NULL,
    OURS,
    OURS_DIRECTORY,
    PIPE,
    PIPE_ZSTD,
    TUTORIAL,
    VERB,
    WEED,
    Candidates,
    choose_clients,
    discarding,
    install_aws,
    weed,
)

from airflow_pgbackup.postgres.server.throwaway import PostgresServer

MIB = 1024**2
# The candidates and their stores, for the client with zstd and for the one with gzip only.
PLAN = {
    "zstd": [(FLOOR, NULL)]
    + [(name, WEED) for name in (OURS, OURS_DIRECTORY, PIPE_ZSTD, DIRECTORY, TUTORIAL, PIPE)]
    + [(name, DISCARD) for name in (OURS, OURS_DIRECTORY, PIPE_ZSTD, DIRECTORY)]
    + [(name, LINE) for name in (OURS_DIRECTORY, DIRECTORY)],
    "gzip": [(FLOOR, NULL), (OURS, WEED), (PIPE, WEED), (OURS, DISCARD)],
}
# client; candidate and store; the candidate and store to compare with; the largest ratio of their medians
GOALS = [
    ("zstd", OURS, WEED, PIPE, WEED, 0.24),
    ("gzip", OURS, WEED, PIPE, WEED, 0.35),
    ("zstd", OURS, WEED, PIPE_ZSTD, WEED, 0.85),
    ("zstd", VERB, WEED, FLOOR, NULL, 1.25),
    ("zstd", VERB, DISCARD, FLOOR, NULL, 1.10),
    ("gzip", VERB, WEED, FLOOR, NULL, 1.25),
    ("gzip", VERB, DISCARD, FLOOR, NULL, 1.10),
    ("zstd", OURS_DIRECTORY, WEED, DIRECTORY, WEED, 0.90),
]


@dataclass
class Race:
    """The results of one client. ``seconds`` and ``cpu``: by candidate, then by store; of each complete round."""

    client: str
    database: int = 0
    dump: int = 0
    seconds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    cpu: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def round(self, kind: str, number: int, candidates: Candidates) -> None:
        """Run every candidate once, each round beginning with another one, on new stores, so that no disk fills up."""
        plan = PLAN[kind]
        start = number % len(plan)
        taken = []
        with ExitStack() as stack:
            stores = {WEED: stack.enter_context(weed()), DISCARD: stack.enter_context(discarding())}
            stores[LINE] = stack.enter_context(discarding("40"))
            for name, where in plan[start:] + plan[:start]:
                os.sync()  # write the earlier candidate's dirty pages before the measurement
                result = candidates.run(name, stores.get(where), series=f"{kind}-{number}")
                taken.append((name, where, result))
                print(f"  {kind} {number + 1}: {result['wall']:6.2f} s  {name}  [{where}]", flush=True)
        for name, where, result in taken:
            self.add(name, where, result)

    def add(self, name: str, where: str, result: dict[str, Any]) -> None:
        self.seconds.setdefault(name, {}).setdefault(where, []).append(result["wall"])
        self.cpu.setdefault(name, {}).setdefault(where, []).append(result["cpu"])
        if name == OURS:
            self.seconds.setdefault(VERB, {}).setdefault(where, []).append(result["seconds"])
            self.dump = result["size"]

    @property
    def rounds(self) -> int:
        return len(self.seconds[OURS][WEED]) if self.seconds else 0

    def median(self, name: str, where: str) -> float:
        return statistics.median(self.seconds[name][where])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1100, help="MiB of rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PLAN), help="one kind of client")
    parser.add_argument("--results", type=Path, help="JSON, written after each round")
    parser.add_argument("--draw", type=Path, help="do not measure: use the results of an earlier run")
    parser.add_argument("--plot", type=Path, help="PNG")
    parser.add_argument("--quick", action="store_true", help="8 MiB, one round: only to test that it works")
    arguments = parser.parse_args()
    if arguments.draw:
        races = {kind: Race(**race) for kind, race in json.loads(arguments.draw.read_text()).items()}
    else:
        if arguments.quick:
            arguments.size, arguments.rounds = 8, 1
        races = measure(arguments)
    for race in races.values():
        print(f"\n{table(race)}")
    if arguments.plot:
        plot(races, arguments.plot)
    return 0 if goals(races) or arguments.quick else 1


def measure(arguments: argparse.Namespace) -> dict[str, Race]:
    clients = {kind: client for kind, client in choose_clients().items() if arguments.only in (None, kind)}
    aws = install_aws()
    races = {kind: Race(str(client.version_text)) for kind, client in clients.items()}
    newest = next(iter(clients.values()))
    with tempfile.TemporaryDirectory(prefix="pgbackup-bench-") as work, PostgresServer(newest.bin_dir) as server:
        with server.params.connect() as connection:
            fill(connection, arguments.size * MIB)
            row = connection.execute("select pg_database_size(current_database())").fetchone()
        assert row is not None
        print(f"PostgreSQL {newest.version_text}, {len(TABLES)} tables, {row[0] / MIB:.0f} MiB on disk", flush=True)
        try:
            for kind, client in clients.items():
                races[kind].database = row[0]
                candidates = Candidates(server.params, client, aws, Path(work))
                for number in range(arguments.rounds):
                    races[kind].round(kind, number, candidates)
                    if arguments.results:
                        arguments.results.write_text(json.dumps({k: asdict(r) for k, r in races.items() if r.rounds}))
        except KeyboardInterrupt:
            print("stopped")
    return {kind: race for kind, race in races.items() if race.rounds}


def table(race: Race) -> str:
    """Return the results as a Markdown table."""
    lines = [
        f"pg_dump {race.client}; {race.database / MIB:.0f} MiB on disk, dumped as {race.dump / MIB:.0f} MiB; "
        f"at most {race.rounds} rounds",
        "",
        "| | store | seconds: median (range) | runs | CPU seconds | ours, of the seconds |",
        "|---|---|---|---|---|---|",
    ]
    runs = [(name, where, values) for name, by_store in race.seconds.items() for where, values in by_store.items()]
    for name, where, values in sorted(runs, key=lambda run: statistics.median(run[2])):
        described = f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
        used = race.cpu.get(name, {}).get(where)
        described += f" | {len(values)} | {statistics.median(used):.1f}" if used else f" | {len(values)} | "
        if name.startswith(OURS):
            lines.append(f"| **{name}** | {where} | {described} | |")
            continue
        mine = {DIRECTORY: OURS_DIRECTORY, FLOOR: VERB}.get(name, OURS)
        stores = [
            store for store in ([WEED, DISCARD] if where == NULL else [where]) if store in race.seconds.get(mine, {})
        ]
        shares = [f"{race.median(mine, store) / race.median(name, where):.2f}" for store in stores]
        lines.append(f"| `{name.replace('|', chr(92) + '|')}` | {where} | {described} | {' / '.join(shares)} |")
    return "\n".join(lines)


def goals(races: dict[str, Race]) -> bool:
    good = True
    print()
    for kind, mine, my_store, other, store, most in GOALS:
        if kind in races and all(
            where in races[kind].seconds.get(n, {}) for n, where in ((mine, my_store), (other, store))
        ):
            share = races[kind].median(mine, my_store) / races[kind].median(other, store)
            good &= share <= most
            verdict = "reached" if share <= most else "MISSED "
            print(f"{verdict} {share:.2f}, goal {most:.2f}: {kind}: {mine} [{my_store}], {other} [{store}]")
    return good


def plot(races: dict[str, Race], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    bars = [
        (f"{name}\n{kind}, {where}", values, name.startswith(OURS), where)
        for kind, race in races.items()
        for name, by_store in race.seconds.items()
        for where, values in by_store.items()
    ]
    bars.sort(key=lambda bar: -statistics.median(bar[1]))
    figure, axes = plt.subplots(figsize=(10, 0.52 * len(bars) + 1.2), layout="constrained")
    middles = [statistics.median(values) for _, values, _, _ in bars]
    spread = [
        [middle - min(bar[1]) for middle, bar in zip(middles, bars, strict=True)],
        [max(bar[1]) - middle for middle, bar in zip(middles, bars, strict=True)],
    ]
    colors = ["#1b7f5c" if ours else "#888888" if where == NULL else "#c9c9c9" for _, _, ours, where in bars]
    axes.barh([label for label, *_ in bars], middles, xerr=spread, color=colors, ecolor="#333333", capsize=2)
    for number, middle in enumerate(middles):
        axes.annotate(f"{middle:.1f} s", (max(bars[number][1]), number), (5, -4), textcoords="offset points")
    race = next(iter(races.values()))
    date = datetime.now(timezone.utc).date()
    axes.set_title(f"{race.database / 1024**3:.1f} GiB of text to S3, {os.cpu_count()} cores, {date}", loc="left")
    axes.set_xlabel("seconds, median and range; less is better")
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=110)
    print(f"\nplot: {path}")


if __name__ == "__main__":
    sys.exit(main())
