"""As much of Hugging Face's server as a static Space or a set of images needs, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_testing"


class Hub(ThreadingHTTPServer):
    """A server that keeps Spaces and data sets: their files, and what each commit did."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.spaces: dict[str, dict[str, bytes]] = {}
        self.made: list[dict[str, Any]] = []
        self.commits: list[list[str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, space: str, lines: list[dict[str, Any]]) -> None:
        files = self.spaces[space]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.commits.append([f"{line['key']} {line['value'].get('path', '')}" for line in lines])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""

    def reply(self, content: Any, status: int = 200, **headers: str) -> None:
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    def missing(self, code: str) -> None:
        self.reply({"error": code}, 404, X_Error_Code=code)

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply({"error": "not signed in"}, 401)
            return
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            self.server.made.append(told)
            there = name in self.server.spaces
            self.server.spaces.setdefault(name, {})
            self.reply({"url": f"{self.server.address}/spaces/{name}"}, 409 if there else 200)
            return
        parts = path.removeprefix("/api").split("/")[2:]
        name = "/".join(parts[:2])
        files = self.server.spaces.get(name)
        if files is None:
            self.missing("RepoNotFound")
            return
        asked = parts[2] if len(parts) > 2 else ""
        if path.startswith("/api"):
            self.reply(self.of_space(name, files, asked, body))
        else:
            file = "/".join(parts[4:])
            if file not in files:
                self.missing("EntryNotFound")
                return
            content = files[file]
            self.reply(content, ETag=f'"{len(content)}"', X_Repo_Commit="0" * 40)

    do_GET = do_POST = do_HEAD = answer  # noqa: N815 - the library's names

    def of_space(self, name: str, files: dict[str, bytes], asked: str, body: bytes) -> Any:
        entries = [
            {"type": "file", "path": path, "size": len(content), "oid": sha1(content).hexdigest()}
            for path, content in files.items()
        ]
        if asked == "tree":
            return entries
        if asked == "paths-info":
            wanted = json.loads(body)["paths"]
            return [entry for entry in entries if entry["path"] in wanted]
        if asked == "preupload":
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return {"files": modes}
        if asked == "commit":
            self.server.commit(name, [json.loads(line) for line in body.splitlines()])
            url = f"{self.server.address}/spaces/{name}/commit/{'0' * 40}"
            return {"commitUrl": url, "commitOid": "0" * 40, "hookOutput": ""}
        return {"id": name, "sha": "0" * 40, "siblings": [], "private": False, "tags": []}


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve Spaces while it lasts."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
