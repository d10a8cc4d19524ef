"""A hub on this machine that the real huggingface_hub talks to: its addresses, headers and codes, as far as one model
is made, uploaded in a commit, and read back by revision. Tokens are checked; large files go by LFS."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

TOKEN = "hf_local"


class Hub(ThreadingHTTPServer):
    """Repositories by name: commits, newest last, each the files of its tree; and what was asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = dict[str, list[dict[str, bytes]]]()
        self.private, self.objects, self.asked = dict[str, bool](), dict[str, bytes](), list[str]()
        self.thread = Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


def commit(number: int) -> str:
    """The name of a commit."""
    return hashlib.sha1(str(number).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, code: int, value: Any = None, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value if value is not None else {}).encode()
        self.send_response(code)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def allowed(self) -> bool:
        """Whether the request has the token; answers it where it has not."""
        self.server.asked.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer(401, {"error": "Invalid username or password."}, X_Error_Message="Invalid username or password.")
        return False

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        content = self.body()
        if not self.allowed():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.server.repositories:
                self.answer(
                    409, {"error": "You already created this model repo", "url": f"{self.server.address}/{name}"}
                )
                return
            self.server.repositories[name] = []
            self.server.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            self.answer(200, {"url": f"{self.server.address}/{name}"})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", self.path):
            files = json.loads(content)["files"]
            modes = {True: "lfs", False: "regular"}
            large = (".safetensors", ".png")
            self.answer(200, {"files": [
                {"path": file["path"], "uploadMode": modes[file["path"].endswith(large)], "shouldIgnore": False}
                for file in files
            ]})  # fmt: skip
        elif re.fullmatch(r"/[\w.-]+/[\w.-]+\.git/info/lfs/objects/batch", self.path):
            self.answer(200, {"transfer": "basic", "objects": [
                one | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]})  # fmt: skip
        elif found := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", self.path):
            self.committed(found[1], [json.loads(line) for line in content.splitlines()])
        else:
            self.answer(404, {"error": "no such address"})

    def committed(self, name: str, lines: list[dict[str, Any]]) -> None:
        commits = self.server.repositories[name]
        tree = dict(commits[-1]) if commits else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                tree[value["path"]] = self.server.objects[value["oid"]]
        commits.append(tree)
        oid = commit(len(commits))
        self.answer(200, {"commitUrl": f"{self.server.address}/{name}/commit/{oid}", "commitOid": oid})

    def do_PUT(self) -> None:
        content, oid = self.body(), self.path.removeprefix("/lfs/")
        self.server.asked.append(f"PUT {self.path}")
        if hashlib.sha256(content).hexdigest() != oid:
            self.answer(400, {"error": "another content"})
            return
        self.server.objects[oid] = content
        self.answer(200)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([\w.-]+)/([\w./-]+)", self.path)
        listed = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(revision|tree)/([\w.-]+)(\?.*)?", self.path)
        if listed and (commits := self.server.repositories.get(listed[1])):
            last, name = len(commits), listed[1]
            facts = {"id": name, "modelId": name, "sha": commit(last), "siblings": [], "private": False, "tags": []}
            tree = [{"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for path, content in commits[-1].items()]  # fmt: skip
            self.answer(200, facts if listed[2] == "revision" else tree)
            return
        commits = self.server.repositories.get(found[1], []) if found else []
        closed = found and self.server.private.get(found[1]) and TOKEN not in self.headers.get("Authorization", "")
        if found is None or not commits or closed:  # a private one is not told from one that is missing
            code = 404 if TOKEN in self.headers.get("Authorization", "") else 401
            self.answer(code, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            return
        names = {"main": len(commits)} | {commit(n): n for n in range(1, len(commits) + 1)} | {"v1": 1}
        if found[2] not in names:
            self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            return
        content = commits[names[found[2]] - 1].get(found[3])
        if content is None:
            self.answer(404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.answer(200, content, ETag=etag, X_Repo_Commit=commit(names[found[2]]), Accept_Ranges="none")
