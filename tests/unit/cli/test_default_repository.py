"""PGBACKUP_REPOSITORY: where REPOSITORY is left out, and only there."""

from __future__ import annotations

import pytest

from airflow_pgbackup.cli.parser import make_parser, parse, with_default_repository

HOME, OTHER = "s3://bucket/pg", "file:///var/backups/pg"
ID = "20261122T020000Z-3f9ac1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("list", f"list {HOME}"),
        ("list --all --server prod", f"list {HOME} --all --server prod"),
        (f"list {OTHER}", f"list {OTHER}"),
        (f"list --server prod {OTHER}", f"list --server prod {OTHER}"),
        ("list /var/backups", "list /var/backups"),
        ("show prod/crm", f"show {HOME} prod/crm"),
        (f"show prod/crm {ID}", f"show {HOME} prod/crm {ID}"),
        (f"show {OTHER} prod/crm {ID}", f"show {OTHER} prod/crm {ID}"),
        (f"show --json prod/crm {ID}", f"show --json {HOME} prod/crm {ID}"),
        ("verify --level restore prod/crm", f"verify --level restore {HOME} prod/crm"),
        ("verify --level=restore prod/crm", f"verify --level=restore {HOME} prod/crm"),
        ("verify --scratch -U me prod/crm", f"verify --scratch -U me {HOME} prod/crm"),
        ("verify --scratch -Ume prod/crm", f"verify --scratch -Ume {HOME} prod/crm"),
        (f"upload prod/crm --to {OTHER}", f"upload {HOME} prod/crm --to {OTHER}"),
        ("restore -d crm -- prod/crm", f"restore -d crm -- {HOME} prod/crm"),
        ("dump --label a", f"dump {HOME} --label a"),
        ("prune --keep-daily 7", f"prune {HOME} --keep-daily 7"),
        ("adopt /old --server s", f"adopt {HOME} /old --server s"),
        ("adopt s3://old/x --server s", f"adopt {HOME} s3://old/x --server s"),
        ("adopt a.dump b.dump --server s", f"adopt {HOME} a.dump b.dump --server s"),
        (f"adopt {OTHER} /old --server s", f"adopt {OTHER} /old --server s"),
        ("check", f"check {HOME}"),
        ("demo", "demo"),
        ("completion bash", "completion bash"),
        ("--version", "--version"),
        ("nonsense x", "nonsense x"),
        ("", ""),
        ("restore -Oj 4 prod/app", f"restore -Oj 4 {HOME} prod/app"),
        ("restore -Oj4 prod/app", f"restore -Oj4 {HOME} prod/app"),
        ("restore -yd app_copy prod/app", f"restore -yd app_copy {HOME} prod/app"),
        ("restore -ydapp_copy prod/app", f"restore -ydapp_copy {HOME} prod/app"),
        ("restore -yO prod/app", f"restore -yO {HOME} prod/app"),
    ],
)
def test_where_it_is_left_out(given: str, expected: str) -> None:
    arguments = given.split()
    assert with_default_repository(arguments, {"PGBACKUP_REPOSITORY": HOME}) == expected.split()
    assert with_default_repository(arguments, {}) == arguments
    assert with_default_repository(arguments, {"PGBACKUP_REPOSITORY": ""}) == arguments


def test_h_is_help_and_capital_h_is_the_host() -> None:
    parsed = make_parser().parse_args(["dump", OTHER, "-H", "db", "-p", "5433", "-U", "me", "-d", "crm"])
    assert (parsed.host, parsed.port, parsed.username, parsed.dbname) == ("db", "5433", "me", "crm")
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args(["dump", "-h"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"restore prod/app --mode create {ID}", {"series": "prod/app", "id": ID, "mode": "create"}),
        (f"restore --mode create prod/app -Oj 4 {ID}", {"series": "prod/app", "id": ID, "jobs": 4}),
        (f"restore prod/app -yd copy {ID} -O", {"series": "prod/app", "id": ID, "dbname": "copy", "no_owner": True}),
        ("verify --level archive prod/app", {"series": "prod/app", "level": "archive", "id": "latest"}),
        (f"show prod/app --json {ID}", {"series": "prod/app", "id": ID, "json": True}),
        (f"get prod/app --into dumps {ID}", {"series": "prod/app", "id": ID, "into": "dumps"}),
        (f"get prod/app --into=dumps -- {ID}", {"series": "prod/app", "id": ID, "into": "dumps"}),
        (f"get prod/app -- {ID}", {"series": "prod/app", "id": ID}),
        (f"diff prod/app --json {ID} --identity key {ID}", {"before": ID, "after": ID, "identity": "key"}),
        ("adopt a.dump --server s b.dump", {"sources": ["a.dump", "b.dump"], "server": "s"}),
    ],
)
def test_positional_arguments_between_options(given: str, expected: dict[str, object]) -> None:
    command, *rest = given.split()
    behind = OTHER if command != "verify" else f"{OTHER} --level restore"
    for line, environ in (
        (f"{command} {' '.join(rest)}", {"PGBACKUP_REPOSITORY": OTHER}),
        (f"{command} {behind} {' '.join(rest)}", {}),
    ):
        parsed = parse(line.split(), environ)
        assert not isinstance(parsed, int)
        assert {"repository": OTHER, **expected}.items() <= vars(parsed).items()
    assert parse(f"show {OTHER} prod/app --json {ID} more".split(), {}) == 2


@pytest.mark.parametrize(
    "line",
    [
        f"restore {OTHER} prod/app --mode replace {ID} -H",
        f"diff {OTHER} prod/app --json {ID} --identity",
        f"adopt {OTHER} a.dump --server s b.dump --database",
        f"get {OTHER} prod/app --into -- {ID}",
    ],
)
def test_an_option_without_its_value_takes_no_positional_argument(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of a shell variable that is not set."""
    assert parse(line.split(), {}) == 2
    assert "expected one argument" in capsys.readouterr().err


def test_the_error_for_an_unknown_option_keeps_the_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(["list", "file:///x", "--aws-conn-id", "a"], {}) == 2
    assert "unrecognized arguments: --aws-conn-id a\n" in capsys.readouterr().err
