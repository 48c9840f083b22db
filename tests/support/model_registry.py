"""A server on loopback with the calls of Kubeflow's Model Registry that its client makes.

Every body is read by the classes that the package `model-registry` has made from the registry's
published OpenAPI document, and one with a field that the document does not have is refused.
"""

import importlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ROOT = "/api/model_registry/v1"
Tree = dict[str, Any]


@dataclass
class ModelRegistryServer:
    token: str = ""
    """Asked of every request; empty asks for none."""
    address: str = ""
    models: list[Tree] = field(default_factory=list)
    versions: list[Tree] = field(default_factory=list)
    artifacts: list[Tree] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """`METHOD /path` of every request."""
    healthy_requests: int | None = None
    """The first ones; each later one is answered with status 503. None: all are."""
    refused: str | None = None
    """Regular expression for `METHOD /path`s that are answered with status 503."""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if self._is_down():
            return 503, {"code": "UNAVAILABLE", "message": "as the test wants it"}
        parts = path.removeprefix(f"{ROOT}/").split("/")
        if method == "GET":
            return self._get(parts, query)
        tree = json.loads(body)
        if parts == ["registered_models"]:
            return self._add(self.models, tree, "RegisteredModelCreate")
        if parts[0] == "registered_models" and parts[2:] == ["versions"]:
            return self._add(self.versions, tree, "ModelVersionCreate")
        if parts == ["model_versions"]:
            return self._add(self.versions, tree, "ModelVersionCreate")
        if parts[0] == "model_versions" and parts[2:] == ["artifacts"]:
            parent = {"parent": parts[1]}
            return self._add(self.artifacts, tree, "ModelArtifactCreate", **parent)
        return 404, {"code": "NOT_FOUND", "message": f"{method} {path}"}

    def _is_down(self) -> bool:
        healthy = self.healthy_requests
        if healthy is not None and len(self.asked) > healthy:
            return True
        return self.refused is not None and re.search(self.refused, self.asked[-1]) is not None

    def _get(self, parts: list[str], query: dict[str, str]) -> tuple[int, Any]:
        name = query.get("name")
        if parts == ["registered_models"]:
            return 200, page(self.models)
        if parts == ["registered_model"]:
            return one(each for each in self.models if each["name"] == name)
        parent = query.get("parentResourceId")
        if parts == ["model_version"]:
            found = (each for each in self.versions if each["registeredModelId"] == parent)
            return one(each for each in found if each["name"] == name)
        if parts == ["model_artifact"]:
            found = (each for each in self.artifacts if each["parent"] == parent)
            return one(each for each in found if each["name"] == name)
        return 404, {"code": "NOT_FOUND", "message": "/".join(parts)}

    def _add(self, place: list[Tree], tree: Tree, kind: str, **more: str) -> tuple[int, Any]:
        document = getattr(importlib.import_module("mr_openapi.models"), kind)
        tree = {"artifactType": "model-artifact", **tree} if "parent" in more else tree
        known = {each.alias or name for name, each in document.model_fields.items()}
        unknown = sorted(tree.keys() - known)
        if unknown:
            return 400, {"code": "BAD_REQUEST", "message": f"{kind} has no {unknown}"}
        try:
            document.model_validate(tree)
        except ValueError as error:
            return 400, {"code": "BAD_REQUEST", "message": str(error)}
        made = {**tree, **more, "id": str(len(place) + 1)}
        place.append(made)
        return 201, shown(made)


def page(found: list[Tree]) -> Tree:
    items = [shown(each) for each in found]
    return {"items": items, "nextPageToken": "", "pageSize": 1, "size": len(items)}


def one(found: Iterator[Tree]) -> tuple[int, Any]:
    first = next(found, None)
    if first is None:
        return 404, {"code": "NOT_FOUND", "message": "no such thing"}
    return 200, shown(first)


def shown(tree: Tree) -> Tree:
    return {key: value for key, value in tree.items() if key != "parent"}


class _Handler(BaseHTTPRequestHandler):
    registry: ModelRegistryServer
    """Set by `model_registry_server`."""

    def _handle(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wanted = self.registry.token
        status, answer = 401, {"code": "UNAUTHORIZED", "message": "who are you"}
        if not wanted or self.headers.get("Authorization") == f"Bearer {wanted}":
            query = dict(parse_qsl(address.query))
            status, answer = self.registry.answer(self.command, address.path, query, body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _handle  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def model_registry_server(*, token: str = "") -> Iterator[ModelRegistryServer]:
    registry = ModelRegistryServer(token)
    handler = type("Handler", (_Handler,), {"registry": registry})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    registry.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield registry
    server.shutdown()
    server.server_close()
