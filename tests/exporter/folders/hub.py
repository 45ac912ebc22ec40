"""A server on this machine that answers huggingface_hub's own client as the hub does, and the client in a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

SHA = hashlib.sha1(b"the only commit").hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[str]:
    """A hub with these repositories, at the address that it gives; ``refs``: main, v1 and the commit."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repositories))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(repositories: Mapping[str, Path]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            parts = parts[2:] if api else parts
            folder = repositories.get("/".join(parts[:2]))
            if folder is None:
                return self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            kind, revision, *rest = parts[2:] if len(parts) > 3 else ["revision", "main"]
            if revision not in ("main", "v1", SHA):
                return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
            files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
            if api and kind == "revision":
                told = {"id": "/".join(parts[:2]), "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
                return self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"}, body)
            if api:
                tree = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _oid(path)}
                    for name, path in files.items()
                ]
                return self._send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
            path = files.get("/".join(rest))
            if path is None:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            head = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": SHA}
            return self._send(200, path.read_bytes(), head, body)

        def _send(self, status: int, content: bytes, head: Mapping[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**head, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the tests' output is for failures."""

    return Handler


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


_FIND = """
import json, sys
from eptx.errors import EptxError
from eptx.exporter.folders import find_arguments
for arguments in json.loads(sys.argv[1]):
    try:
        paths = [each for each in arguments if each != "--allow-pickle"]
        found = find_arguments(paths, allow_pickle=paths != arguments)
        print(json.dumps([str(found.base), *map(str, found.adapters)]))
    except EptxError as error:
        print(json.dumps({"code": error.exit_code, "said": str(error)}))
"""


def find(
    home: Path, endpoint: str, *commands: list[str], offline: bool = False, cwd: Path | None = None
) -> list[object]:
    """What each list of arguments is found to be, in a process whose hub is at `endpoint` and whose cache in `home`."""
    return [json.loads(line) for line in _python(home, endpoint, offline, cwd, "-c", _FIND, json.dumps(commands))]


def eptx(home: Path, endpoint: str, *arguments: str, offline: bool = False) -> list[str]:
    """The lines that a command prints."""
    return _python(home, endpoint, offline, None, "-m", "eptx", *arguments)


def _python(home: Path, endpoint: str, offline: bool, cwd: Path | None, *arguments: str) -> list[str]:
    env = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": str(int(offline))}
    env |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=240, env=env, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
