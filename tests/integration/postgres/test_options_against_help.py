"""The tables of options compared with the tools: the ``--help`` and the argument checks of every client here.

The tools look at their arguments before they connect. The connection string used here is one that libpq refuses by
itself, and the archive is none, so that a complaint about these means: the arguments were accepted.
"""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from random import Random

import pytest

from airflow_pgbackup.errors import OptionError
from airflow_pgbackup.postgres.options import (
    Compression,
    DumpAllOptions,
    DumpOptions,
    RestoreOptions,
    default_compression,
)
from airflow_pgbackup.postgres.options.kinds import Choice, FilePath, Integer, Pair, Switch
from airflow_pgbackup.postgres.options.tool import ToolOptions
from airflow_pgbackup.postgres.tools.clients import Client, find_clients

ALL = [DumpOptions, DumpAllOptions, RestoreOptions]
CLIENTS = find_clients([*filter(None, os.environ.get("PGBACKUP_TEST_CLIENT_DIRS", "").split(os.pathsep))])
Given = dict[str, object]  # fields of an options class

each_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.version_text}-{client.source}")
each_tool = pytest.mark.parametrize("options", ALL, ids=lambda options: options.tool)

# Accepted by the tool, refused by us: the tool would exit with 0 and dump nothing, or the server would refuse it.
OURS_ALONE = [
    {"no_data", "no_schema"},
    *({scope, rest} for scope in ("globals_only", "roles_only", "tablespaces_only")
      for rest in ("data_only", "statistics_only", "no_schema")),
    {"tablespaces_only", "no_tablespaces"},
    {"snapshot", "serializable_deferrable"},
    {"schema_only", "sections"},
    {"no_data", "sections"},
    {"data_only", "sections"},
]  # fmt: skip


def test_clients_of_several_versions_are_here():
    assert {16, 18} <= {client.major for client in CLIENTS}


def run(client: Client, tool: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [client.tool(tool), *argv], env={"LC_ALL": "C", "PATH": os.defpath}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@each_client
@each_tool
def test_help_and_table_name_the_same_flags(options, client):
    shown = set(re.findall(r"--[a-z][a-z-]*", run(client, options.tool, "--help").stdout))
    table = options.table().values()
    spelled = {flag for option in table for flag in option.flags}
    assert shown - spelled - set(options.excluded()) == set(), f"flags of {options.tool} that we do not have"
    ours = {
        option.render(sample(option), client)[0].partition("=")[0] for option in table if option.has(client.version)
    }
    assert ours - shown == set(), f"flags that {options.tool} {client.version_text} does not have and we would give it"
    for option in table:
        if not option.has(client.version):
            assert option.flag not in shown, f"{options.tool} {client.version_text} does have it"


@each_tool
def test_the_table_is_in_the_order_of_help(options):
    newest = run(CLIENTS[0], options.tool, "--help").stdout
    order = re.findall(r"^ +(?:-\w, )?(--[a-z][a-z-]*)", newest, re.MULTILINE)
    flags = [option.flag for option in options.table().values()]
    assert flags == sorted(flags, key=order.index)


def sample(option) -> object:
    """A valid value."""
    if isinstance(option, Switch | Pair):
        return True
    if option.flag == "--compress":
        return "none"
    if isinstance(option, Integer):
        return max(option.low, 2)
    one = option.choices[0] if isinstance(option, Choice) else os.devnull if isinstance(option, FilePath) else "100"
    return [one] if option.repeat else one


def bundles(options: type[ToolOptions], client: Client) -> list[Given]:
    """Every field with each kind of value, and with the fields that it requires."""
    result: list[Given] = []
    for name, option in options.table().items():
        if not option.has(client.version):
            continue
        beside: Given = {}
        if needed := options.requires.get(name):
            beside = {needed[0]: sample(options.table()[needed[0]])}
        if options is DumpOptions:
            beside |= {"jobs": {"format": "directory"}, "restrict_key": {"format": "plain"}}.get(name, {})
        values = [True, False] if isinstance(option, Pair) else [sample(option)]
        if isinstance(option, Choice):
            values = [[choice] if option.repeat else choice for choice in option.choices]
        result += [{**beside, name: value} for value in values]
    return result


def accepted_by_us(options: type[ToolOptions], given: Given) -> bool:
    try:
        options(**given).validate()
    except OptionError:
        return False
    return True


def accepted_by_tool(options: type[ToolOptions], given: Given, client: Client, folder: Path) -> bool:
    """Render the arguments without our checks, and return the tool's verdict."""
    table = options.table()
    values = {"format": "custom"} if options is DumpOptions else {}
    argv = [arg for name, value in (values | given).items() for arg in table[name].render(value, client)]
    if options is RestoreOptions:
        said = run(client, options.tool, *argv, f"--file={os.devnull}", str(folder / "nothing here")).stderr
        assert "unrecognized" not in said
        return "could not open input file" in said
    if given.get("format") == "directory":
        argv.append(f"--file={folder / f'out{Random().getrandbits(64)}'}")
    said = run(client, options.tool, *argv, "--no-password", "--dbname=no_such_keyword=1").stderr
    assert "unrecognized" not in said
    if "no_such_keyword" not in said:
        return False
    # pg_dump refuses the options that pg_dumpall passes to it only after the roles were written.
    handed_on = {name: value for name, value in given.items() if name in DumpOptions.table() and name != "restrict_key"}
    return options is not DumpAllOptions or accepted_by_tool(DumpOptions, handed_on, client, folder)


def merged(one: Given, other: Given) -> Given | None:
    clash = any(one[name] != other[name] for name in one.keys() & other.keys())
    return None if clash else {**one, **other}


@pytest.mark.every_value
@each_client
@each_tool
def test_the_tool_accepts_what_we_accept(options, client, tmp_path):
    # Large sets, so that some set has every pair of fields that we accept.
    parts = bundles(options, client)
    open_pairs = {
        (i, j) for i, j in combinations(range(len(parts)), 2)
        if (both := merged(parts[i], parts[j])) and accepted_by_us(options, both)
    }  # fmt: skip
    assert open_pairs
    random = Random(0)
    while open_pairs:
        chosen = set(min(open_pairs))
        given = merged(*(parts[index] for index in chosen))
        for index in random.sample(range(len(parts)), len(parts)):
            more = merged(given, parts[index])
            if more and accepted_by_us(options, more):
                given, chosen = more, chosen | {index}
        assert accepted_by_tool(options, given, client, tmp_path), given
        open_pairs -= set(combinations(sorted(chosen), 2))


@pytest.mark.every_value
@each_client
@each_tool
def test_the_tool_refuses_what_we_refuse(options, client, tmp_path):
    parts = [part for part in bundles(options, client) if accepted_by_us(options, part)]
    refused = [
        both for one, other in combinations(parts, 2)
        if (both := merged(one, other)) and not accepted_by_us(options, both)
        and not any(alone <= both.keys() for alone in OURS_ALONE)
    ]  # fmt: skip
    assert refused
    for both in refused:
        assert not accepted_by_tool(options, both, client, tmp_path), both


@each_client
@each_tool
def test_the_tool_refuses_an_option_without_the_one_that_it_requires(options, client, tmp_path):
    for name in options.requires:
        assert not accepted_by_tool(options, {name: True}, client, tmp_path)


@each_client
def test_the_rules_of_formats_are_those_of_pg_dump(client, tmp_path):
    for given in [
        {"jobs": 2},
        {"format": "tar", "jobs": 2},
        {"format": "tar", "compress": 5},
        {"format": "tar", "compress": "none"},
        {"format": "directory", "jobs": 2},
        {"format": "directory", "jobs": 2, "include_foreign_data": ["x"]},
        {"format": "directory", "restrict_key": "abc"},
        {"format": "plain", "restrict_key": "abc"},
        {"format": "custom", "jobs": 1},
    ]:
        assert accepted_by_us(DumpOptions, given) == accepted_by_tool(DumpOptions, given, client, tmp_path), given


COMPRESSIONS = [
    "none", "none:0", "none:1", "0", "5", "9", "10", "99", "gzip", "gzip:0", "gzip:1", "gzip:9", "gzip:10",
    "gzip:-1", "GZIP", "gzip:level=3", "gzip:long", "gzip:", "gzip:x", "zstd", "zstd:3", "zstd:0", "zstd:22",
    "zstd:23", "zstd:-5", "zstd:-131073", "zstd:long", "zstd:long=yes", "zstd:long=true", "zstd:long=off",
    "zstd:long=1", "zstd:long=2", "zstd:level=3,long", "zstd:level=3,long=no", "zstd:level", "zstd:level=x",
    "zstd:level=3,", "zstd:3,long", "zstd:+3", "zstd:fast", "lz4", "lz4:0", "lz4:1", "lz4:12", "lz4:13",
    "lz4:-1", "lz4:long", "bzip2", "zlib:3", ":3", "zstd:level=3,level=4", "gzip,3",
]  # fmt: skip


@each_client
def test_compress_is_parsed_as_pg_dump_does(client):
    if client.version < (16, 0):
        for level in range(-1, 11):
            said = run(client, "pg_dump", f"--compress={level}", "--dbname=no_such_keyword=1").stderr
            assert ("no_such_keyword" in said) == accepted_by_us(DumpOptions, {"compress": level}), level
        return
    for value in COMPRESSIONS:
        said = run(client, "pg_dump", f"--compress={value}", "--format=custom", "--dbname=no_such_keyword=1").stderr
        if "does not support compression with" in said:
            with pytest.raises(OptionError):
                DumpOptions(compress=value).argv(client)
            continue
        assert ("no_such_keyword" in said) == accepted_by_us(DumpOptions, {"compress": value}), value
        if "no_such_keyword" in said:
            argument = Compression.parse(value).argument(client)
            assert (
                "no_such_keyword"
                in run(client, "pg_dump", f"--compress={argument}", "--dbname=no_such_keyword=1").stderr
            )


@each_client
def test_what_a_client_can_compress(client):
    methods = set()
    for method in ("gzip", "lz4", "zstd"):
        argument = method if client.version >= (16, 0) else {"gzip": "1"}.get(method, method)
        if "no_such_keyword" in run(client, "pg_dump", f"--compress={argument}", "--dbname=no_such_keyword=1").stderr:
            methods.add(method)
    assert client.compression_methods == methods
    best = default_compression(client)
    assert best == ("zstd:3" if "zstd" in methods else "gzip:1" if client.version >= (16, 0) else "1")
    assert accepted_by_tool(DumpOptions, {"compress": best}, client, Path())


@each_client
def test_getopt_accepts_a_shortened_flag(client):
    # The reason for the rule about extra_args: --dbn= would redirect the dump.
    assert "no_such_keyword" in run(client, "pg_dump", "--dbn=no_such_keyword=1").stderr
    with pytest.raises(OptionError):
        DumpOptions(extra_args=["--dbn=no_such_keyword=1"]).argv(client)


@pytest.fixture
def doors() -> Iterator[dict[str, socket.socket]]:
    """Two directories by name, each with a listening socket like a server's."""
    # Not tmp_path: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as meant, tempfile.TemporaryDirectory() as evil, ExitStack() as stack:
        opened = {}
        for folder in (meant, evil):
            door = opened[folder] = stack.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(f"{folder}/.s.PGSQL.5432")
            door.listen()
        yield opened


@each_client
@pytest.mark.parametrize("form", ["host={} dbname=x", "postgresql://u@{}/x", "postgres://u@{}/x", "a'b\\=c"])
def test_a_database_name_redirects_no_pg_dumpall(client, form, doors):
    meant, evil = doors
    name = form.format(evil.replace("/", "%2F") if "://" in form else evil)
    argv = [client.tool("pg_dumpall"), "--no-password", f"--host={meant}", "--username=u"]
    argv += DumpAllOptions(database=name).argv(client)
    with subprocess.Popen(argv, env={"PATH": os.defpath}, stderr=subprocess.DEVNULL) as process:
        called, _, _ = select.select(list(doors.values()), [], [], 30)
        assert called == [doors[meant]]
        call, _ = doors[meant].accept()
        with call:
            packet = call.recv(1000)
        assert b"\0database\0" + name.encode() + b"\0" in packet
        doors[meant].close()
        process.wait(30)
