"""The objects and command lines in docs/deployment/kubernetes.md, validated without a cluster."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.sdk import BaseOperator
from kubernetes.client import ApiClient
from kubernetes.utils import parse_quantity

from airflow_pgbackup.cli.parser import parse

if TYPE_CHECKING:
    from airflow.sdk import DAG

PAGE = Path(__file__).parents[2] / "docs" / "deployment" / "kubernetes.md"
GIB = 1024**3


def blocks(language: str) -> list[str]:
    return [
        textwrap.dedent(text) for text in re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.M)
    ]


def validated(document: dict[str, Any], kind: str) -> Any:
    """Return an object of Kubernetes' API. Its model requires fields, and ignores unknown ones: these would be missing
    in what it writes."""
    client = ApiClient()
    text = json.dumps(document)
    # The lowest version of the client takes a response, the newest its text.
    if "content_type" in signature(client.deserialize).parameters:
        found = client.deserialize(text, f"V1{kind}", "application/json")
    else:
        found = client.deserialize(SimpleNamespace(data=text), f"V1{kind}")
    assert client.sanitize_for_serialization(found) == document
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_each_object_is_valid(text: str) -> None:
    document = yaml.safe_load(text)
    validated(document, document["kind"])


def test_a_misspelled_field_is_noticed() -> None:
    (document,) = [found for text in blocks("yaml") if (found := yaml.safe_load(text))["kind"] == "Pod"]
    document["spec"]["terminationGracePeriod"] = document["spec"].pop("terminationGracePeriodSeconds")
    with pytest.raises(AssertionError):
        validated(document, "Pod")


def test_the_template_mounts_what_it_requests() -> None:
    (document,) = [found for text in blocks("yaml") if (found := yaml.safe_load(text))["kind"] == "Pod"]
    spec = validated(document, "Pod").spec
    (base,), (volume,) = spec.containers, spec.volumes
    assert base.name == "base"
    assert volume.name == base.volume_mounts[0].name
    (temp_dir,) = [each.value for each in base.env if each.name == "PGBACKUP_TEMP_DIR"]
    assert temp_dir == base.volume_mounts[0].mount_path
    limit = parse_quantity(volume.empty_dir.size_limit)
    assert parse_quantity(base.resources.requests["ephemeral-storage"]) >= limit
    assert spec.security_context.run_as_non_root


def test_pods_of_the_executor_have_room(load_dag: Callable[[Path], DAG], tmp_path: Path) -> None:
    (text,) = [text for text in blocks("python") if "executor_config" in text]
    file = tmp_path / "large_pods.py"
    file.write_text(text)
    tasks = {task.task_id.split(".")[-1]: task for task in load_dag(file).tasks}
    for name in ("dump", "verify"):
        pod = tasks[name].executor_config["pod_override"]
        document = ApiClient().sanitize_for_serialization(pod)
        validated(document, "Pod")
        limit = parse_quantity(pod.spec.volumes[0].empty_dir.size_limit)
        assert 100 * GIB * 1.2 <= limit <= 100 * GIB * 1.2 + GIB
        assert parse_quantity(pod.spec.containers[0].resources.requests["ephemeral-storage"]) == limit


class KubernetesPodOperator(BaseOperator):
    """A stand-in with the parameters that the documentation uses, named as in version 10.25.0 of the provider."""

    def __init__(
        self,
        *,
        image: str,
        namespace: str,
        service_account_name: str,
        env_vars: dict[str, str],
        container_resources: Any,
        container_security_context: Any,
        annotations: dict[str, str],
        termination_grace_period: int,
        cmds: list[str] | None = None,
        arguments: list[str] | None = None,
        env_from: list[Any] | None = None,
        do_xcom_push: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.command = [*(cmds or ["pgbackup"]), *(arguments or [])]  # the image's ENTRYPOINT
        self.parts = [container_resources, container_security_context, *(env_from or [])]
        self.pushes = do_xcom_push


def parsed(command: list[str]) -> argparse.Namespace:
    """Return the arguments of a call of pgbackup, which may be in a shell."""
    if command[0] == "sh":
        assert command[1] == "-ec"
        exec_, *command = shlex.split(command[2].split(" > ")[0])
        assert exec_ == "exec"
    assert command[0] == "pgbackup"
    found = parse(command[1:], {})
    assert isinstance(found, argparse.Namespace), command
    return found


def test_the_dag_of_pods_calls_pgbackup(
    monkeypatch: pytest.MonkeyPatch, load_dag: Callable[[Path], DAG], tmp_path: Path
) -> None:
    name = "airflow.providers.cncf.kubernetes.operators.pod"
    for part in (name, *(name.rsplit(".", count)[0] for count in (1, 2, 3))):
        monkeypatch.setitem(sys.modules, part, ModuleType(part))
    monkeypatch.setattr(sys.modules[name], "KubernetesPodOperator", KubernetesPodOperator, raising=False)
    (text,) = [text for text in blocks("python") if name in text]
    file = tmp_path / "pods.py"
    file.write_text(text)
    tasks: dict[str, Any] = {task.task_id: task for task in load_dag(file).tasks}
    assert list(tasks) == ["dump", "verify", "upload", "prune"]
    calls = {task_id: parsed(task.command) for task_id, task in tasks.items()}
    assert [call.command.name for call in calls.values()] == list(tasks)
    assert all(call.repository == "s3://my-backups/pg" for call in calls.values())
    assert calls["dump"].json
    assert tasks["dump"].command[2].endswith(" > /airflow/xcom/return.json")
    assert tasks["dump"].pushes
    assert "['id']" in calls["verify"].id
    assert calls["upload"].destination == "s3://my-other-backups/pg"
    assert calls["prune"].delete
    assert [sorted(task.downstream_task_ids) for task in tasks.values()] == [["verify"], ["upload"], ["prune"], []]
    for task in tasks.values():
        for part in task.parts:
            validated(ApiClient().sanitize_for_serialization(part), type(part).__name__.removeprefix("V1"))
