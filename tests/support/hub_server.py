"""A server on this machine that plays the Hub, before another one that keeps its large files."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def blob_of(content):
    """Git's identifier of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A model on the Hub.

    Args:
        files: Path to bytes.
        commit: Of all its revisions.
        gated: Whether a token is wanted for its files.
        private: Whether a token is wanted to see it at all.
        license: What its card states.
        states: Path to what the Hub states of a file in place of the truth: sha256, size.
        lists: Further entries of its list of files.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False
    private: bool = False
    license: str = "mit"
    states: dict[str, dict] = field(default_factory=dict)
    lists: list[dict] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        hub = self.server
        with hub.guard:
            hub.requests.append((self.path, dict(self.headers)))
        with contextlib.suppress(OSError):
            self._answer(hub)
        self.close_connection = True

    def do_POST(self):
        self._take(self._publish)

    def do_PUT(self):
        self._take(self._store)

    def _take(self, answer):
        hub, body = self.server, self._body()
        with hub.guard:
            hub.requests.append((self.path, dict(self.headers)))
        with contextlib.suppress(OSError):
            answer(hub, urlsplit(self.path).path, body)
        self.close_connection = True

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _store(self, hub, path, body):
        """A large file, at the address that the Hub gave for it; no token is wanted there."""
        hub.stored[path.rpartition("/")[2]] = body
        return self._send(200, b"", {})

    def _publish(self, hub, path, body):
        """The steps of an upload, in the words of the Hub."""
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._refuse(401, "RepoNotFound")
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            # Versions of the client say it in one of two ways.
            private = asked.get("private") or asked.get("visibility") == "private"
            hub.repos[name] = Repo({}, private=private)
            return self._json({"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            places = [self._place(hub, item) for item in json.loads(body)["objects"]]
            return self._json({"transfer": "basic", "objects": places})
        name = "/".join(path.split("/")[3:5])
        repo = hub.repos[name]
        if "/preupload/" in path:
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo.files[value["path"]] = hub.stored[value["oid"]]
        made = {"commitUrl": f"{hub.url}/{name}/commit/{repo.commit}", "commitOid": repo.commit}
        return self._json({**made, "hookOutput": ""})

    def _place(self, hub, wanted):
        return {**wanted, "actions": {"upload": {"href": f"{hub.url}/storage/{wanted['oid']}"}}}

    def _json(self, content):
        return self._send(200, json.dumps(content).encode(), JSON)

    def _answer(self, hub):
        path = unquote(urlsplit(self.path).path)
        if path in hub.answers:
            return self._send(*hub.answers[path])
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo_name = "/".join(parts[2:4] if api else parts[:2])
        repo = hub.repos.get(repo_name)
        allowed = self.headers.get("Authorization") == f"Bearer {hub.token}"
        if repo is None or (repo.private and not allowed):
            return self._refuse(401, "RepoNotFound")
        revision = (parts[5:] or ["main"])[0] if api else parts[3]
        if revision not in ("main", "v1", repo.commit):
            return self._refuse(404, "RevisionNotFound")
        if api:
            return self._send(200, json.dumps(self._describe(repo_name, repo)).encode(), JSON)
        if repo.gated and not allowed:
            return self._refuse(401, "GatedRepo")
        return self._file(hub, repo, "/".join(parts[4:]))

    def _describe(self, name, repo):
        listed = []
        for path, content in repo.files.items():
            item = {"rfilename": path, "size": len(content), "blobId": blob_of(content)}
            if path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                stated = {"sha256": digest, "size": len(content)} | repo.states.get(path, {})
                item |= {"size": stated["size"], "lfs": stated, "blobId": "0" * 40}
            listed.append(item)
        return {
            "id": name,
            "sha": repo.commit,
            "gated": "manual" if repo.gated else False,
            "private": repo.private,
            "cardData": {"license": repo.license},
            "siblings": [*listed, *repo.lists],
        }

    def _file(self, hub, repo, path):
        content = repo.files.get(path)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        common = {"X-Repo-Commit": repo.commit}
        if path.endswith(LARGE):
            place = f"{hub.storage}/{path}"
            digest = hashlib.sha256(content).hexdigest()
            large = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            return self._send(302, b"", {**common, **large, "Location": place})
        return self._send(200, content, {**common, "ETag": f'"{blob_of(content)}"'})

    def _refuse(self, status, code):
        text = f"<html>{code}</html>".encode()
        return self._send(status, text, {"X-Error-Code": code, "Content-Type": "text/html"})

    def _send(self, status, body, headers):
        self.send_response(status)
        usual = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(len(body)),
            "Connection": "close",  # or a client keeps one that is closed a moment later
        }
        for key, value in (usual | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


JSON = {"Content-Type": "application/json; charset=utf-8"}


class Hub(ThreadingHTTPServer):
    """The Hub: `repos` by name, `storage` the address of the server of large files.

    `answers` gives (status, body, headers) in place of the right answer, by path.
    """

    daemon_threads = True
    token = "hf_of_the_tests"

    def __init__(self, storage):
        super().__init__(("127.0.0.1", 0), Handler)
        self.storage = storage
        self.repos = {}
        self.stored = {}
        self.answers = {}
        self.requests = []
        self.guard = threading.Lock()

    def handle_error(self, *args):
        pass

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(server):
    """A server that answers on a thread of its own."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
