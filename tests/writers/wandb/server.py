"""As much of W&B's server as an upload needs, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef" * 2 + "01234567"
QUICKLY = {"RETRY_MAX": "1", "RETRY_WAIT_MIN_SECONDS": "0.1", "RETRY_WAIT_MAX_SECONDS": "0.2"}
"""How long W&B waits for a server in tests."""


class Server(ThreadingHTTPServer):
    """As much of W&B's server as an upload needs; it keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.uploads: dict[str, bytes] = {}
        self.streamed: list[Any] = []
        self.artifacts: dict[tuple[str, str], dict[str, Any]] = {}
        """Those that were logged, by collection and digest."""
        self.ids: dict[str, str] = {}
        """The id of each artifact, by that which its client gave it."""
        self.held: set[str] = set()
        """MD5 of the files of artifacts, which are not asked for again."""
        self.requests = 0
        self.refuse: list[int] = []
        """Statuses that the next uploads are refused with."""
        self.until: int | None = None
        """Uploads after which it hangs up for good."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hung up."""

    def answer(  # noqa: PLR0911
        self, operation: str, given: dict[str, Any]
    ) -> dict[str, Any]:
        inside = given.get("input") or given
        upload = f"{self.address}/upload"
        if operation == "UpsertBucket":
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "team"}}
            bucket = {
                "id": "b",
                "name": given["name"],
                "displayName": given["displayName"] or "training",
            }
            bucket |= {"description": "", "config": "{}", "sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": True}}
        if operation == "RunResumeStatus":  # a training of fifty steps
            ends = {"logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]", "config": "{}"}
            tail = json.dumps([json.dumps({"_step": 49})])
            bucket = {"id": "b", "name": given["name"], "displayName": "training", **ends}
            bucket |= {"historyLineCount": 50, "historyTail": tail, "tags": []}
            bucket |= {"summaryMetrics": json.dumps({"_step": 49}), "wandbConfig": '{"t": 1}'}
            entity = {"id": "e", "name": "team"}
            return {"model": {"id": "p", "name": "maps", "entity": entity, "bucket": bucket}}
        if operation in {"Viewer", "GetDefaultEntity"}:
            return {"viewer": {"id": "v", "entity": "team", "username": "v", "flags": "{}"}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "CreateArtifact":
            name = inside["artifactCollectionName"]
            number = base64.b64encode(f"Artifact:{len(self.ids)}".encode()).decode()
            new = {"id": number, "state": "PENDING", "name": name}
            made = self.artifacts.setdefault((name, inside["digest"]), new)
            self.ids[inside["clientID"]] = made["id"]
            sequence = {"id": "s", "latestArtifact": None}
            return {"createArtifact": {"artifact": made | {"artifactSequence": sequence}}}
        if operation == "ClientIDMapping":
            return {"clientIDMapping": {"serverID": self.ids[given["clientID"]]}}
        if operation == "CreateArtifactManifest":
            file = {"id": "f", "name": "manifest", "displayName": "wandb_manifest.json"}
            file |= {"uploadUrl": f"{upload}/manifest/{given['artifactID']}", "uploadHeaders": []}
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CreateArtifactFiles":
            nodes = [
                {
                    "id": str(number),
                    "name": file["name"],
                    "displayName": file["name"],
                    "uploadUrl": None
                    if file["md5"] in self.held
                    else f"{upload}/{file['artifactID']}/{file['name']}",
                    "uploadHeaders": [],
                    "storagePath": "s",
                    "uploadMultipartUrls": None,
                    "artifact": {"id": file["artifactID"]},
                }
                for number, file in enumerate(inside["artifactFiles"])
            ]
            return {"createArtifactFiles": {"files": {"edges": [{"node": n} for n in nodes]}}}
        if operation == "CommitArtifact":
            for made in self.artifacts.values():
                if made["id"] == inside["artifactID"]:
                    made["state"] = "COMMITTED"
            return {"commitArtifact": {"artifact": {"id": inside["artifactID"], "digest": "d"}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{upload}/run/{name}"} for name in given["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet."""

    def body(self) -> bytes:
        self.server.requests += 1
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while length := int(self.rfile.readline(), 16):
            whole += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def reply(self, content: dict[str, Any], status: int = 200) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def do_GET(self) -> None:
        self.body()
        self.reply({})

    def do_PUT(self) -> None:
        content = self.body()
        if self.server.until is not None and len(self.server.uploads) >= self.server.until:
            self.close_connection = True
            self.connection.close()
            return
        if self.server.refuse:
            self.reply({"error": "the disk is full"}, self.server.refuse.pop())
            return
        self.server.uploads[self.path.removeprefix("/upload/")] = content
        self.server.held.add(base64.b64encode(hashlib.md5(content).digest()).decode())
        self.reply({})

    def do_POST(self) -> None:
        content = self.body()
        if self.path != "/graphql":
            self.server.streamed.append(json.loads(content))
            self.reply({})
            return
        query = json.loads(content)
        named = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
        operation = query.get("operationName") or (named[1] if named else "")
        given = query.get("variables") or {}
        self.server.operations.append((operation, given))
        self.reply({"data": self.server.answer(operation, given)})


@contextmanager
def serving(kind: type[Server] = Server) -> Iterator[Any]:
    """Run a server inside the block."""
    with kind() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
