"""The options of pg_dump, pg_dumpall and pg_restore: which values are refused, and which arguments they become."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_pgbackup.errors import ConfigurationError, OptionError
from airflow_pgbackup.postgres.options import Compression, DumpAllOptions, DumpOptions, RestoreOptions
from airflow_pgbackup.postgres.options.kinds import Integer, Pair, Switch

ALL = [DumpOptions, DumpAllOptions, RestoreOptions]
VERSIONS = [(15, 18), (16, 14), (17, 11), (18, 4)]


@pytest.mark.parametrize("version", VERSIONS)
def test_defaults_give_only_the_format(version):
    assert DumpOptions().argv(version) == ["--format=custom"]
    assert DumpAllOptions().argv(version) == []
    assert RestoreOptions().argv(version) == []


def test_every_option_of_the_tutorial():
    given = {"schemas": ["public", "sales"], "tables": ["film"], "clean": True, "create": True, "no_owner": True}
    assert DumpOptions(format="tar", no_privileges=True, **given).argv((15, 18)) == [
        "--format=tar", "--clean", "--create", "--schema=public", "--schema=sales", "--no-owner", "--table=film",
        "--no-privileges",
    ]  # fmt: skip
    assert DumpOptions(data_only=True).argv((15, 18)) == ["--format=custom", "--data-only"]
    assert DumpOptions(schema_only=True).argv((15, 18)) == ["--format=custom", "--schema-only"]
    assert DumpAllOptions(globals_only=True).argv((15, 18)) == ["--globals-only"]
    assert DumpAllOptions(roles_only=True).argv((15, 18)) == ["--roles-only"]
    assert DumpAllOptions(tablespaces_only=True).argv((15, 18)) == ["--tablespaces-only"]
    whole = DumpAllOptions(clean=True, no_privileges=True, no_owner=True, schema_only=True, verbose=True)
    assert whole.argv((15, 18)) == ["--verbose", "--clean", "--no-owner", "--schema-only", "--no-privileges"]


@pytest.mark.parametrize("options", ALL)
def test_fields_are_keyword_only_and_typed_as_their_flag(options):
    hints = get_type_hints(options)
    for field in fields(options):
        assert field.kw_only
        option = field.metadata.get("option")
        if isinstance(option, Switch):
            assert hints[field.name] is bool and field.default is False
        elif isinstance(option, Pair):
            assert hints[field.name] == bool | None and field.default is None
        elif isinstance(option, Integer):
            assert hints[field.name] == int | None and field.default is None
        elif option is not None and option.repeat:
            assert "Sequence" in str(hints[field.name]) and field.default == ()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_pattern_is_always_joined_to_its_flag(pattern):
    assert DumpOptions(tables=[pattern]).argv((18, 4)) == ["--format=custom", f"--table={pattern}"]


def test_odd_patterns_are_unchanged():
    odd = ["-f", "--file=x", "a,b", '"Quoted Name".*', "tab\tle", "ü", "x;rm -rf ~", "$(id)"]
    assert DumpOptions(exclude_table_data=odd).argv((18, 4))[1:] == [f"--exclude-table-data={name}" for name in odd]


def refused(make, *said: str) -> None:
    """Assert that it is refused before anything runs, and that the error has all of these words."""
    with pytest.raises(OptionError) as caught:
        make()
    assert isinstance(caught.value, ConfigurationError) and caught.value.permanent
    assert caught.value.hint
    for part in said:
        assert part in str(caught.value)


def test_a_string_instead_of_a_list_is_refused():
    refused(DumpOptions(schemas="a,b").validate, "schemas is the string 'a,b'", "Pass a list: ['a', 'b']", "comma")
    refused(DumpOptions(tables="film").validate, "Pass a list: ['film']")
    refused(DumpOptions(sections="data").validate, "Pass a list: ['data']")
    refused(DumpOptions(extra_args="--new").validate, "extra_args is the string", "Pass a list")
    refused(DumpOptions(schemas={"a", "b"}).validate, "of type set", "Pass a list")
    refused(DumpOptions(filters="/etc/filter").validate, "Pass a list")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data_only", "true", "render_template_as_native_obj"),
        ("data_only", 1, "Pass True or False"),
        ("data_only", None, "Pass True or False"),
        ("large_objects", "no", "or None"),
        ("jobs", "4", "Pass an int"),
        ("jobs", True, "Pass an int"),
        ("jobs", 0, "--jobs takes 1 to"),
        ("rows_per_insert", 0, "--rows-per-insert takes 1 to"),
        ("extra_float_digits", 4, "takes -15 to 3"),
        ("lock_wait_timeout", 1.5, "milliseconds"),
        ("lock_wait_timeout", -1, "milliseconds"),
        ("lock_wait_timeout", "two minutes", "milliseconds"),
        ("lock_wait_timeout", True, "milliseconds"),
        ("format", "t", "'tar'"),
        ("format", None, "format"),
        ("sync_method", "fdatasync", "'syncfs'"),
        ("sections", ["pre_data"], "'pre-data'"),
        ("encoding", "", "encoding is empty"),
        ("role", 7, "Pass a string"),
        ("schemas", [""], "schemas is empty"),
        ("schemas", [None], "Pass a string"),
        ("schemas", ["a\0b"], "NUL byte"),
        ("schemas", ["\ud800"], "cannot be passed"),
        ("filters", ["-"], "standard input"),
        ("restrict_key", "a b", "letters and digits"),
        ("compress", True, "bool"),
        ("compress", 10, "1 to 9"),
        ("compress", -1, "method"),
        ("compress", "bzip2", "method"),
        ("compress", "zstd:23", "-131072 to 22"),
        ("compress", "lz4:long", "has no long-distance mode"),
        ("compress", "none:1", "has no levels"),
        ("compress", "zstd:workers=2", "with jobs"),
        ("compress", "zstd:level=3,", "''"),
    ],
)
def test_a_value_of_the_wrong_type_or_range(field, value, said):
    refused(DumpOptions(**{field: value}).validate, field, said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (DumpOptions(data_only=True, schema_only=True), "data_only and schema_only cannot be combined"),
        (DumpOptions(data_only=True, clean=True), "data_only and clean cannot be combined"),
        (DumpOptions(schema_only=True, statistics=True), "schema_only and statistics"),
        (DumpOptions(statistics_only=True, statistics=False), "statistics_only and no_statistics"),
        (DumpOptions(schema_only=True, include_foreign_data=["s"]), "schema_only and include_foreign_data"),
        (DumpOptions(format="directory", jobs=2, include_foreign_data=["s"]), "jobs and include_foreign_data"),
        (DumpOptions(if_exists=True), "if_exists needs clean"),
        (DumpOptions(on_conflict_do_nothing=True), "needs inserts or column_inserts or rows_per_insert"),
        (DumpOptions(jobs=2), "Use format='directory' with jobs"),
        (DumpOptions(format="tar", compress=5), "Use format='custom' to compress"),
        (DumpOptions(restrict_key="abc"), "only plain format has it"),
        (DumpOptions(no_data=True, no_schema=True), "leave nothing"),
        (DumpOptions(data_only=True, sections=["pre-data", "post-data"]), "leave nothing"),
        (DumpOptions(schema_only=True, sections=["data"]), "leave nothing"),
        (DumpOptions(snapshot="x", serializable_deferrable=True), "snapshot"),
        (DumpAllOptions(globals_only=True, roles_only=True), "globals_only and roles_only"),
        (DumpAllOptions(globals_only=True, tablespaces_only=True), "globals_only and tablespaces_only"),
        (DumpAllOptions(roles_only=True, tablespaces_only=True), "roles_only and tablespaces_only"),
        (DumpAllOptions(roles_only=True, exclude_databases=["x"]), "roles_only and exclude_databases"),
        (DumpAllOptions(globals_only=True, data_only=True), "leave nothing to dump"),
        (DumpAllOptions(tablespaces_only=True, no_tablespaces=True), "leave nothing to dump"),
        (RestoreOptions(create=True, single_transaction=True), "create and single_transaction"),
        (RestoreOptions(single_transaction=True, jobs=2), "single_transaction and jobs"),
        (RestoreOptions(single_transaction=True, transaction_size=9), "single_transaction and transaction_size"),
        (RestoreOptions(if_exists=True), "if_exists needs clean"),
        (RestoreOptions(no_data=True, no_schema=True, statistics=False), "leave nothing"),
    ],
)
def test_contradictions(options, said):
    refused(options.validate, said)
    refused(lambda: options.argv((18, 4)), said)


def test_options_that_only_seem_to_contradict_each_other():
    DumpOptions(jobs=1).validate()
    DumpOptions(format="tar", compress="none").validate()
    DumpOptions(rows_per_insert=5, on_conflict_do_nothing=True).validate()
    DumpOptions(no_data=True, no_schema=True, statistics=True).validate()
    DumpOptions(data_only=True, statistics=False).validate()
    DumpAllOptions(globals_only=True, clean=True, if_exists=True).validate()
    RestoreOptions(no_data=True, no_schema=True).validate()  # restores the statistics
    RestoreOptions(single_transaction=True, jobs=1).validate()


def test_an_option_of_a_newer_client_is_refused_with_both_versions():
    refused(
        lambda: DumpOptions(filters=["/f"]).argv((16, 14)),
        "--filter needs pg_dump 17 or newer; this is 16.14", "Leave filters out", "postgresql-client-17",
        "PGBACKUP_CLIENT_DIRS",
    )  # fmt: skip
    refused(lambda: DumpOptions(statistics=False).argv((17, 11)), "--no-statistics needs pg_dump 18 or newer")
    refused(lambda: RestoreOptions(transaction_size=5).argv((16, 14)), "--transaction-size needs pg_restore 17")
    refused(lambda: DumpOptions().argv((14, 19)), "pg_dump 14", "postgresql-client-15")


def test_an_option_that_a_fix_brought_to_every_branch():
    options = DumpAllOptions(restrict_key="abc")
    for version in [(15, 14), (16, 10), (17, 6), (18, 0), (19, 0)]:
        assert options.argv(version) == ["--restrict-key=abc"]
    for version in [(15, 13), (16, 9), (17, 5)]:
        refused(lambda version=version: options.argv(version), "needs pg_dumpall 15.14, 16.10, 17.6, 18 or newer")


def test_one_field_for_a_flag_that_was_renamed():
    assert DumpOptions(large_objects=True).argv((15, 18))[1:] == ["--blobs"]
    assert DumpOptions(large_objects=False).argv((15, 18))[1:] == ["--no-blobs"]
    assert DumpOptions(large_objects=True).argv((16, 0))[1:] == ["--large-objects"]
    assert DumpOptions(large_objects=False).argv((18, 4))[1:] == ["--no-large-objects"]


@pytest.mark.parametrize(
    ("value", "old", "new"),
    [
        (0, "0", "none"),
        (5, "5", "gzip:5"),
        ("5", "5", "gzip:5"),
        ("none", "0", "none"),
        ("gzip", "6", "gzip"),
        ("gzip:1", "1", "gzip:1"),
        ("gzip:level=2", "2", "gzip:2"),
        ("zstd", None, "zstd"),
        ("zstd:3", None, "zstd:3"),
        ("zstd:-5", None, "zstd:-5"),
        ("zstd:level=3,long", None, "zstd:level=3,long"),
        ("zstd:long", None, "zstd:long"),
        ("zstd:long=off", None, "zstd"),
        ("lz4:9", None, "lz4:9"),
    ],
)
def test_compress_is_rendered_for_the_clients_version(value, old, new):
    assert DumpOptions(compress=value).argv((16, 14)) == ["--format=custom", f"--compress={new}"]
    if old:
        assert DumpOptions(compress=value).argv((15, 18)) == ["--format=custom", f"--compress={old}"]
    else:
        refused(lambda: DumpOptions(compress=value).argv((15, 18)), "needs pg_dump 16 or newer; this is 15.18", "gzip")


def test_parsing_compression():
    assert Compression.parse("zstd:level=3,long") == Compression("zstd", 3, long=True)
    assert Compression.parse(0) == Compression("none")
    assert Compression.parse("gzip") == Compression("gzip")


@pytest.mark.parametrize("options", ALL)
@pytest.mark.parametrize(
    "argument",
    [
        "--host=h", "--port=1", "--username=u", "--file=x", "--file", "--dbname=x", "--database=x", "--format=p",
        "--password", "--no-password", "--jobs=2", "--version", "--help", "--binary-upgrade", "--no-reconnect",
        "--dbn=x", "--f=x", "--hos=h", "--no-pass", "--vers", "--data-onl", "--no-ac", "-f", "x", "-fx", "--", "---",
        "", "--file x", "-f x", "--Host=h", "=x", "--=x", "--data_only",
    ],
)  # fmt: skip
def test_extra_args_cannot_change_the_connection_or_the_output(options, argument):
    refused(options(extra_args=[argument]).validate, "extra_args")


def test_extra_args_in_two_elements():
    refused(DumpOptions(extra_args=["-f", "x"]).validate, "'-f'", "'--name=value'", "as one element with its full name")
    refused(DumpOptions(extra_args=["--new-flag", "x"]).validate, "'x'", "'--name=value'")
    refused(DumpOptions(extra_args=["--dbn=x"]).validate, "--dbn", "--dbname")
    refused(DumpOptions(extra_args=[7]).validate, "Pass a string")


@pytest.mark.parametrize("options", ALL)
def test_extra_args_refuse_the_flag_of_a_field(options):
    for name, option in options.table().items():
        for flag in option.flags:
            refused(options(extra_args=[f"{flag}=x"]).validate, f"Use {name}= instead")
            # every prefix of it is refused too: getopt would accept it
            for length in range(3, len(flag)):
                refused(options(extra_args=[flag[:length]]).validate, "extra_args")
    refused(options(extra_args=["--no-acl"]).validate, "Use no_privileges= instead")


def test_extra_args_of_a_future_version_are_allowed_and_come_last():
    options = DumpOptions(verbose=True, extra_args=["--new-flag", "--other=a b\nc"])
    assert options.argv((19, 0)) == ["--format=custom", "--verbose", "--new-flag", "--other=a b\nc"]


def test_a_database_name_is_never_a_connection_string():
    def rendered(name):
        return DumpAllOptions(database=name).argv((18, 4))

    assert rendered("plain name") == ["--database=plain name"]
    assert rendered("host=evil dbname=x") == ["--database=dbname='host=evil dbname=x'"]
    assert rendered("postgresql://evil/x") == ["--database=dbname='postgresql://evil/x'"]
    assert rendered("a='b\\") == ["--database=dbname='a=\\'b\\\\'"]


def test_describe_returns_plain_json_of_the_fields_that_are_set():
    options = DumpOptions(
        format="plain", schemas=("a", "b"), tables=[], filters=[Path("/etc/f")], large_objects=False, compress="zstd:3",
        restrict_key="hush", extra_args=("--new",),
    )  # fmt: skip
    assert json.loads(json.dumps(options.describe())) == {
        "format": "plain", "schemas": ["a", "b"], "filters": ["/etc/f"], "large_objects": False, "compress": "zstd:3",
        "restrict_key": "(set)", "extra_args": ["--new"],
    }  # fmt: skip
    assert DumpOptions().describe() == {}
    assert RestoreOptions(use_list=Path("/l")).describe() == {"use_list": "/l"}


def test_files_may_be_paths():
    assert DumpOptions(filters=[Path("/a b"), "/c"]).argv((17, 0))[1:] == ["--filter=/a b", "--filter=/c"]
    assert RestoreOptions(use_list=Path("/l")).argv((15, 18)) == ["--use-list=/l"]
