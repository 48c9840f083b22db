"""A way to the S3 server on which answers get lost, bodies break off and bits flip.

No real network can be told to fail at a chosen request, so this HTTP proxy stands in for one; the server behind it is real.
"""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["lose_answer", "cut_answer", "busy", "flip_request_bit"]
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to `endpoint`; a request of a method with faults left meets the first of them."""

    daemon_threads = True

    def __init__(self, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(endpoint).netloc
        self.faults: dict[str, list[Fault]] = {}
        self.num_requests = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that went away is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def pass_on(self) -> None:
        proxy = self.server
        assert isinstance(proxy, FaultyProxy)
        proxy.num_requests += 1
        faults = proxy.faults.get(self.command, [])
        fault = faults.pop(0) if faults else None
        body = bytearray(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if fault == "busy":
            self.answer(503, [("Content-Type", "application/xml")], BUSY)
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

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815  http.server's names

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name not in ("Transfer-Encoding", "Connection", "Content-Length"):
                self.send_header(name, value)
        lengths = [value for name, value in headers if name == "Content-Length"]
        self.send_header("Content-Length", lengths[0] if lengths and self.command == "HEAD" else str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test that fails says more."""


@contextmanager
def faulty_proxy(endpoint: str) -> Iterator[FaultyProxy]:
    """A proxy before `endpoint` that runs inside the block, with no faults yet."""
    with FaultyProxy(endpoint) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
