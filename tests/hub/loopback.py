"""A server on 127.0.0.1 with the part of the Hub's protocol that huggingface_hub uses to push and pull.

A model is stored under its name, a data set under `datasets/` and its name, a Space under `spaces/` and its name. Every
commit is a revision that can be requested. Files that exist are not uploaded again: the server lists them, as the Hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard

CUT = 0  # as a status: the connection is closed without an answer


@dataclass
class Repository:
    """A repository: its privacy, its kind of Space, and its files at each commit, the newest last."""

    private: bool
    sdk: str | None = None
    lfs: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit({})

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.head]

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a revision, or None."""
        commit = self.head if revision == "main" else revision
        return (commit, self.commits[commit]) if commit in self.commits else None

    def commit(self, changed: dict[str, bytes]) -> str:
        files = (self.files if self.commits else {}) | changed
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[name] = files
        return name


@dataclass
class Request:
    """A request as it arrived; the body of an LFS upload is its content."""

    method: str
    path: str
    body: bytes


class Hub(ThreadingHTTPServer):
    """The state behind the handler: repositories, LFS objects, every request, and failures planted by a test."""

    daemon_threads = True

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.failures: list[list[Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fail(self, method: str, path: str, status: int, times: int = 10**6) -> None:
        """Respond with `status` to the next `times` requests with this method whose path matches the pattern."""
        self.failures.append([method, path, status, times])

    def count(self, method: str, path: str) -> int:
        """Return the number of requests with this method whose path matches the pattern."""
        return sum(one.method == method and bool(re.search(path, one.path)) for one in self.requests)


@contextmanager
def serve(token: str) -> Iterator[Hub]:
    """A running Hub that accepts one token."""
    hub = Hub(token)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the server stores the requests."""

    def do_GET(self) -> None:
        self._handle(b"")

    def do_HEAD(self) -> None:
        self._handle(b"")

    def do_POST(self) -> None:
        self._handle(self._body())

    def do_PUT(self) -> None:
        self._handle(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(Request(self.command, path, body))
        for failure in self.server.failures:
            method, pattern, status, times = failure
            if times and method == self.command and re.search(pattern, path):
                failure[3] -= 1
                if status == CUT:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return None
                return self._json({"error": f"planted {status}"}, status)
        if not path.startswith("/lfs/") and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._json({"error": "Invalid username or password."}, 401)
        for method, pattern, answer in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return answer(self, body, *(group for group in match.groups() if group is not None))
        return self._json({"error": f"{path} is not served"}, 404)

    def _json(self, content: object, status: int = 200, code: str = "") -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", "X-Error-Code": code})

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if value:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _create(self, body: bytes) -> None:
        requested = json.loads(body)
        name = f"{requested['organization']}/{requested['name']}"
        if requested.get("type") in ("dataset", "space"):
            name = f"{requested['type']}s/{name}"
        if name in self.server.repositories:
            return self._json({"error": "You already created this model repo", "url": f"{self.server.url}/{name}"}, 409)
        private = requested.get("private", requested.get("visibility") == "private")
        self.server.repositories[name] = Repository(private, requested.get("sdk"))
        return self._json({"url": f"{self.server.url}/{name}", "name": name, "id": _id(name)})

    def _info(self, body: bytes, name: str, revision: str = "main") -> None:
        if name not in self.server.repositories:
            return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
        repository = self.server.repositories[name]
        found = repository.at(revision)
        if found is None:
            return self._json({"error": f"Invalid rev id: {revision}"}, 404, "RevisionNotFound")
        siblings = [{"rfilename": file} for file in found[1]]
        return self._json(
            {
                "id": _id(name),
                "sha": found[0],
                "private": repository.private,
                "siblings": siblings,
                "tags": [],
            }
        )

    def _tree(self, body: bytes, name: str, revision: str, folder: str = "") -> None:
        repository = self.server.repositories[name]
        found = repository.at(revision)
        start = f"{folder}/" if folder else ""
        below = {file: content for file, content in (found or ("", {}))[1].items() if file.startswith(start)}
        if found is None or (folder and not below):
            return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
        requested = parse_qs(urlsplit(self.path).query)
        if requested.get("recursive", ["false"])[0].lower() in ("true", "1"):
            return self._entries(repository, below)
        # Files right in the folder, and the folders in it.
        rest = {file: file.removeprefix(start) for file in below}
        folders = dict.fromkeys(start + name.partition("/")[0] for name in rest.values() if "/" in name)
        return self._entries(repository, {file: below[file] for file, name in rest.items() if "/" not in name}, folders)

    def _paths_info(self, body: bytes, name: str, revision: str) -> None:
        repository = self.server.repositories[name]
        requested = parse_qs(body.decode()).get("paths", [])
        _, files = repository.at(revision) or ("", {})
        return self._entries(repository, {file: content for file, content in files.items() if file in requested})

    def _entries(self, repository: Repository, files: dict[str, bytes], folders: Iterable[str] = ()) -> None:
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": one, "size": 0, "oid": _git_name(one.encode())} for one in folders
        ]
        for file, content in files.items():
            entry = {"type": "file", "path": file, "size": len(content), "oid": _git_name(content)}
            if file in repository.lfs:
                sha = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": sha, "sha256": sha, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        return self._json(entries)

    def _validate(self, body: bytes) -> None:
        """The checks of a card that can be made without the Hub's lists: its header, and the results in it."""
        requested = json.loads(body)
        try:
            card = {"model": ModelCard, "space": SpaceCard}.get(requested["repoType"], DatasetCard)(
                requested["content"]
            )
            faults = [] if isinstance(card, DatasetCard) or card.data.to_dict() else ["the header is empty"]
        except (ValueError, yaml.YAMLError) as error:
            faults = [str(error)]
        self._json({"errors": [{"message": fault} for fault in faults], "warnings": []}, 400 if faults else 200)

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        stored = self.server.repositories[name].files
        files = []
        for file in json.loads(body)["files"]:
            lfs, content = file["path"].endswith(_LFS), stored.get(file["path"])
            known = None if content is None else hashlib.sha256(content).hexdigest() if lfs else _git_name(content)
            mode = "lfs" if lfs else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self._json({"files": files, "commitOid": self.server.repositories[name].head})

    def _batch(self, body: bytes, name: str) -> None:
        objects = []
        for one in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.server.url}/lfs/{one['oid']}", "header": {}}}
            objects.append(one if one["oid"] in self.server.objects else {**one, "actions": upload})
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._json({"error": "the content is not what its name says"}, 422)
        self.server.objects[oid] = body
        return self._send(b"", 200, {})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        repository, changed = self.server.repositories[name], {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                changed[value["path"]] = self.server.objects[value["oid"]]
                repository.lfs.add(value["path"])
        oid = repository.commit(changed)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{name}/commit/{oid}"})

    def _resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if name not in self.server.repositories:
            return self._json({"error": "Repository not found"}, 404, "RepoNotFound")
        found = self.server.repositories[name].at(revision)
        if found is None:
            return self._json({"error": f"Invalid rev id: {revision}"}, 404, "RevisionNotFound")
        commit, files = found
        if file not in files:
            return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
        etag = hashlib.sha256(files[file]).hexdigest()
        return self._send(files[file], 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})


def _id(name: str) -> str:
    return name.removeprefix("datasets/").removeprefix("spaces/")


def _git_name(content: bytes) -> str:
    """The name that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_LFS = (".safetensors", ".parquet", ".onnx", ".pt2", ".jpg", ".png")
_NAME = r"((?:datasets/|spaces/)?[\w.-]+/[\w.-]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate),
    ("GET", rf"/api/(?:models/)?{_NAME}", _Handler._info),
    ("GET", rf"/api/(?:models/)?{_NAME}/revision/([^/]+)", _Handler._info),
    ("GET", rf"/api/(?:models/)?{_NAME}/tree/([^/]+)(?:/(.+))?", _Handler._tree),
    ("POST", rf"/api/(?:models/)?{_NAME}/paths-info/([^/]+)", _Handler._paths_info),
    ("POST", rf"/api/(?:models/)?{_NAME}/preupload/([^/]+)", _Handler._preupload),
    ("POST", rf"/api/(?:models/)?{_NAME}/commit/([^/]+)", _Handler._commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", r"/lfs/([0-9a-f]{64})", _Handler._put),
    ("HEAD", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("GET", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
]
