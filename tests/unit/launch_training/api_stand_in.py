"""An API server that answers as a test says: a few of its answers no real cluster gives on demand.

410 comes once etcd has compacted, five minutes later; a token is exchanged after an hour; a log's connection breaks when it likes.
"""

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from components.shared.job.training_job import KFP_RUN_ANNOTATION

JOBS = "/apis/kubeflow.org/v1/namespaces/runs/pytorchjobs"
Fields = dict[str, Any]


class ApiStandIn(ThreadingHTTPServer):
    """`answer` is asked for each request: path and parameters -> status and body. A list of lines is sent as a watch or log sends them,
    after which the connection breaks; lines of an iterator go out one by one. `change` is asked for what is more than
    a question: verb, path, parameters, body."""

    daemon_threads = True

    def __init__(
        self,
        answer: Callable[[str, dict[str, str]], tuple[int, Fields | Iterable[str]]],
        change: Callable[[str, str, dict[str, str], Fields], tuple[int, Fields]] | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.change = answer, change
        self.token: str | None = None
        """What alone is let in, where it is set."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, ApiStandIn)
        path = urlsplit(self.path)
        parameters = {key: values[0] for key, values in parse_qs(path.query).items()}
        allowed = server.token is None or self.headers.get("Authorization", "").lower() == f"bearer {server.token}"
        if not allowed:
            answered: tuple[int, Fields | Iterable[str]] = (401, {"message": "Unauthorized"})
        elif self.command == "GET":
            answered = server.answer(path.path, parameters)
        else:
            assert server.change is not None
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answered = server.change(self.command, path.path, parameters, json.loads(sent or b"{}"))
        status, body = answered
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if isinstance(body, dict):
            self.send_header("Content-Length", str(len(json.dumps(body))))
        if isinstance(body, Iterator):
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if isinstance(body, Iterator):
            for line in body:
                self.wfile.write(f"{len(line.encode()) + 1:x}\r\n{line}\n\r\n".encode())
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.wfile.write(json.dumps(body).encode() if isinstance(body, dict) else "".join(f"{line}\n" for line in body).encode())

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test that fails says more."""


class JobKeeper:
    """Jobs by name, as an API server keeps them; nothing runs."""

    def __init__(self) -> None:
        self.jobs: dict[str, Fields] = {}

    def answer(self, path: str, parameters: dict[str, str]) -> tuple[int, Fields | list[str]]:
        name = path.removeprefix(JOBS).strip("/")
        if not path.startswith(JOBS) or not name:
            return 200, {"kind": "List", "items": list(self.jobs.values()) if path == JOBS else []}
        return (200, self.jobs[name]) if name in self.jobs else (404, {"message": f'pytorchjobs "{name}" not found'})

    def change(self, verb: str, path: str, parameters: dict[str, str], body: Fields) -> tuple[int, Fields]:
        name = path.removeprefix(JOBS).strip("/")
        if not path.startswith(JOBS):
            return 403, {"message": "who may do what is not told"}
        if verb == "POST" and "dryRun" not in parameters:
            body["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
            self.jobs[body["metadata"]["name"]] = body
        if verb == "PATCH":
            merged = self.jobs[name]["metadata"]["annotations"] | body["metadata"]["annotations"]
            self.jobs[name]["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
        if verb == "DELETE":
            del self.jobs[name]
        return 200, body

    @property
    def owners(self) -> list[str | None]:
        return [job["metadata"]["annotations"].get(KFP_RUN_ANNOTATION) for job in self.jobs.values()]


@contextmanager
def running(server: ApiStandIn) -> Iterator[ApiStandIn]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(server: ApiStandIn, folder: Path) -> Path:
    file = folder / "kubeconfig"
    tree = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "runs"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(tree))
    return file


def serve_tls(server: ApiStandIn, folder: Path) -> Path:
    """Its certificate, which it makes itself."""
    certificate, key = folder / "ca.crt", folder / "ca.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return certificate
