"""A way to the S3 server on which answers get lost, bodies break off and bits flip.

No real network can be made to fail at a chosen request, so this HTTP proxy stands in for one; the
server behind it is real.
"""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal[
    "lose_answer",
    "cut_answer",
    "flip_request_bit",
    "reset_request",
    "stall",
    "busy",
    "expired",
    "no_bucket",
]
ANSWERS = {
    "busy": (
        503,
        b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
    ),
    "expired": (
        400,
        (
            b"<Error><Code>ExpiredToken</Code><Message>The provided token has "
            b"expired.</Message></Error>"
        ),
    ),
    "no_bucket": (
        404,
        (
            b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not "
            b"exist</Message></Error>"
        ),
    ),
}
STALL_S = 30.0
SIGN_OF_LIFE = ".writer-"
"""In the path of what `hagane run` asks every 20 s to hold its run: not counted, as it is no
request of a step."""


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to `endpoint`; a request of a method with faults left meets the first of
    them."""

    daemon_threads = True

    def __init__(self, endpoint: str, *, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.behind = urlsplit(endpoint).netloc
        self.faults: dict[str, list[Fault]] = {}
        self.from_now_on: Fault | None = None
        """A fault that every request meets, of whatever method."""
        self.num_requests = 0
        self.before_each: Callable[[], None] = lambda: None

    @property
    def endpoint(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self) -> None:
        proxy = self.server
        assert isinstance(proxy, FaultyProxy)
        if SIGN_OF_LIFE not in self.path:
            proxy.num_requests += 1
        proxy.before_each()
        faults = proxy.faults.get(self.command, [])
        fault = proxy.from_now_on or (faults.pop(0) if faults else None)
        num_bytes = int(self.headers.get("Content-Length") or 0)
        if fault == "reset_request":
            self.rfile.read(num_bytes // 2)
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # close sends RST, socket(7)
            self.connection.close()
            self.close_connection = True
            return
        body = bytearray(self.rfile.read(num_bytes))
        if fault == "stall":
            time.sleep(STALL_S)
        if fault in ANSWERS:
            status, content = ANSWERS[fault]
            self.answer(status, [("Content-Type", "application/xml")], content)
            return
        if fault == "flip_request_bit":
            body[-1] ^= 1
        behind = http.client.HTTPConnection(proxy.behind)
        # The Host header stays the proxy's: it is part of what the client signed.
        behind.request(self.command, self.path, bytes(body), dict(self.headers.items()))
        response = behind.getresponse()
        content = response.read()
        behind.close()
        if fault == "lose_answer":
            self.close_connection = True
            return
        self.answer(response.status, response.getheaders(), content, cut=fault == "cut_answer")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815 - http.server's names

    def answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name not in ("Transfer-Encoding", "Connection", "Content-Length"):
                self.send_header(name, value)
        lengths = [value for name, value in headers if name == "Content-Length"]
        self.send_header(
            "Content-Length",
            lengths[0] if lengths and self.command == "HEAD" else str(len(content)),
        )
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test that fails says more."""


@contextmanager
def faulty_proxy(endpoint: str, *, host: str = "127.0.0.1") -> Iterator[FaultyProxy]:
    """A proxy before `endpoint` that runs inside the block, with no faults yet."""
    with FaultyProxy(endpoint, host=host) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
