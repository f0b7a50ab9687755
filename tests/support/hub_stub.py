"""A hub on this machine: as much of its HTTP protocol as huggingface_hub needs to create, upload and download.

What it stores can be looked at in `repositories`; `fail` makes requests fail. The protocol is that of
https://huggingface.co/.well-known/openapi.json and of Git LFS's batch API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from support.paths import ROOT, TESTS

TOKEN, USER = "hf_of_the_stub", "me"
NOWHERE = "http://127.0.0.1:9"  # nothing listens on port 9
LARGE = (".safetensors", ".bin")


@dataclass
class Repository:
    """Files by branch and path; the messages of all commits."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str) -> str:
        """Name of a branch's newest commit: its place among the branches."""
        return f"{list(self.branches).index(branch):040x}"


class Hub:
    """The state of the server. requests: (method, path) of all, in their order."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self.large_files: dict[str, bytes] = {}
        self._failures: Counter[str] = Counter()
        self._status, self._body = 503, b""

    def fail(self, pattern: str, times: int, body: bytes = b"<html>busy</html>", status: int = 503) -> None:
        """Answer the next requests whose path matches with an error; clients repeat those that have 503 for long."""
        self._failures[pattern] = times
        self._status, self._body = status, body

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON or bytes, and headers."""
        self.requests.append((method, path))
        for pattern, left in self._failures.items():
            if left > 0 and re.search(pattern, path):
                self._failures[pattern] -= 1
                return self._status, self._body, {}
        for of, pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method in of.split("|"):
                if of != "GET|HEAD" and "/lfs-store/" not in path and token != TOKEN:
                    return 401, {"error": "Invalid credentials"}, {}
                if of == "GET|HEAD" and token != TOKEN and self._is_private(match[1]):
                    return 401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"}
                return handler(self, body, *map(unquote, match.groups()))
        return 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}

    def _is_private(self, name: str) -> bool:
        return name in self.repositories and self.repositories[name].private

    def create(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        asked = json.loads(body)
        name = f"{asked['organization'] or USER}/{asked['name']}"
        status = 409 if name in self.repositories else 200
        if status == 200:
            self.repositories[name] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
        return status, {"url": f"{self.endpoint}/{name}", "error": "exists"}, {}

    def branch(self, body: bytes, name: str, branch: str) -> tuple[int, Any, dict[str, str]]:
        branches = self.repositories[name].branches
        if branch in branches:
            return 409, {"error": "exists"}, {}
        branches[branch] = dict(branches["main"])
        return 200, {}, {}

    def validate(self, body: bytes) -> tuple[int, Any, dict[str, str]]:
        """The card as the hub reads it: metadata with a model-index that huggingface_hub understands."""
        from huggingface_hub import ModelCard

        try:
            ModelCard(json.loads(body)["content"])
        except ValueError as error:
            return 400, {"errors": [{"message": str(error)}], "warnings": []}, {}
        return 200, {"errors": [], "warnings": []}, {}

    def preupload(self, body: bytes, name: str, branch: str) -> tuple[int, Any, dict[str, str]]:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return 200, {"files": files}, {}

    def batch(self, body: bytes, name: str) -> tuple[int, Any, dict[str, str]]:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.endpoint}/lfs-store/{asked['oid']}", "header": {}}}}
            for asked in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}, {}

    def store(self, body: bytes, oid: str) -> tuple[int, Any, dict[str, str]]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "other bytes than promised"}, {}
        self.large_files[oid] = body
        return 200, {}, {}

    def commit(self, body: bytes, name: str, branch: str) -> tuple[int, Any, dict[str, str]]:
        repository = self.repositories[name]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.messages.append(value["summary"])
            elif entry["key"] == "file":
                repository.branches[branch][value["path"]] = base64.b64decode(value["content"])
            else:
                repository.branches[branch][value["path"]] = self.large_files[value["oid"]]
        oid = f"{len(repository.messages):040x}"
        return 200, {"commitUrl": f"{self.endpoint}/{name}/commit/{oid}", "commitOid": oid, "success": True}, {}

    def info(self, body: bytes, name: str, branch: str = "main") -> tuple[int, Any, dict[str, str]]:
        if name not in self.repositories:
            return 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}
        files = self.repositories[name].branches.get(branch)
        if files is None:
            return 404, {"error": f"Invalid rev id: {branch}"}, {"X-Error-Code": "RevisionNotFound"}
        listed = [{"rfilename": path} for path in files]
        return 200, {"id": name, "sha": self.repositories[name].commit(branch), "siblings": listed, "tags": []}, {}

    def file(self, body: bytes, name: str, branch: str, path: str) -> tuple[int, Any, dict[str, str]]:
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"}
        content = repository.branches[branch].get(path)
        if content is None:
            return 404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"}
        return (
            200,
            content,
            {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repository.commit(branch)},
        )


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", Hub.create),
    ("POST", "/api/validate-yaml", Hub.validate),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", Hub.branch),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", Hub.preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", Hub.commit),
    ("POST", f"/{_NAME}\\.git/info/lfs/objects/batch", Hub.batch),
    ("PUT", "/lfs-store/(.+)", Hub.store),
    ("GET|HEAD", f"/api/models/{_NAME}", Hub.info),
    ("GET|HEAD", f"/api/models/{_NAME}/revision/(.+)", Hub.info),
    ("GET|HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", Hub.file),
]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A running hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet: the second of two would wait 40 ms for the first's acknowledgement

        def respond(self) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            path = urlsplit(self.path).path
            status, content, headers = hub.answer(self.command, path, token, self._body())
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        do_GET = do_HEAD = do_POST = do_PUT = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))  # seconds until it sees its shutdown
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def environment(endpoint: str, home: Path, *, token: str | None = None, offline: bool = False) -> dict[str, str]:
    """The environment of a process whose huggingface_hub knows this hub alone, and keeps everything below `home`.

    It reads its settings once, when it is imported, so a test needs a process of its own.
    """
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",  # LFS is the part of the protocol that is documented
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "PYTHONPATH": f"{ROOT}:{TESTS}",
        **({} if token is None else {"HF_TOKEN": token}),
    }


def run_with_hub(
    script: str, endpoint: str, home: Path, *, token: str | None = None, offline: bool = False, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run Python in such an environment."""
    settings = environment(endpoint, home, token=token, offline=offline)
    return subprocess.run(
        [sys.executable, "-c", script], cwd=cwd, env=settings, capture_output=True, text=True, check=False
    )
