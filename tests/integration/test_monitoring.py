"""The alert rules and the dashboard in the documentation name what ``pgbackup metrics`` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from sets import back_up_set

from airflow_pgbackup.backup.metrics import metrics
from airflow_pgbackup.backup.verify import verify
from airflow_pgbackup.postgres.server.throwaway import PostgresServer
from airflow_pgbackup.repository.base import Repository

DOCS = Path(__file__).parents[2] / "docs"
RULES = yaml.safe_load((DOCS / "monitoring" / "pgbackup.rules.yml").read_text())
DASHBOARD = json.loads((DOCS / "monitoring" / "pgbackup-dashboard.json").read_text())

_METRIC = re.compile(r"\b(pgbackup_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')


@pytest.fixture
def printed(
    server18: PostgresServer, fresh_database: Callable[..., Any], here: Repository
) -> dict[str, dict[str, set[str]]]:
    """Each metric of a repository with a rehearsed backup and a set: its labels, and their values."""
    database = fresh_database(server18, None, "create table film as select generate_series(1, 300) n")
    (member,) = back_up_set(server18, here, [database.dbname]).databases
    reference = {"repository_uuid": here.uuid, "series": member.series, "id": member.id}
    verify(reference=reference, repository=here, level="restore")
    found: dict[str, dict[str, set[str]]] = {}
    for family in metrics(repository=here, now=datetime.now(timezone.utc)):
        labels = found.setdefault(family.name, {})
        for sample, _ in family.samples:
            for name, value in sample.items():
                labels.setdefault(name, set()).add(value)
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Every query of the two files."""
    yield from (rule["expr"] for rule in alerts())
    yield from (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def test_queries_name_what_is_printed(printed: dict[str, dict[str, set[str]]]) -> None:
    named = set()
    for query in queries():
        found = _METRIC.findall(query)
        assert found, query
        for name, matchers in found:
            named.add(name)
            assert name in printed, query
            rest = _MATCHER.sub("", matchers)
            assert not rest.strip(", "), f"not understood: {rest}"
            for label, operator, value in _MATCHER.findall(matchers):
                assert label in printed[name], query
                if not value.startswith("$"):
                    wanted = value.split("|") if operator == "=~" else [value]
                    assert set(wanted) <= printed[name][label], query
        for clause in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", query):
            for label in re.split(r",\s*", clause):
                assert all(label in printed[name] for name, _ in found), query
    unused = printed.keys() - named
    assert unused == {"pgbackup_complete_set_databases"}


def test_the_guide_lists_each_metric_with_its_labels(printed: dict[str, dict[str, set[str]]]) -> None:
    page = (DOCS / "guides" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(pgbackup_\w+)` \|([^|]*)\|", page, re.MULTILINE))
    assert rows.keys() == printed.keys()
    for name, cell in rows.items():
        labels = {"repository", *re.findall(r"`(\w+)`", cell)}
        if re.search(r"(?<!`)\bseries", cell):
            labels |= {"series", "server", "database"}
        assert labels == printed[name].keys(), name


def test_alerts_are_complete_and_name_labels_that_they_have(printed: dict[str, dict[str, set[str]]]) -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names)) >= 8
    for rule in alerts():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        (first, *_) = _METRIC.findall(rule["expr"])
        for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
            assert label in printed[first[0]], rule["alert"]
        if "database" in printed[first[0]]:  # the alert would last as long as the backups of one that was dropped
            assert re.search(r"unless on \(repository, series\) .*\bpgbackup_series_dropped\b", rule["expr"])
        assert re.search(r"(<|>|==) ?\d|^absent\(|< 0\.5 |^group by .* unless on ", rule["expr"]), "a threshold"


def test_the_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        assert panel["type"] in ("stat", "table", "timeseries")
        assert panel["targets"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not covered & places, f"{panel['title']} overlaps another panel"
        places |= covered
    used = {name for query in queries() for name in re.findall(r"\$(\w+)", query)}
    assert used == {"repository", "server"} <= variables.keys()
