"""boto3's client for a bucket, set up from where AWS's own tools take their settings."""

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from components.shared.errors import StoreError
from components.shared.store.s3_errors import ALL_ERRORS, S3Place, store_error

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def s3_client(bucket: str, *, max_attempts: int) -> "S3Client":
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    try:
        on_this_machine = urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")
        session = boto3.Session()
        return session.client(
            "s3",
            region_name=os.environ.get("AWS_REGION") or session.region_name or "us-east-1",  # boto3 does not read AWS_REGION
            config=Config(
                retries={"mode": "standard", "total_max_attempts": max_attempts},
                connect_timeout=5,
                read_timeout=60,
                user_agent_extra="hagane",
                proxies={} if on_this_machine else None,  # {}: whatever HTTP_PROXY names does not lead here
            ),
        )
    except ALL_ERRORS as error:
        raise store_error(error, S3Place(bucket, "", endpoint)) from None
    except ValueError:
        found = endpoint.rpartition("@")[2].partition("?")[0]
        raise StoreError(f"store: got AWS_ENDPOINT_URL_S3={found!r}, must be http://host:port or https://host") from None
