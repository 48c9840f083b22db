"""The stand-in over HTTP: requests in, answers or faults out."""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.support.kfp.answers import (
    GRPC_CODE,
    HTTP_STATUS,
    Refused,
    Tree,
    error_body,
    refuse_unknown,
)
from tests.support.kfp.definitions import REFUSED_UPLOAD
from tests.support.kfp.routes import ROUTES, Route
from tests.support.kfp.runs import node_log
from tests.support.kfp.server import Asked, Fault, KfpServer

PREFIX = "/apis/v2beta1"
LOG_PATH = re.compile(r"/apis/v1alpha1/runs/(?P<run_id>[^/]+)/nodes/(?P<node_id>[^/]+)/log")
LOGIN_PAGE = b"<!doctype html><title>Log in to Dex</title><form method=post></form>"
JSON = "application/json"


@contextmanager
def kfp_server(*, multi_user: bool = False, token: str | None = None) -> Iterator[KfpServer]:
    """A server with nothing in it, at `endpoint` on a free port of this machine, until the block
    ends."""
    server = KfpServer(multi_user=multi_user, token=token)
    handler = type("Handler", (_Handler,), {"server_state": server})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    server.endpoint = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: ClassVar[KfpServer]
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer: 40 ms less for each
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `asked` holds every request."""

    def _serve(self) -> None:
        state = self.server_state
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(
            self.command,
            url.path.removeprefix(PREFIX),
            dict(parse_qsl(url.query, keep_blank_values=False)),
            None,
        )
        with state.lock:
            state.asked.append(asked)
            fault = next(
                (each for each in state.faults if each.times and re.search(each.match, str(asked))),
                None,
            )
            if fault is not None:
                fault.times -= 1
        if fault is not None and self._meets(fault, asked):
            return
        asked.status, answer = self._answer(asked, raw)
        if fault is not None and fault.kind == "drop after":
            self.close_connection = True
            return
        if isinstance(answer, str):
            self._send(asked.status, answer.encode(), "text/plain")
            return
        is_text = answer.get("error_message") == REFUSED_UPLOAD and asked.status == 400
        self._send(
            asked.status,
            json.dumps(answer).encode(),
            "text/plain; charset=utf-8" if is_text else JSON,
        )

    def _meets(self, fault: Fault, asked: Asked) -> bool:
        """Whether the fault was all of the answer."""
        match fault.kind:
            case "slow":
                time.sleep(fault.seconds)
                return False
            case "drop":
                self.close_connection = True
            case "login page":
                self._send(200, LOGIN_PAGE, "text/html; charset=utf-8")
            case "no such page":
                self._send(404, b"<h1>404 Not Found</h1>", "text/html")
            case "status":
                asked.status = fault.status
                code, reason = GRPC_CODE.get(fault.status, 13), f"set to answer {fault.status}"
                body = error_body(code, reason, doing="", upload="/upload" in asked.path)
                self._send(fault.status, json.dumps(body).encode())
            case "drop after":
                return False
        return True

    def _answer(self, asked: Asked, raw: bytes) -> tuple[int, Tree | str]:
        state = self.server_state
        try:
            with state.lock:
                if (
                    state.token is not None
                    and self.headers.get("authorization") != f"Bearer {state.token}"
                ):
                    raise Refused(16, "Request header error: there is no user identity header.")
                if log := LOG_PATH.fullmatch(asked.path):
                    return 200, node_log(state, asked.query, **log.groupdict())
                route, names = _route_of(asked)
                arguments = self._arguments(route, asked, raw)
                answer = json.loads(
                    json.dumps(route.handler(state, asked.query, *arguments, **names))
                )
            if asked.path != "/healthz":  # it says more than its published model
                refuse_unknown(route.answer, answer)
            return 200, answer
        except Refused as refused:
            body = error_body(
                refused.code, refused.reason, doing=refused.doing, upload="/upload" in asked.path
            )
            return HTTP_STATUS[refused.code], body

    def _arguments(self, route: Route, asked: Asked, raw: bytes) -> tuple[Any, ...]:
        arguments: tuple[Any, ...] = ()
        if route.body == "multipart":
            arguments = _file_of(self.headers.get("Content-Type", ""), raw)
        elif route.body is not None:
            asked.body = json.loads(raw or b"{}")
            refuse_unknown(route.body, asked.body)
            arguments = (asked.body,)
        unknown = asked.query.keys() - set(route.query)
        if unknown:
            raise Refused(
                3, f"{asked}: no query parameter {sorted(unknown)}; allowed: {sorted(route.query)}"
            )
        return arguments

    def _send(self, status: int, content: bytes, kind: str = JSON) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _route_of(asked: Asked) -> tuple[Route, dict[str, str]]:
    for route in ROUTES:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(route.path))
        if route.method == asked.method and (found := re.fullmatch(pattern, asked.path)):
            return route, {name: unquote(value) for name, value in found.groupdict().items()}
    raise Refused(12, f"{asked}: the stand-in has no such path")


def _file_of(content_type: str, raw: bytes) -> tuple[str, bytes]:
    """Name and content of the form's field `uploadfile`."""
    message = BytesParser().parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw
    )
    for part in message.walk():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return str(part.get_filename()), content
    raise Refused(3, "Failed to read pipeline from file")
