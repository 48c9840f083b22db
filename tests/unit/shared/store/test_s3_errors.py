"""Answers that the tests' S3 server never gives: those of AWS, of a server in trouble, of something that is no S3 server."""

import pytest
from botocore.exceptions import ClientError, FlexibleChecksumError, ReadTimeoutError, SSLError
from botocore.parsers import ResponseParserError

from components.shared.errors import ObjectDamaged, ObjectMissing, StoreDenied, StoreError, StoreMissing, StoreUnreachable
from components.shared.store.s3_errors import S3Place, store_error

PLACE = S3Place("bucket", "run/a", "https://someone:hidden@s3.example.com/", secrets=("hidden",))


def answer(http_status: int, code: str, message: str = "") -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": http_status, "RequestId": "", "HostId": "", "HTTPHeaders": {}, "RetryAttempts": 0},
        },
        "PutObject",
    )


@pytest.mark.parametrize(
    ("http_status", "code", "kind", "advice"),
    [
        (403, "AccessDenied", StoreDenied, "allow them s3:GetObject"),
        (403, "403", StoreDenied, "allow them s3:GetObject"),
        (403, "AccountProblem", StoreDenied, "AccountProblem"),
        (400, "ExpiredToken", StoreDenied, "get new temporary credentials: AWS_ACCESS_KEY_ID"),
        (400, "InvalidToken", StoreDenied, "get new temporary credentials"),
        (403, "RequestTimeTooSkewed", StoreDenied, "clock is more than 15 minutes off; set it"),
        (404, "NoSuchBucket", StoreMissing, "aws s3 mb s3://bucket"),
        (404, "NoSuchKey", ObjectMissing, "no such object"),
        (404, "404", ObjectMissing, "no such object"),
        (503, "SlowDown", StoreUnreachable, "wait and run the same again"),
        (500, "InternalError", StoreUnreachable, "wait"),
        (502, "502", StoreUnreachable, "answered 502 to every try"),
        (429, "", StoreUnreachable, "answered 429 to every try"),
        (400, "RequestTimeout", StoreUnreachable, "wait"),
        (400, "BadDigest", ObjectDamaged, "try again"),
        (301, "PermanentRedirect", StoreError, "set AWS_REGION"),
        (409, "InvalidBucketState", StoreError, "InvalidBucketState"),
    ],
)
def test_answer_becomes_the_error_that_says_what_to_do(http_status: int, code: str, kind: type[StoreError], advice: str) -> None:
    error = store_error(answer(http_status, code), PLACE)
    assert type(error) is kind
    assert advice in str(error)
    assert str(error).startswith("s3://bucket")


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (ReadTimeoutError(endpoint_url="x"), StoreUnreachable, "check AWS_ENDPOINT_URL_S3"),
        (SSLError(endpoint_url="x", error=OSError()), StoreUnreachable, "AWS_CA_BUNDLE"),
        (ResponseParserError("<html>"), StoreUnreachable, "not as an S3 server does"),
        (FlexibleChecksumError(error_msg="x"), ObjectDamaged, "checksum"),
    ],
)
def test_failed_call_becomes_the_error_that_says_what_to_do(error: Exception, kind: type[StoreError], advice: str) -> None:
    told = store_error(error, PLACE)
    assert type(told) is kind
    assert advice in str(told)


def test_nothing_secret_and_no_second_line_is_shown() -> None:
    told = str(store_error(answer(400, "Strange", "key hidden\nis strange"), PLACE)) + str(store_error(answer(503, "SlowDown"), PLACE))
    assert "key *** is strange" in told
    assert "hidden" not in told
    assert "https://s3.example.com" in told
    assert "\n" not in told
