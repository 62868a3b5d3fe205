"""A small Hub on this machine: repositories in memory, the parts of the API that pushing and loading a model use."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

__all__ = ["run_hub"]

Commits = list[dict[str, bytes]]


class Hub(ThreadingHTTPServer):
    """The server; `repos` holds the files of every commit of each repository, the latest last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Commits] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def name_commit(index: int) -> str:
    return hashlib.sha1(str(index).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request; "main" is the latest commit."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.send_file(*found.groups())
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/([^/]+))?", path):
            return self.send_info(found[1], found[2] or "main")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            sha, files = self.find_commit(*found.groups())
            listed = [{"type": "file", "path": name, "size": len(data), "oid": sha} for name, data in files.items()]
            return self.send_json(listed)
        return self.send_json({"error": path}, 404, {"X-Error-Code": "EntryNotFound"})  # as of folders

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            is_new = name not in self.server.repos
            self.server.repos.setdefault(name, [{}])
            return self.send_json({"url": f"{self.server.url}/{name}", "name": name}, 200 if is_new else 409)
        if path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return self.send_json({"errors": [], "warnings": []})
        repo, what = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if what == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self.send_json({"files": files})
        changed = dict(self.server.repos[repo][-1])
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                changed[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        self.server.repos[repo].append(changed)
        sha = name_commit(len(self.server.repos[repo]) - 1)
        return self.send_json({"commitUrl": f"{self.server.url}/{repo}/commit/{sha}", "commitOid": sha})

    def find_commit(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]]:
        commits = self.server.repos[repo]
        shas = [name_commit(index) for index in range(len(commits))]
        index = len(commits) - 1 if revision == "main" else shas.index(revision)
        return shas[index], commits[index]

    def send_info(self, repo: str, revision: str) -> None:
        if repo not in self.server.repos:
            return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        sha, files = self.find_commit(repo, revision)
        card = yaml.safe_load(files["README.md"].decode().split("---")[1]) if "README.md" in files else {}
        return self.send_json(
            {
                "id": repo,
                "modelId": repo,
                "sha": sha,
                "siblings": [{"rfilename": name} for name in files],
                "cardData": card,
                **{name: card.get(name) for name in ("pipeline_tag", "library_name", "tags")},
            }
        )

    def send_file(self, repo: str, revision: str, name: str) -> None:
        if repo not in self.server.repos:
            return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        sha, files = self.find_commit(repo, revision)
        if name not in files:
            return self.send_json({"error": name}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"'}
        return self.send(files[name], 200, headers)

    def send_json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Not a word."""


@contextlib.contextmanager
def run_hub() -> Iterator[Hub]:
    """A Hub for the block."""
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
