"""What S3 and boto3 say when something fails -> the StoreErrors of hagane, one line each.

boto3 and s3transfer raise from families without a common root (ALL_ERRORS). Nothing of the
credentials is ever in a line: what the store wrote itself is shown only for codes this module does
not know, with the keys cut out.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointProviderError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from components.shared.errors import (
    ObjectDamaged,
    ObjectMissing,
    StoreDenied,
    StoreError,
    StoreMissing,
    StoreUnreachable,
)

ALL_ERRORS = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    RetriesExceededError,
    S3DownloadFailedError,
)
BROKEN_OFF = (HTTPClientError, BotoConnectionError, IncompleteReadError)
"""No answer, or one that ended early."""
NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
SET_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), "
    "or AWS_PROFILE"
)
RENEW = (
    "get new temporary credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
)
DENIED = {
    "InvalidAccessKeyId": (
        "the store does not know the access key; check AWS_ACCESS_KEY_ID, and whether "
        "AWS_ENDPOINT_URL_S3 is its store"
    ),
    "SignatureDoesNotMatch": (
        "the secret does not belong to the access key; check AWS_SECRET_ACCESS_KEY"
    ),
    "AccessDenied": (
        "these credentials may not do this here; allow them s3:GetObject, s3:PutObject, "
        "s3:DeleteObject and s3:ListBucket, or set others in AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    ),
    "ExpiredToken": f"the credentials have expired; {RENEW}",
    "InvalidToken": f"the session token is not valid; {RENEW}",
    "RequestTimeTooSkewed": (
        "this machine's clock is more than 15 minutes off; set it (`timedatectl set-ntp true`)"
    ),
}
"""S3 API reference, "Error responses": codes that no further try will change."""
BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
OTHER_REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
}


@dataclass(frozen=True)
class S3Place:
    """What a call was about, for its error line."""

    bucket: str
    key: str
    endpoint: str
    secrets: tuple[str, ...] = ()
    """Strings that must not be shown."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")

    @property
    def host(self) -> str:
        """The endpoint without a user name or password that someone may have put into it."""
        parts = urlsplit(self.endpoint)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    def shown(self, text: object) -> str:
        """The text as one line, with every secret cut out."""
        line = " ".join(str(text).split())
        for secret in self.secrets:
            line = line.replace(secret, "***")
        return line


def error_code(error: BaseException) -> str:
    """S3's code of a ClientError (`NoSuchKey`; for an answer without a body its HTTP status,
    `404`), "" for other errors."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code", "")
    return ""


def store_error(error: BaseException, place: S3Place) -> StoreError:
    """The StoreError that tells an error of ALL_ERRORS."""
    if isinstance(error, RetriesExceededError):
        return _unreachable("broke off in the middle of each of 5 tries", place)
    if isinstance(error, S3DownloadFailedError):
        return ObjectDamaged(f"{place.uri}: was replaced while it was read; try again")
    if isinstance(error, ClientError):
        return _answer_error(error, place)
    if isinstance(error, NO_CREDENTIALS):
        return StoreDenied(
            f"{place.uri}: no usable credentials ({type(error).__name__}); {SET_KEYS}"
        )
    if isinstance(error, FlexibleChecksumError):
        return ObjectDamaged(
            f"{place.uri}: what arrived does not have the checksum that the store keeps for it; "
            "try again"
        )
    if isinstance(error, SSLError):
        return _unreachable(
            "TLS failed",
            place,
            "set AWS_CA_BUNDLE to its authority's certificates, or write http:// if it has no TLS",
        )
    if isinstance(error, ResponseParserError):
        return _unreachable(
            "answers, but not as an S3 server does", place, "check AWS_ENDPOINT_URL_S3"
        )
    if isinstance(error, BROKEN_OFF):
        return _unreachable(f"no answer ({type(error).__name__})", place)
    if isinstance(error, EndpointProviderError):
        return StoreError(
            f"{place.uri}: {place.host!r} is no address; set AWS_ENDPOINT_URL_S3 to "
            "http://host:port or https://host"
        )
    if isinstance(error, ParamValidationError):
        return StoreMissing(
            f"{place.uri}: {place.bucket!r} cannot be a bucket's name; write the store as "
            "s3://bucket/prefix"
        )
    return StoreError(f"{place.uri}: {place.shown(error)}")


def _answer_error(error: ClientError, place: S3Place) -> StoreError:
    code = error_code(error)
    http_status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return StoreMissing(
            f"{place.uri}: no bucket {place.bucket!r} at {place.host}; "
            f"create it (`aws s3 mb s3://{place.bucket}`), or name one that exists in `store`"
        )
    if code in ("NoSuchKey", "404"):
        return ObjectMissing(f"{place.uri}: no such object")
    if code in DAMAGED:
        return ObjectDamaged(
            f"{place.uri}: {code}: what reached the store is not what was sent; try again, then "
            "look at the network"
        )
    if code in OTHER_REGION:
        return StoreError(
            f"{place.uri}: {code}: bucket {place.bucket!r} is in another region; set AWS_REGION to "
            "it"
        )
    if code in BUSY or http_status >= 500 or http_status == 429:
        return _unreachable(
            f"answered {code or http_status} to every try", place, "wait and run the same again"
        )
    if code in DENIED or http_status in (401, 403):
        known = DENIED.get(code, DENIED["AccessDenied"])
        return StoreDenied(f"{place.uri}: {code} from {place.host}: {known}")
    return StoreError(
        f"{place.uri}: {code} from {place.host}: "
        f"{place.shown(error.response.get('Error', {}).get('Message', ''))}"
    )


def _unreachable(
    found: str, place: S3Place, advice: str = "check AWS_ENDPOINT_URL_S3 and the network"
) -> StoreUnreachable:
    return StoreUnreachable(f"{place.uri}: store {place.host}: {found}; {advice}")
