"""PGBACKUP_REPOSITORY: where REPOSITORY is left out, and only there."""

from __future__ import annotations

import pytest

from airflow_pgbackup.cli.parser import make_parser, with_default_repository

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
