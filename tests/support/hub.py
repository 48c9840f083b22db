"""A small server on loopback that answers as huggingface.co does: no test may need the real one."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    files: Mapping[str, bytes] = {}
    """Set by `serve_hub`."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rsplit("/", 1)[-1]
        if "/missing/" in path:
            return self._send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})
        if "/gated/" in path:
            return self._send(403, b"{}", with_body, {"X-Error-Code": "GatedRepo"})
        if "/status-" in path:
            return self._send(int(path.partition("/status-")[2][:3]), b"{}", with_body, {})
        if "/broken/" in path and "/resolve/" in path and with_body:
            return self._send(403, b"{}", with_body, {})
        if "/api/" in path and "/revision/" in path:
            known = name in ("main", "v1")
            body = {"id": "org/tiny", "sha": COMMIT, "siblings": []}
            return self._send(
                200 if known else 404,
                json.dumps(body).encode(),
                with_body,
                {} if known else {"X-Error-Code": "RevisionNotFound"},
            )
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": file, "size": len(content), "oid": _etag(content)}
                for file, content in self.files.items()
            ]
            return self._send(200, json.dumps(tree).encode(), with_body, {})
        content = self.files[path.partition("/resolve/")[2].partition("/")[2]]
        return self._send(
            200, content, with_body, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(content)}"'}
        )

    def _send(self, status: int, body: bytes, with_body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serve_hub(
    files: Mapping[str, bytes], *, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Every repository, model or data set, has these files inside the block; owners such as `gated`
    are refused."""
    handler = type("Hub", (_Hub,), {"files": files})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    yield
    server.shutdown()
    server.server_close()
