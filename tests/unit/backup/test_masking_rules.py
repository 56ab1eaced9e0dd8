"""The file of masking rules: what is read from it, and what is refused."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_pgbackup.backup.mask import yaml_key
from airflow_pgbackup.backup.masking import MaskingKey, load_rules
from airflow_pgbackup.backup.masking.columns import column_text
from airflow_pgbackup.backup.masking.dictionaries import SIZE, make_words
from airflow_pgbackup.backup.masking.pattern import ColumnPattern
from airflow_pgbackup.backup.masking.rules import FAKES, Rule
from airflow_pgbackup.backup.masking.samples import unescaped
from airflow_pgbackup.errors import ConfigurationError, MaskingError
from airflow_pgbackup.text import printable


@pytest.mark.parametrize(
    ("pattern", "column", "fits"),
    [
        ("public.customer.email", ("public", "customer", "email"), True),
        ("PUBLIC.Customer.EMAIL", ("public", "customer", "email"), True),
        ('public."Customer".email', ("public", "Customer", "email"), True),
        ('public."Customer".email', ("public", "customer", "email"), False),
        ("*.*.*mail", ("a", "b", "e\nmail"), True),
        ("public.cust?mer.*", ("public", "customer", "x"), True),
        ('public."a.b""c".*', ("public", 'a.b"c', "x"), True),
        ('public."*".c', ("public", "anything", "c"), False),
        ("public.a+b.c", ("public", "aab", "c"), False),
        ("*.*.a*b*", ("x", "y", "acb"), True),
        ("*.*.a*b*", ("x", "y", "acbc"), True),
        ("*.*.a*bc", ("x", "y", "abbc"), True),
        ("*.*.a*bc", ("x", "y", "abcb"), False),
        ("*.*.?*?", ("x", "y", "a"), False),
        ("*.*.?*?", ("x", "y", "a*"), True),
        ("*.*.a?", ("x", "y", "a"), False),
        ("*.*.*", ("x", "y", ""), True),
    ],
)
def test_a_pattern_fits_columns_as_psql_writes_names(pattern: str, column: tuple[str, str, str], fits: bool) -> None:
    assert ColumnPattern.parse(pattern).matches(*column) is fits


def test_the_more_exact_pattern_counts() -> None:
    order = ["*.*.*", "*.*.*x*", "*.*.c", "a.b.*", "a.b.c*", "a.b.c"]
    patterns = list(map(ColumnPattern.parse, order))
    for number, less in enumerate(patterns):
        assert [each.text for each in patterns if each.counts_before(less)] == order[number + 1 :]


@pytest.mark.parametrize("other", ["a.b.*c*", "a.b.*", "a.b*.c"])
def test_of_patterns_that_name_different_parts_none_counts(other: str) -> None:
    one, another = ColumnPattern.parse("*.b.c"), ColumnPattern.parse(other)
    assert not one.counts_before(another) and not another.counts_before(one)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "a.b.", ".b.c", "a b.c.d", '"a.b.c', 'a."b"x.c', "a." * 5000])
def test_what_is_not_schema_table_column_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"schema\.table\.column"):
        ColumnPattern.parse(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("keep", Rule("keep")),
        ("null", Rule("null")),
        ("'null'", Rule("null")),
        ("", Rule("null")),
        ("hash", Rule("hash", length=32)),
        ("{hash: {length: 12}}", Rule("hash", length=12)),
        ("{fixed: 5}", Rule("fixed", text="5")),
        ("{fixed: true}", Rule("fixed", text="true")),
        ("{fixed: 2024-05-06}", Rule("fixed", text="2024-05-06")),
        ("{shift: 30}", Rule("shift", days=30)),
        ("{shift: {days: 30, by: id}}", Rule("shift", days=30, by="id")),
        ("{generalize: month}", Rule("generalize", unit="month")),
        ("{generalize: 0.25}", Rule("generalize", bucket="0.25")),
        ("{generalize: {prefix: 2}}", Rule("generalize", length=2)),
        ("{sql: upper(a)}", Rule("sql", text="upper(a)")),
    ],
)
def test_each_rule_is_read(text: str, rule: Rule) -> None:
    ((_, found),) = load_rules(f"columns:\n  a.b.c: {text}\n").columns
    assert found == rule


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        "columns:\n"
        "  a.b: keep\n"
        "  a.b.c: {fake: emial}\n"
        "  a.b.d: [keep]\n"
        "  a.b.e: email\n"
        "  a.b.f: {keep: true}\n"
        "  a.b.g: {shift: {days: 0}}\n"
        "locale: xx_XX\n"
        "large_object: keep\n"
        "tables_without_rules: maybe\n"
        "leak_check: {samples: many, may_contain: [a]}\n"
    )
    with pytest.raises(MaskingError) as caught:
        load_rules(file)
    assert caught.value.problems == [
        "rules.yaml:2: columns.a.b: not schema.table.column; put a name with dots, spaces or capitals into double "
        "quotes",
        "rules.yaml:3: columns.a.b.c.fake: unknown fake; did you mean 'email'?",
        "rules.yaml:4: columns.a.b.d: expected one rule, found a list; write keep, null, hash, or one of fixed, hash, "
        "fake, shift, generalize, sql with its value",
        "rules.yaml:5: columns.a.b.e: not a rule; write {fake: email}",
        "rules.yaml:6: columns.a.b.f: the rule keep has no value; write keep alone",
        "rules.yaml:7: columns.a.b.g.shift.days: expected a whole number from 1 to 36525",
        "rules.yaml:8: locale: Faker has no locale xx_XX",
        "rules.yaml:9: large_object: unknown key; did you mean 'large_objects'?",
        "rules.yaml:10: tables_without_rules: expected keep or fail, found text",
        "rules.yaml:11: leak_check.samples: expected a whole number from 0 to 10000",
        "rules.yaml:11: leak_check.may_contain[0]: not schema.table.column; put a name with dots, spaces or capitals "
        "into double quotes",
    ]


_NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(_NAMES, _NAMES, _NAMES)
@example("no", "null", "on")
@example("🙂", "\x85\ufffe", 'a"b\\')
def test_any_name_can_be_written_as_a_pattern_that_fits_it_alone(schema: str, table: str, column: str) -> None:
    text = f"columns:\n  {yaml_key(column_text(schema, table, column))}: keep\n"
    ((pattern, _),) = load_rules(text).columns
    assert pattern.exact
    assert pattern.matches(schema, table, column)
    assert not pattern.matches(schema, table, f"{column}x")


# Any YAML, with the words of the format among it, so that it gets past the first check.
_WORDS = st.sampled_from(
    ["columns", "a.b.c", "*.*.*", "keep", "null", "hash", "fake", "email", "shift", "days", "by", "generalize",
     "prefix", "fixed", "sql", "locale", "de_DE", "leak_check", "samples", "may_contain", "large_objects", "length"]
)  # fmt: skip
_SCALARS = _WORDS | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=3),
)
_FILES = st.fixed_dictionaries({"columns": st.dictionaries(_WORDS, _VALUES, max_size=4)}) | _VALUES


@given(_FILES)
@example({"columns": {"a.b.c": {"fixed": float("nan")}}})
@example({"columns": {"a.b.c": {"generalize": -0.0}}})
def test_any_yaml_gives_rules_or_problems(content: object) -> None:
    _gives_rules_or_problems(yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"columns: {a.b.c: {fixed: 99999-99-99}}")
@example(b"columns: {a.b.c: {fixed: 0x" + b"f" * 9000 + b"}}")
@example(b"columns: {a.b.c: {shift: 0x" + b"f" * 9000 + b"}}")
@example(b"columns: &a [*a]")
@example(b"columns: {a.b.c: !!python/name:os.system {}}")
@example(b"{" * 100_000)
@example(b"columns: {a.b.c: {shift: 1_0}}\ncolumns: {}")
def test_any_bytes_give_rules_or_problems(data: bytes) -> None:
    _gives_rules_or_problems(data)


def _gives_rules_or_problems(data: bytes) -> None:
    problems = []
    try:
        rules = load_rules(data)
    except MaskingError as error:
        problems = error.problems
    assert problems or rules.columns
    assert all(problem == printable(problem) for problem in problems)


def test_the_key_is_long_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "key"
    for content, mode, expected in (
        (b"short", 0o600, "the masking key has 5 bytes, expected 16 to 4096"),
        (b"0123456789abcdef\n", 0o644, "has mode 0644: others can read it"),
    ):
        file.write_bytes(content)
        file.chmod(mode)
        with pytest.raises(ConfigurationError, match=expected):
            MaskingKey.read(file)
    file.chmod(0o600)
    assert MaskingKey.read(file).derive("a") == MaskingKey(b"0123456789abcdef").derive("a")
    assert "0123" not in repr(MaskingKey.read(file))
    with pytest.raises(ConfigurationError, match="No such file"):
        MaskingKey.read(tmp_path / "none")


@pytest.mark.parametrize("locale", ["en_US", "de_DE", "ja_JP", "fr_FR"])
@pytest.mark.parametrize("kind", ["first_name", "state", "postcode", "mail_name", "sentence"])
def test_dictionaries_are_full_and_the_same_for_a_seed(kind: str, locale: str) -> None:
    words = make_words(kind, [locale], 5, "UTF8")
    assert len(words) == SIZE
    assert words == make_words(kind, [locale], 5, "UTF8") != make_words(kind, [locale], 6, "UTF8")
    assert all(0 < len(word.encode()) <= 63 for word in words)
    assert all(word.encode("latin-1") for word in make_words(kind, [locale], 5, "LATIN1"))


def test_fields_of_copy_are_read_as_the_server_writes_them() -> None:
    assert unescaped(rb"a\tb\\c\n\101\x42\q") == b"a\tb\\c\nABq"


# Processor seconds; the machine may be busy, and the faults took minutes.
LIMIT = 60.0


def test_a_pattern_of_many_wildcards_takes_little_time() -> None:
    pattern = ColumnPattern.parse("*.*." + "*a" * 7 + "*b")
    began = time.process_time()
    assert not any(pattern.matches("s", "t", "a" * 55 + f"{number:08}") for number in range(100))
    assert pattern.matches("s", "t", "a" * 60 + "b")
    assert time.process_time() - began < LIMIT


@pytest.mark.parametrize("value", [":".join(["1"] * 500_000), ":".join(["1"] * 500_000) + ".5"], ids=["int", "float"])
def test_a_large_number_of_base_60_takes_little_time(value: str) -> None:
    began = time.process_time()
    with pytest.raises(MaskingError, match="longer than 10000 characters"):
        load_rules(f"columns:\n  a.b.c: {{fixed: {value}}}\n")
    assert time.process_time() - began < LIMIT


def test_a_file_of_bad_lines_gives_a_short_error() -> None:
    began = time.process_time()
    with pytest.raises(MaskingError) as refused:
        load_rules("columns:\n" + "".join(f"  public.t.c{number}: keeep\n" for number in range(40_000)))
    assert time.process_time() - began < LIMIT
    assert refused.value.problems[0] == "rules:2: columns.public.t.c0: not a rule; did you mean 'keep'?"
    assert refused.value.problems[-1] == "and 39,900 more problems"
    assert len(refused.value.problems) == 101
    assert len(str(refused.value)) < 10_000


def test_the_documented_rules_are_read_and_every_fake_is_documented() -> None:
    page = Path(__file__).parents[3].joinpath("docs/guides/masking.md").read_text()
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(load_rules(example).columns) == 9
    assert [fake for fake in FAKES if f"`{fake}`" not in page] == []
