"""A server on loopback that takes pushes as huggingface.co does, by LFS; Xet's protocol is not in
it.

It keeps every commit's files. A request to /api without the token is answered with status 401.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

Answer = tuple[int, Any]


@dataclass
class HubRepository:
    """One repository, `repo_id`, that is not there before it is made."""

    repo_id: str
    token: str
    endpoint: str = ""
    private: bool | None = None
    """None before it is made."""
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{}])
    """Of main, oldest first; each has all files of the repository."""
    messages: list[str] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)
    """Tag -> place in `commits`."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    asked: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    """Regular expression for `METHOD /path` -> status with which it is answered."""

    @property
    def env(self) -> dict[str, str]:
        """The variables by which the real client reaches it."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
        }

    def commit_id(self, place: int) -> str:
        return f"{place:040x}"

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        for match, status in self.refused.items():
            if re.search(match, f"{method} {path}"):
                return status, {"error": "as the test wants it"}
        for pattern, answer in ROUTES.items():
            found = re.fullmatch(
                pattern.replace("{id}", re.escape(self.repo_id)), f"{method} {path}"
            )
            if found is not None:
                return answer(self, body, *found.groups())
        return 404, {"error": f"no such page: {method} {path}"}

    def who(self, body: bytes) -> Answer:
        return 200, {"type": "user", "name": "somebody", "orgs": []}

    def validate_card(self, body: bytes) -> Answer:
        front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
        errors = [] if isinstance(front, dict) else [{"message": "no mapping"}]
        return 400 if errors else 200, {"errors": errors, "warnings": []}

    def create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        owner, _, name = self.repo_id.partition("/")
        url = {"url": f"{self.endpoint}/{self.repo_id}"}
        if self.private is not None:
            return 409, {"error": "You already created this model repo"} | url
        if (asked.get("organization", owner), asked["name"]) != (owner, name):
            return 403, {"error": "not your organization"}
        self.private = asked.get("private", asked.get("visibility") == "private")
        return 200, url

    def refs(self, body: bytes) -> Answer:
        main = {"name": "main", "ref": "refs/heads/main"}
        main["targetCommit"] = self.commit_id(len(self.commits) - 1)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": self.commit_id(place)}
            for name, place in self.tags.items()
        ]
        return 200, {"branches": [main], "converts": [], "tags": tags}

    def revision(self, body: bytes) -> Answer:
        siblings = [{"rfilename": name} for name in self.commits[-1]]
        sha = self.commit_id(len(self.commits) - 1)
        return 200, {"id": self.repo_id, "sha": sha, "siblings": siblings}

    def tree(self, body: bytes) -> Answer:
        return 200, [
            {"type": "file", "path": name, "size": len(content), "oid": _blob(content)}
            for name, content in self.commits[-1].items()
        ]

    def preupload(self, body: bytes) -> Answer:
        files: list[dict[str, Any]] = []
        for each in json.loads(body)["files"]:
            there = self.commits[-1].get(each["path"])
            is_large = each["path"].endswith(".safetensors")
            known = None
            if there is not None:
                known = hashlib.sha256(there).hexdigest() if is_large else _blob(there)
            mode = "lfs" if is_large else "regular"
            files.append(
                {"path": each["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known}
            )
        return 200, {"files": files}

    def batch(self, body: bytes) -> Answer:
        objects = [
            {**each, "actions": {"upload": {"href": f"{self.endpoint}/lfs/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def put(self, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "not these bytes"}
        self.objects[oid] = body
        return 200, {}

    def commit(self, body: bytes) -> Answer:
        files = dict(self.commits[-1])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            else:
                del files[value["path"]]
        self.commits.append(files)
        oid = self.commit_id(len(self.commits) - 1)
        url = f"{self.endpoint}/{self.repo_id}/commit/{oid}"
        return 200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""}

    def tag(self, body: bytes, revision: str) -> Answer:
        name = json.loads(body)["tag"]
        if name in self.tags:
            return 409, {"error": "the tag is there"}
        self.tags[name] = int(revision, 16)
        return 200, {}

    def file(self, body: bytes, revision: str, name: str) -> Answer:
        place = self.tags.get(revision, len(self.commits) - 1)
        content = self.commits[place].get(name)
        return (404, {"error": "no such file"}) if content is None else (200, content)


ROUTES: dict[str, Any] = {
    "GET /api/whoami-v2": HubRepository.who,
    "POST /api/validate-yaml": HubRepository.validate_card,
    "POST /api/repos/create": HubRepository.create,
    "GET /api/models/{id}/refs": HubRepository.refs,
    "GET /api/models/{id}(?:/revision/main)?": HubRepository.revision,
    "GET /api/models/{id}/tree/[^/]+": HubRepository.tree,
    "POST /api/models/{id}/preupload/main": HubRepository.preupload,
    "POST /{id}.git/info/lfs/objects/batch": HubRepository.batch,
    "PUT /lfs/([0-9a-f]{64})": HubRepository.put,
    "POST /api/models/{id}/commit/main": HubRepository.commit,
    "POST /api/models/{id}/tag/([^/]+)": HubRepository.tag,
    "(?:GET|HEAD) /{id}/resolve/([^/]+)/(.+)": HubRepository.file,
}


class _Handler(BaseHTTPRequestHandler):
    repository: HubRepository
    """Set by `hub_repository`."""

    def _handle(self) -> None:
        repository = self.repository
        path = self.path.partition("?")[0]
        body = self._body()
        repository.asked.append(f"{self.command} {path}")
        allowed = self.headers.get("Authorization") == f"Bearer {repository.token}"
        needs_token = path.startswith("/api/") or ".git/" in path
        status, answer = 401, {"error": "Invalid username or password."}
        if allowed or not needs_token:
            status, answer = repository.answer(self.command, path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", repository.commit_id(len(repository.commits) - 1))
        self.send_header("ETag", f'"{_blob(content)}"')
        if status == 404 and "/resolve/" in path:
            self.send_header("X-Error-Code", "EntryNotFound")  # by which the client knows it
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _body(self) -> bytes:
        """Whole, also where the client sends it in chunks, as it does a commit."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while num_bytes := int(self.rfile.readline(), 16):
            body += self.rfile.read(num_bytes)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def log_message(self, format: str, *args: object) -> None:
        pass


def _blob(content: bytes) -> str:
    """As Git names it."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub_repository(repo_id: str, *, token: str) -> Iterator[HubRepository]:
    repository = HubRepository(repo_id, token)
    handler = type("Handler", (_Handler,), {"repository": repository})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    repository.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield repository
    server.shutdown()
    server.server_close()
