"""The store in an S3 bucket, through boto3.

Endpoint, keys and region come from where AWS's own tools take them: AWS_ENDPOINT_URL_S3,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, a profile, a pod's role. `awscrt` must not be
installed: with it boto3 signs in 4 KiB steps and uploads at a third of the speed (422 instead of
1199 MB/s).

`write_bytes(if_absent=True)` is S3's If-None-Match. A server that ignores this header (rclone,
s3rver, nanio) lets every writer win and cannot be distinguished from one that honours it in one
request: do not keep runs on such a server.
"""

import base64
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from botocore.exceptions import ClientError, FlexibleChecksumError
from s3transfer.manager import TransferConfig, TransferManager

from components.shared.errors import (
    ObjectDamaged,
    ObjectExists,
    ObjectMissing,
    StoreError,
    StoreUnreachable,
)
from components.shared.store.patience import is_patient, patiently
from components.shared.store.s3_client import s3_client
from components.shared.store.s3_errors import (
    ALL_ERRORS,
    BROKEN_OFF,
    SET_KEYS,
    S3Place,
    error_code,
    store_error,
)
from components.shared.store.storage import StoredObject, Unfinished, checked_key

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
MAX_ATTEMPTS = 10
"""Rides out 50 s of 503 (botocore's `standard` mode, waits doubling up to 20 s); its default of 3
gives up after 1 s."""
PATIENT_ATTEMPTS = 4
"""In a process that waits for the store (patience.py): 4 s, then it is in the log and asked again
for minutes."""
CHECK_ATTEMPTS = 3
"""For `check` alone: someone waits for it, and a wrong endpoint should be reported in a second."""
READ_PAUSES_S = (0.1, 0.2, 0.4, 0.8)
"""Before asking again for a body that broke off, which botocore never does; 5 tries, as s3transfer
gives a download."""
CONFLICT_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Before writing again where two writers met and no object came of it."""
TRANSFER = TransferConfig(
    multipart_threshold=32 * 2**20,
    multipart_chunksize=32 * 2**20,
    max_request_concurrency=2,
    io_chunksize=2**20,
)
"""The fastest of those measured on 2 cores: 1.4 GB/s up, 1.6 GB/s down over loopback; more threads
only take turns."""
TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
NO_CONDITIONS = ("NotImplemented", "501")
"""What a server answers that knows the header, and cannot do it."""


def waited_for(
    method: "Callable[Concatenate[S3Store, Given], Answer]",
) -> "Callable[Concatenate[S3Store, Given], Answer]":
    """The method, done again while the store is away, if it was opened to be waited for. Each of
    them may be done twice."""

    @wraps(method)
    def patient(self: "S3Store", *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        if not self.patient:
            return method(self, *args, **kwargs)
        return patiently(lambda: method(self, *args, **kwargs), what="store", may_pass=_is_away)

    return patient


def _is_away(error: BaseException) -> bool:
    return isinstance(error, StoreUnreachable)


class S3Store:
    """The objects of a bucket whose keys begin with `prefix`, by the rest of their keys."""

    def __init__(
        self, client: "S3Client", bucket: str, prefix: str, *, patient: bool = False
    ) -> None:
        self.client = client
        self.patient = patient
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    @classmethod
    def from_uri(cls, uri: str) -> "S3Store":
        """The store of `s3://bucket/prefix`. Nothing is asked of the server yet.

        Raises:
            StoreError: no bucket in the URI, or keys, which do not belong there; a wrong AWS_
                variable or profile.
        """
        bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
        if not bucket:
            raise StoreError(f"store: got {uri!r}, must be s3://bucket/prefix")
        if "@" in bucket or ":" in bucket or "?" in uri:
            raise StoreError(
                f"store: got {uri!r}, must be s3://bucket/prefix without user, key or query; "
                f"{SET_KEYS}"
            )
        if prefix:
            checked_key(prefix)
        patient = is_patient()
        if patient:
            max_attempts = PATIENT_ATTEMPTS
        else:
            max_attempts = MAX_ATTEMPTS
        return cls(s3_client(bucket, max_attempts=max_attempts), bucket, prefix, patient=patient)

    def at(self, prefix: str) -> "S3Store":
        return S3Store(self.client, self.bucket, self._full(prefix), patient=self.patient)

    @waited_for
    def read_bytes(self, key: str) -> bytes:
        full = self._full(key)
        with self._errors_reported(full):
            for pause_s in READ_PAUSES_S:
                body = self.client.get_object(Bucket=self.bucket, Key=full)["Body"]
                with suppress(*BROKEN_OFF, FlexibleChecksumError):
                    return body.read()
                time.sleep(pause_s)
            return self.client.get_object(Bucket=self.bucket, Key=full)["Body"].read()

    @waited_for
    def write_bytes(self, key: str, content: bytes, *, if_absent: bool = False) -> None:
        full = self._full(key)
        if not if_absent:
            with self._errors_reported(full):
                self.client.put_object(Bucket=self.bucket, Key=full, Body=content)
            return
        for pause_s in CONFLICT_PAUSES_S:
            if self._put_if_absent(full, content):
                return
            # Taken: by another writer, or by our own try whose answer was lost on the way and which
            # botocore then repeated.
            try:
                found = self.read_bytes(key)
            except ObjectMissing:
                time.sleep(pause_s)
                continue
            if found != content:
                raise ObjectExists(f"{self.uri}/{key}: is there already")
            return
        raise StoreUnreachable(
            f"{self.uri}/{key}: met another writer in each of {len(CONFLICT_PAUSES_S)} tries; run "
            "the same again"
        )

    @waited_for
    def upload(self, path: Path, key: str) -> None:
        full = self._full(key)
        checksum = base64.b64encode(_crc32(path).to_bytes(4, "big")).decode()
        with self._errors_reported(full):
            with TransferManager(self.client, TRANSFER) as transfers:
                # Given a checksum of the whole, the server compares it when it has put the parts
                # together.
                transfers.upload(
                    str(path), self.bucket, full, extra_args={"ChecksumCRC32": checksum}
                ).result()
            head = self.client.head_object(Bucket=self.bucket, Key=full, ChecksumMode="ENABLED")
        if (
            head["ContentLength"] != path.stat().st_size
            or head.get("ChecksumCRC32", checksum) != checksum
        ):
            raise ObjectDamaged(
                f"{self.uri}/{key}: holds {head['ContentLength']} bytes of {path.stat().st_size}, "
                "or other ones; the file changed meanwhile, try again"
            )

    @waited_for
    def download(self, key: str, path: Path) -> None:
        """As Store says; boto3 does not compare checksums of objects over 8 MiB, so the caller must
        (`fetch_file` does)."""
        full = self._full(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors_reported(full), TransferManager(self.client, TRANSFER) as transfers:
            transfers.download(self.bucket, full, str(path)).result()

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return iter(self._listed(prefix))

    @waited_for
    def _listed(self, prefix: str) -> tuple[StoredObject, ...]:
        if self.prefix:
            start = f"{self.prefix}/"
        else:
            start = ""
        found: dict[str, StoredObject] = {}
        with self._errors_reported(start + prefix):
            for page in self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=start + prefix
            ):
                for reported in page.get("Contents", []):
                    key = reported.get("Key", "").removeprefix(start)
                    found[key] = StoredObject(
                        key,
                        reported.get("Size", 0),
                        reported.get("LastModified", datetime.now(UTC)),
                    )
        # Sorted: AWS sends them so, SeaweedFS sends a/b before a-b. A key that ends with / is what
        # a web console makes for "new folder".
        return tuple(found[key] for key in sorted(found) if not key.endswith("/"))

    @waited_for
    def delete(self, key: str) -> None:
        full = self._full(key)
        with self._errors_reported(full):
            self.client.delete_object(Bucket=self.bucket, Key=full)

    @waited_for
    def touch(self, key: str, content: bytes) -> bool:
        return self._while_it_has(key, content, partial(self.client.put_object, Body=content))

    @waited_for
    def delete_own(self, key: str, content: bytes) -> None:
        self._while_it_has(key, content, self.client.delete_object)

    def _while_it_has(self, key: str, content: bytes, change: Callable[..., Any]) -> bool:
        """Whether the object had just this content and was changed: S3's If-Match, which a server
        that does not know it passes over."""
        full = self._full(key)
        place = {"Bucket": self.bucket, "Key": full}
        with suppress(ObjectMissing), self._errors_reported(full):
            found = self.client.get_object(Bucket=self.bucket, Key=full)
            if found["Body"].read() != content:
                return False
            try:
                change(**place, IfMatch=found["ETag"])
            except ClientError as error:
                if error_code(error) in TAKEN:
                    return False
                if error_code(error) not in NO_CONDITIONS:
                    raise
                change(**place)
            return True
        return False

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        return iter(self._unfinished(prefix))

    @waited_for
    def _unfinished(self, prefix: str) -> tuple[Unfinished, ...]:
        found: list[Unfinished] = []
        if self.prefix:
            start = f"{self.prefix}/"
        else:
            start = ""
        with self._errors_reported(start + prefix):
            for page in self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=start + prefix
            ):
                for upload in page.get("Uploads", []):
                    key = upload.get("Key", "")
                    if key.startswith(start + prefix):
                        begun = upload.get("Initiated", datetime.now(UTC))
                        found.append(
                            Unfinished(key.removeprefix(start), begun, upload.get("UploadId", ""))
                        )
        return tuple(found)

    @waited_for
    def discard(self, unfinished: Unfinished) -> None:
        full = self._full(unfinished.key)
        with self._errors_reported(full):
            try:
                self.client.abort_multipart_upload(
                    Bucket=self.bucket, Key=full, UploadId=unfinished.handle
                )
            except ClientError as error:
                if error_code(error) != "NoSuchUpload":
                    raise

    def check(self) -> None:
        client = s3_client(self.bucket, max_attempts=CHECK_ATTEMPTS)
        full = self._full(f".check-{uuid.uuid4().hex}")
        with self._errors_reported(self.prefix):
            client.put_object(Bucket=self.bucket, Key=full, Body=b"hagane")
            client.get_object(Bucket=self.bucket, Key=full)["Body"].read()
            client.delete_object(Bucket=self.bucket, Key=full)

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{checked_key(key)}".removeprefix("/")

    def _put_if_absent(self, full: str, content: bytes) -> bool:
        """Whether the object was put; False if one is there, or another writer was at it."""
        with self._errors_reported(full):
            try:
                self.client.put_object(Bucket=self.bucket, Key=full, Body=content, IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) not in TAKEN:
                    raise
                return False
        return True

    @contextmanager
    def _errors_reported(self, full: str) -> Iterator[None]:
        """An error of boto3 inside leaves as the StoreError that tells it."""
        try:
            yield
        except ALL_ERRORS as error:
            raise store_error(self._in_full(error, full), self._place(full)) from None

    def _in_full(self, error: Exception, full: str) -> Exception:
        """For the answer to a HEAD, which has no body to name bucket, key or reason: what a GET of
        the same is answered."""
        if error_code(error) in ("400", "403", "404"):
            try:
                self.client.get_object(Bucket=self.bucket, Key=full)["Body"].close()
            except ALL_ERRORS as fuller:
                return fuller
        return error

    def _place(self, full: str) -> S3Place:
        return S3Place(self.bucket, full, self.client.meta.endpoint_url, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        """Strings that no line may hold: the keys in use, wherever they are from (variables, a
        profile, a pod's role)."""
        with suppress(*ALL_ERRORS):
            signer: Any = self.client._request_signer  # pyright: ignore[reportAttributeAccessIssue] - boto3 tells the keys nowhere else
            if signer._credentials is None:
                keys = None
            else:
                keys = signer._credentials.get_frozen_credentials()
            if keys is None:
                return ()
            return tuple(key for key in keys if key)
        return ()


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            value = zlib.crc32(block, value)
    return value
