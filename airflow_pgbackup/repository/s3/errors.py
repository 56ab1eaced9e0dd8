"""Translate errors of S3 and boto3 into errors of this package, with the cause and a hint."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    MissingDependencyException,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as S3ConnectionError

from airflow_pgbackup.errors import ConfigurationError, PgBackupError, RepositoryError, RepositoryNotFound
from airflow_pgbackup.wording import store

EXPIRED = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired", "ExpiredCredentials"}
)
RENEWABLE = EXPIRED | {"InvalidAccessKeyId", "InvalidToken"}
"""With new credentials the request may succeed: rotated keys are removed, and no longer known."""
DAMAGED = frozenset({"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"})
MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
CONFLICTS = frozenset({"ConditionalRequestConflict", "OperationAborted"})
"""Another request for the key was being executed: this one was not, and may be sent again."""
THROTTLED = frozenset({"SlowDown", "RequestTimeout", "RequestLimitExceeded", "Throttling", "TooManyRequests", "429"})

_PERMISSIONS = (
    "The role needs s3:ListBucket, GetObject, PutObject, DeleteObject, AbortMultipartUpload, "
    "ListBucketMultipartUploads and ListMultipartUploadParts on this bucket and prefix, in a versioned bucket also "
    "GetObjectVersion, with lock_for PutObjectRetention, and with the extra argument Tagging PutObjectTagging."
)
KEPT = "Object lock keeps a version until its date. Without one, the role needs s3:DeleteObject."
_COPY = (
    "If the bucket refuses overwriting, it refuses this copy too: use a role with s3:DeleteObjectVersion, which shows "
    "deleted files again without a copy, or lift the policy for the repair. Otherwise the role needs "
    "s3:GetObjectVersion and s3:PutObject, with lock_for also s3:PutObjectRetention."
)
_KMS = "The role needs kms:GenerateDataKey and kms:Decrypt for this key, and the key must be enabled."
_LOCK = (
    "A bucket with object lock refuses uploads without a checksum: set the extra argument ChecksumAlgorithm to CRC32, "
    "or remove request_checksum_calculation=when_required."
)
NO_LOCK = "Enable versioning and object lock for the bucket, or remove lock_for."
WITHOUT_CHECKSUMS = (
    "The store may not know the checksums that boto3 sends by default: set "
    '{"config_kwargs": {"request_checksum_calculation": "when_required", '
    '"response_checksum_validation": "when_required"}} in the AWS connection, or for the command line '
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required in the environment."
)
_CLOCK = "Set the clock of this machine: S3 allows a difference of 15 minutes."
_CONNECTION = "Check key and secret of the AWS connection, or the environment of this worker."
FACTORY = "Check the AWS connection, and where its credentials come from."
_REGION = "region"  # replaced by what to set
# A new key or policy takes a moment to be valid everywhere.
_ABOUT_ACCESS = frozenset({_PERMISSIONS, _KMS, _CONNECTION})
_ONE_SIZE = (
    "The last quarter of the parts is larger if a dump is larger than expected: raise min_part_size to at least the "
    "size of the dump divided by three quarters of max_parts (7,500 by default)."
)
_DELETES = frozenset({"DeleteObject", "DeleteObjects"})
# "Unsupported header 'x-amz-checksum-crc32'", "aws-chunked encoding is not supported", "… trailer …"
_ABOUT_CHECKSUMS = re.compile("checksum|chunked|trailer|content-?length|x-amz-sdk", re.IGNORECASE)
_UNPARSED = "Failed to parse: "
_DAMAGED = "the data was damaged during the transfer: the checksum differs"

# code -> (what was found, what to do)
_CODES: dict[str, tuple[str, str | None]] = {
    "InvalidAccessKeyId": ("the store does not know this access key", _CONNECTION),
    "SignatureDoesNotMatch": ("the store refuses the signature: the secret key is wrong", _CONNECTION),
    "InvalidToken": ("the session token is not valid", _CONNECTION),
    "AccessDenied": ("access denied", _PERMISSIONS),
    "AllAccessDisabled": ("access denied", _PERMISSIONS),
    "AccountProblem": ("the account has a problem", None),
    "403": ("access denied", _PERMISSIONS),
    "RequestTimeTooSkewed": ("the clocks of this machine and of the store disagree", _CLOCK),
    "PermanentRedirect": ("the bucket is in another region", _REGION),
    "301": ("the bucket is in another region", _REGION),
    "IllegalLocationConstraintException": ("the bucket is in another region", _REGION),
    "AuthorizationHeaderMalformed": ("the request was signed for another region than the bucket's", _REGION),
    "SlowDown": ("the store asks to slow down", "Run fewer backups at a time, or set more retries in the connection."),
    "ServiceUnavailable": ("the store is not available", "Retry later."),
    "503": ("the store is not available", "Retry later."),
    "InternalError": ("the store had an internal error", "Retry later."),
    "500": ("the store had an internal error", "Retry later."),
    "RequestTimeout": ("the store gave up waiting for data", "Retry later."),
    "BadDigest": (_DAMAGED, "Retry, and check proxies in between."),
    "XAmzContentSHA256Mismatch": (_DAMAGED, f"Retry, and check proxies in between. {WITHOUT_CHECKSUMS}"),
    "XAmzContentChecksumMismatch": (_DAMAGED, "Retry, and check proxies in between."),
    "IncompleteBody": ("the data did not arrive completely", "Retry."),
    "ConditionalRequestConflict": ("another request writes the object at the same time", "Retry."),
    "OperationAborted": ("another request writes the object at the same time", "Retry."),
    "PreconditionFailed": ("the object has changed since it was listed", None),
    "InvalidObjectState": ("the object is in an archive storage class", "Restore it in S3 first, then retry."),
    "EntityTooLarge": ("the object is too large for this store", "Lower max_parts if the store allows fewer."),
    "InvalidPart": (
        "a part of the upload is missing or damaged",
        "Retry, and check whether a lifecycle rule aborts uploads early.",
    ),
    "NoSuchUpload": (
        "the multipart upload does not exist",
        "Check whether a lifecycle rule or a sweep aborts uploads too early.",
    ),
    "NotImplemented": (
        "the store does not implement the request",
        f"{WITHOUT_CHECKSUMS} Leave out the extra arguments that it does not know.",
    ),
    "QuotaExceeded": ("the quota of the store is used up", "Prune, or raise the quota."),
    "InsufficientStorage": ("the store is full", "Prune, or add storage."),
}


def code_of(error: BaseException) -> str:
    """Return S3's error code; empty for other errors. The response to a HEAD has no body, so its code is the status."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error response; 0 for other errors."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_outage(error: BaseException) -> bool:
    """Return whether the store did not answer, or answered that it cannot do anything at the moment."""
    if isinstance(error, ClientError):
        return status_of(error) in (500, 502, 503, 504) or code_of(error) in THROTTLED
    return isinstance(error, HTTPClientError | S3ConnectionError)


class NotRenewed(BotoCoreError):
    """The store refused the credentials, and the client factory failed.

    :ivar refusal: the store's answer.
    """

    fmt = "cannot get credentials after {code}: {detail}"

    def __init__(self, refusal: ClientError, cause: Exception) -> None:
        super().__init__(code=code_of(refusal), detail=f"{type(cause).__name__}: {line_of(cause)}")
        self.refusal = refusal


def refused(error: BaseException) -> bool:
    """Return whether the store refused the request or redirected it, and it was sent only once.

    An earlier attempt whose response was lost may have succeeded, or may still succeed.
    """
    if isinstance(error, NotRenewed):
        error = error.refusal
    if not isinstance(error, ClientError):
        return False
    # After the answer that names the bucket's region, botocore itself sends the request once more, to that region.
    sent_again = 1 if _CODES.get(code_of(error), ("", ""))[1] == _REGION and _region(error.response) else 0
    retries = int(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))
    return 300 <= status_of(error) < 500 and retries <= sent_again


def translate(error: ClientError | BotoCoreError, what: str, *, bucket: str, endpoint: str) -> PgBackupError:
    """Return the error to raise instead.

    :param what: what failed, ``cannot write s3://bucket/key``.
    """
    if isinstance(error, ClientError):
        return _answer(error, what, bucket, endpoint)
    if isinstance(error, ParamValidationError | ProfileNotFound | NoRegionError):
        return ConfigurationError(f"{what}: {line_of(error)}")
    if isinstance(error, MissingDependencyException):
        return ConfigurationError(
            f"{what}: this checksum algorithm needs the AWS common runtime",
            hint="Install it: pip install 'botocore[crt]'.",
        )
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return RepositoryError(f"{what}: no AWS credentials: {line_of(error)}", hint=_CONNECTION, retry="once")
    if isinstance(error, NotRenewed):
        return RepositoryError(f"{what}: {line_of(error)}", hint=FACTORY)
    if isinstance(error, SSLError):
        return RepositoryError(
            f"{what}: no trusted TLS connection to {endpoint}: {line_of(error)}",
            hint=f"For a private certificate authority, set {store('verify')} to its file.",
        )
    if isinstance(error, HTTPClientError | S3ConnectionError):
        # urllib3 quotes the part of a proxy's URL that it cannot parse, which holds user and password.
        reason = "the URL of the proxy cannot be parsed" if _UNPARSED in str(error) else line_of(error)
        return RepositoryError(
            f"{what}: {endpoint} does not answer: {reason}",
            hint=f"Check {store('endpoint_url')}, the network, and the proxy settings of this worker.",
        )
    return RepositoryError(
        f"{what}: {line_of(error)}", hint="Check the store, and the proxies in between, for faults, then retry."
    )


def _answer(error: ClientError, what: str, bucket: str, endpoint: str) -> PgBackupError:
    code = code_of(error)
    if code == "NoSuchBucket":
        return RepositoryNotFound(
            f"{what}: bucket {bucket} does not exist at {endpoint}",
            hint="Create the bucket, or correct the repository URI or the endpoint and region of the connection.",
        )
    if code in EXPIRED:
        return RepositoryError(
            f"{what}: the credentials have expired",
            hint="A static session token cannot be renewed: let the AWS connection assume a role.",
            retry="once",
        )
    words = _words(error)
    found, hint = _CODES.get(code, ("the store refuses it", "Look up the code in the documentation of the store."))
    if code.startswith("KMS") or "kms:" in words.lower():
        found, hint = "the encryption key cannot be used", _KMS
    elif "object lock" in words.lower() and "checksum" in words.lower():
        found, hint = "an upload into a bucket with object lock lacks a checksum", _LOCK
    elif code == "InvalidRequest" and "object lock" in words.lower().replace("objectlock", "object lock"):
        found, hint = "the bucket has no object lock", NO_LOCK
    elif hint == _PERMISSIONS and error.operation_name in _DELETES:
        hint = KEPT
    elif hint == _PERMISSIONS and error.operation_name == "CopyObject":
        hint = _COPY
    elif code == "SignatureDoesNotMatch" and "invalid argument" in words.lower():  # Google's answer to checksums
        found, hint = "the store refuses the signature", f"{_CONNECTION} {WITHOUT_CHECKSUMS}"
    elif code == "InvalidPart" and "same length" in words.lower():
        found, hint = "the store wants parts of one size", _ONE_SIZE
    elif code not in _CODES and status_of(error) in (400, 411, 501) and _ABOUT_CHECKSUMS.search(words):
        hint = WITHOUT_CHECKSUMS
    region = _region(error.response)
    if hint == _REGION:
        hint = f"Set {store('region_name')}{f' to {region}' if region else ''}."
    return RepositoryError(
        f"{what}: {found} ({': '.join(filter(None, [code or str(status_of(error)), words]))})",
        hint=hint,
        retry="once" if hint in _ABOUT_ACCESS else None,
    )


def _words(error: ClientError) -> str:
    """S3's own message. The answer to a HEAD has none: botocore takes the status's name."""
    said = error.response.get("Error", {}).get("Message")
    return "" if not said or code_of(error).isdigit() else line_of(str(said))


def _region(response: Any) -> str | None:
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or response.get("Error", {}).get("Region")
    return str(region) if region else None


def line_of(error: BaseException | str) -> str:
    """Return the message of an error as one line of about 300 characters at most."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 300 else f"{text[:300]}…"
