"""Files of a repository, and files that users write: manifests, verifications, sets, YAML mappings, keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pyrage
from campaign.fuzzing.engine import Target, Violation
from campaign.fuzzing.mutations import json_values, lines_with_words

from airflow_pgbackup.backup.masking.read_rules import load_rules
from airflow_pgbackup.backup.restore_command import restore_command_of
from airflow_pgbackup.encryption.identities import Identities
from airflow_pgbackup.encryption.recipients import Recipients
from airflow_pgbackup.errors import ConfigurationError, FleetError, ManifestError, MaskingError
from airflow_pgbackup.repository.backup_set import BackupSet
from airflow_pgbackup.repository.json_document import Document
from airflow_pgbackup.repository.layout import is_key
from airflow_pgbackup.repository.manifest import Manifest, RepositoryFile
from airflow_pgbackup.repository.verification import Verification
from airflow_pgbackup.yaml_mapping.problem import Origin
from airflow_pgbackup.yaml_mapping.yaml_file import parse_yaml

_TESTS = Path(__file__).parents[2]
_ROOT = _TESTS.parent
_DOCUMENTS = "airflow_pgbackup.repository.json_document"

_YAML_WORDS = [
    *(b"&a", b"*a", b"!!python/object:os.system", b"!!binary aGk=", b"<<", b"---", b"...", b"%YAML 1.1", b"? ", b"- "),
    *(b"null", b"~", b"true", b"yes", b"0", b"-1", b"1e999", b".nan", b".inf", b"0x1F", b"1_000", b"190:20:30"),
    *(b"2026-02-31", b"2026-11-22", b"2026-11-22T02:00:00+99:99", b"0001-01-01T00:00:00+23:59", b"[]", b"{}", b"[[[[["),
    *(b"{a: {b: {c: }}}", b'"\\ud800"', b'"\\x00"', b"'", b'"', b"|", b">", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc2\x85"),
    *(b"9" * 400, b"9" * 5000, b"a" * 3000, b"'*'", b"'*.*.*'", b"password=x", b"postgres://u:p@h/d", b"{fake: name}"),
    *(b"{hash: {length: 8}}", b"{shift: 3}", b"{generalize: 1e-9}", b"{sql: 'x'}", b"{fixed: 1.5}", b"keep", b"null"),
    *(b"locale", b"leak_check", b"columns", b"servers", b"groups", b"defaults", b"retention", b"schedule", b"dump"),
    *(b"'0 2 * * *'", b"'* * * * * *'", b"'@daily'", b"'99 99 * * *'", b"36h", b"-1d", b"99999999999d", b"8w"),
]


def _golden(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [file.read_bytes() for file in sorted((_TESTS / "golden").glob(pattern))]


def _document(cls: type[Document]) -> Callable[[bytes], str]:
    def run(data: bytes) -> str:
        found = cls.from_json(data)
        written = found.to_json()
        again = cls.from_json(written)
        if again != found or again.to_json() != written:
            raise Violation("written and read again, it is another one")
        if isinstance(found, Manifest):
            _use(found)
        return "accepted"

    return run


def _use(manifest: Manifest) -> None:
    keys = [manifest.key(file) for file in manifest.artifact.files]
    for key in (manifest.artifact_key, *keys):
        if not is_key(key):
            raise Violation(f"the manifest names a file that is not a key: {key[:80]!r}")
        if not key.startswith(f"{manifest.series.path}/{manifest.id}/"):
            raise Violation(f"the manifest names a file outside its folder: {key[:80]!r}")
    manifest.artifact.plain  # noqa: B018  computed
    command = restore_command_of(manifest)
    if "\0" in command:
        raise Violation("a restore command with a NUL")


def _yaml_blocks(page: str) -> list[bytes]:
    text = (_ROOT / "docs" / "guides" / page).read_text(encoding="utf-8")
    return [block.encode() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def _fleet_seeds() -> list[bytes]:
    import airflow_pgbackup.operators.dump
    import airflow_pgbackup.pipelines.fleet.read  # noqa: F401

    return [(_ROOT / "dags" / "fleet.yaml").read_bytes(), *_yaml_blocks("fleet.md")]


def _fleet(data: bytes) -> str:
    from airflow_pgbackup.pipelines.fleet.read import read_fleet

    content, _ = parse_yaml(data, Origin("fleet.yaml"))
    servers = read_fleet({} if content is None else content)
    for name, server in servers.items():
        if server.repository is None or not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", name):
            raise Violation(f"accepted a server without a repository, or of this name: {name[:80]!r}")
    return "accepted"


def _masking(data: bytes) -> str:
    rules = load_rules(data)
    for pattern, rule in rules.columns:
        str(pattern), str(rule)
    return "accepted"


def _identities(data: bytes) -> str:
    found = Identities.parse(data.decode("utf-8", "replace"), "the identity")
    if not found or "SECRET" in repr(found):
        raise Violation("no identity, or one that its repr shows")
    return "accepted"


def _recipients(data: bytes) -> str:
    found = Recipients.parse(data.decode("utf-8", "replace").split(","))
    if found is None:
        return "none"
    again = Recipients.parse(found.texts)
    if again is None or again.texts != found.texts:
        raise Violation("read again, it is another list")
    pyrage.encrypt(b"x", list(found.keys))
    return "accepted"


def _key_seeds() -> list[bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    age = b"# created: 2026-11-22\n# public key: age1...\nAGE-SECRET-KEY-1" + b"Q" * 58 + b"\n"
    return [private, str(pyrage.x25519.Identity.generate()).encode(), age]


def _recipient_seeds() -> list[bytes]:
    ssh = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPcZIGLb5L9Hp1Ym0EsRj8HO9tyTJcyxIchgTEsTTEkh somebody@somewhere"
    return [str(pyrage.x25519.Identity.generate().to_public()).encode(), ssh, b"age1x," + ssh]


_KEY_WORDS = [
    b"AGE-SECRET-KEY-1",
    b"age1",
    b"ssh-rsa AAAA",
    b"ssh-ed25519",
    b"-----BEGIN OPENSSH PRIVATE KEY-----",
    b"\n",
]

TARGETS = [
    Target("manifest", _golden("manifest-*.json"), json_values, _document(Manifest), (ManifestError,),
           (_DOCUMENTS, "airflow_pgbackup.repository.manifest")),
    Target("verification", _golden("verification-*.json"), json_values, _document(Verification), (ManifestError,),
           (_DOCUMENTS, "airflow_pgbackup.repository.verification")),
    Target("set", _golden("set-*.json"), json_values, _document(BackupSet), (ManifestError,),
           (_DOCUMENTS, "airflow_pgbackup.repository.backup_set")),
    Target("repository", _golden("repository-*.json"), json_values, _document(RepositoryFile), (ManifestError,),
           (_DOCUMENTS,)),
    Target("fleet", _fleet_seeds, lines_with_words(_YAML_WORDS), _fleet, (FleetError,),
           ("airflow_pgbackup.pipelines.fleet.read", "airflow_pgbackup.pipelines.fleet.model",
            "airflow_pgbackup.yaml_mapping.yaml_file", "airflow_pgbackup.yaml_mapping.problem")),
    Target("masking", lambda: _yaml_blocks("masking.md"), lines_with_words(_YAML_WORDS), _masking, (MaskingError,),
           ("airflow_pgbackup.backup.masking.read_rules", "airflow_pgbackup.backup.masking.pattern",
            "airflow_pgbackup.yaml_mapping.yaml_file")),
    Target("identities", _key_seeds, lines_with_words(_KEY_WORDS), _identities, (ConfigurationError,),
           ("airflow_pgbackup.encryption.identities",)),
    Target("recipients", _recipient_seeds, lines_with_words(_KEY_WORDS), _recipients, (ConfigurationError,),
           ("airflow_pgbackup.encryption.recipients",)),
]  # fmt: skip
