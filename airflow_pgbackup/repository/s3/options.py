"""Options for reaching and writing an ``s3://`` repository. boto3 is imported only when a client is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_pgbackup.errors import ConfigurationError
from airflow_pgbackup.repository.s3.object_lock import ObjectLock
from airflow_pgbackup.text import did_you_mean

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MIB = 1024**2
MAX_PART = 5 * 1024 * MIB
"""Bytes of S3's largest part."""

READ_TIMEOUT = 60
"""Seconds without a byte from the store after which a request fails: botocore's own default."""

EXTRA_ARGS = frozenset(
    {
        "ACL",
        "CacheControl",
        "ChecksumAlgorithm",
        "ChecksumType",
        "ContentDisposition",
        "ContentEncoding",
        "ContentLanguage",
        "ContentType",
        "ExpectedBucketOwner",
        "Expires",
        "GrantFullControl",
        "GrantRead",
        "GrantReadACP",
        "GrantWriteACP",
        "Metadata",
        "ObjectLockLegalHoldStatus",
        "ObjectLockMode",
        "ObjectLockRetainUntilDate",
        "RequestPayer",
        "ServerSideEncryption",
        "SSECustomerAlgorithm",
        "SSECustomerKey",
        "SSECustomerKeyMD5",
        "SSEKMSEncryptionContext",
        "SSEKMSKeyId",
        "BucketKeyEnabled",
        "StorageClass",
        "Tagging",
    }
)
"""The names allowed in ``extra_args``: those of boto3's ``ExtraArgs``, without those that apply to one object only."""


_ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
_RETENTION = ("ObjectLockMode", "ObjectLockRetainUntilDate")

STORE_LIMITS = ("max_parts", "min_part_size", "max_concurrency", "memory")
STORE_SETTINGS = (*STORE_LIMITS, "extra_args", "lock_for", "lock_mode")
"""What the description of a store may hold."""


def default_client() -> S3Client:
    """Return a client with boto3's defaults: credentials, endpoint and retries from environment, ``~/.aws`` or role."""
    import boto3.session
    from botocore.config import Config

    # Ten seconds instead of a minute, to report soon that an endpoint does not exist. Keepalive, because a dump may
    # pause for a long time, and firewalls drop idle connections.
    config = Config(connect_timeout=10, read_timeout=READ_TIMEOUT, tcp_keepalive=True)
    return boto3.session.Session().client("s3", config=config)


@dataclass(frozen=True, kw_only=True)
class S3Options:
    """How to reach a store, and how to write to it.

    :param client_factory: makes the boto3 client; called again when credentials expire during a transfer.
    :param extra_args: boto3's ``ExtraArgs`` (:data:`EXTRA_ARGS`). Each is added to every request that has such a
        parameter: ``ExpectedBucketOwner`` applies to reading, listing and deleting too.
    :param max_parts: the largest number of parts of an object in that store; some allow only 1,000.
    :param min_part_size: bytes; S3 itself requires 5 MiB.
    :param max_concurrency: requests at a time.
    :param memory: bytes of parts held at a time; two parts are held even if larger: one is sent while one is read.
    :param lock: the object lock of what makes a backup; None: that of ``extra_args``, or the bucket's default.
    """

    client_factory: Callable[[], S3Client] = field(default=default_client, repr=False)
    extra_args: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold an SSE-C key
    max_parts: int = 10_000
    min_part_size: int = 8 * MIB
    max_concurrency: int = 8
    memory: int = 64 * MIB
    lock: ObjectLock | None = None

    @classmethod
    def of_store(
        cls,
        store: Mapping[str, Any],
        *,
        extra_args: Mapping[str, Any] | None = None,
        client_factory: Callable[[], S3Client] = default_client,
        lock_for: object = None,
        lock_mode: object = None,
    ) -> S3Options:
        """Return the options in a store's settings: ``{"max_parts": 1000, "extra_args": {"StorageClass": "…"}}``.

        :param extra_args: override those of the store.
        :param lock_for, lock_mode: for :meth:`.ObjectLock.parse`, where the store has no ``lock_for``, ``lock_mode``.
        :raises ConfigurationError: an extra argument that S3 does not know, a limit or a lock out of range.
        """
        store = mapping("service_config of s3", store)
        limits = {name: store[name] for name in STORE_LIMITS if name in store}
        extra = {**mapping("extra_args", store.get("extra_args", {})), **mapping("extra_args", extra_args or {})}
        lock = ObjectLock.parse(store.get("lock_for", lock_for), store.get("lock_mode", lock_mode))
        return cls(client_factory=client_factory, extra_args=extra, lock=lock, **limits)

    def __post_init__(self) -> None:
        mapping("Metadata of extra_args", mapping("extra_args", self.extra_args).get("Metadata", {}))
        if not isinstance(self.extra_args.get("SSECustomerKey", ""), str | bytes):
            raise ConfigurationError(
                "the S3 extra argument SSECustomerKey is not text", hint="Quote it in the settings."
            )
        for name in self.extra_args:
            if name not in EXTRA_ARGS:
                raise ConfigurationError(
                    f"unknown S3 extra argument {name!r}",
                    hint=did_you_mean(name, EXTRA_ARGS, f"Choose from {', '.join(sorted(EXTRA_ARGS))}."),
                )
        if (storage := self.extra_args.get("StorageClass")) in _ARCHIVES:
            raise ConfigurationError(
                f"StorageClass is {storage}, an archive from which no backup can be verified or restored",
                hint="Choose a class that can be read at once, such as GLACIER_IR.",
            )
        if self.lock and (both := sorted(name for name in self.extra_args if name in _RETENTION)):
            raise ConfigurationError(
                f"the S3 extra argument {both[0]} cannot be combined with lock_for",
                hint=f"Remove {both[0]}: lock_for sets it for each object.",
            )
        for name, low, high in (
            ("max_parts", 1, 10_000),
            ("min_part_size", 5 * MIB, MAX_PART),
            ("max_concurrency", 1, 64),
            ("memory", 5 * MIB, 64 * 1024 * MIB),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ConfigurationError(f"{name} is {value!r}, not an integer between {low} and {high}")


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """Return a value that is a mapping. DAGs and connections can contain anything.

    :raises ConfigurationError: the value is not a mapping.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name} is a {type(value).__name__}, not a mapping", hint='Write it as {"StorageClass": "STANDARD_IA"}.'
        )
    return value


@dataclass
class PartPlan:
    """The size of each part of a stream of unknown length.

    S3 limits the number of parts, and each part may have its own size. The first three quarters of the parts have one
    size, with which the expected bytes fit. After them the size doubles every fortieth of the parts, so that a stream
    longer than expected still fits, at the price of more memory: with 8 MiB and 10,000 parts, 58 GiB are in parts of
    the first size, and 3 TiB fit in all. Cloudflare R2 requires that all parts but the last have the same size.

    :param expected: about how many bytes come; None if unknown.
    :param max_parts, min_part_size: as in :class:`S3Options`.
    """

    expected: int | None
    max_parts: int
    min_part_size: int
    number: int = 0
    """Parts made so far."""

    @property
    def next_size(self) -> int:
        """The size of the next part, in bytes."""
        constant = max(1, self.max_parts * 3 // 4)
        per_part = -(-(self.expected or 0) // constant)
        base = max(self.min_part_size, -(-per_part // MIB) * MIB)
        step = max(1, self.max_parts // 40)
        doublings = max(0, self.number - constant) // step + 1 if self.number >= constant else 0
        return min(base << min(doublings, 20), MAX_PART)
