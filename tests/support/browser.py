"""A real browser for tests: Chromium without a window, driven over two pipes by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from select import select
from time import monotonic
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--disable-background-networking",
    "--remote-debugging-pipe",
)
#: The protocol is spoken on descriptors 3 and 4, which this process may use for something else.
_LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_SECONDS = 30.0


def _pipe() -> tuple[int, int]:
    """A pipe whose descriptors are past 9, so that copying one to 3 or 4 overwrites neither."""
    low = os.pipe()
    high = [fcntl(fd, F_DUPFD_CLOEXEC, 10) for fd in low]
    for fd in low:
        os.close(fd)
    return high[0], high[1]


@dataclass
class Opened:
    """A page that was opened.

    Attributes:
        messages: what it wrote to the console, errors and violations of its policy among them.
        requests: addresses of everything it loaded, itself first.
    """

    browser: Browser
    target: str
    session: str
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.browser.call("Runtime.evaluate", self.session, expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page, also what is below the window, as a PNG file."""
        options = {"format": "png", "captureBeyondViewport": True}
        data = self.browser.call("Page.captureScreenshot", self.session, **options)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Closes it."""
        self.browser.call("Target.closeTarget", targetId=self.target)


class Browser:
    """One Chromium, ended when the context is left."""

    def __enter__(self) -> Browser:
        assert CHROMIUM is not None
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = _pipe()
        self._in, theirs_out = _pipe()
        command = [sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out), CHROMIUM, *_FLAGS]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._home.name}"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._last, self._pages = b"", 0, dict[str, Opened]()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.call("Browser.close")
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._out)
            os.close(self._in)
            self._home.cleanup()

    def open(self, page: Path | str, *, width: int, height: int = 800, dark: bool = False) -> Opened:
        """Opens a page, and returns when it has loaded.

        Args:
            page: a file, or an address.
            width: of the window, in pixels; up to 480 it is a phone's.
            height: of the window.
            dark: whether the reader prefers dark pages.
        """
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        opened = self._pages[session] = Opened(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.show(opened, width=width, height=height, dark=dark)
        self.call("Page.navigate", session, url=page if isinstance(page, str) else page.resolve().as_uri())
        self._read(lambda message: message.get("method") == "Page.loadEventFired" and message["sessionId"] == session)
        return opened

    def show(self, page: Opened, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Shows a page in another window, as `open` has them."""
        phone = {"mobile": width <= 480, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", page.session, width=width, height=height, **phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", page.session, features=[scheme])

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._read(lambda message: message.get("id") == number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Reads until a message is the wanted one, and notes down what pages do."""
        until = monotonic() + _SECONDS
        while True:
            while b"\0" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\0")
                message = json.loads(line)
                self._note(message)
                if wanted(message):
                    return message  # type: ignore[no-any-return]
            ready, _, _ = select([self._in], [], [], max(0.0, until - monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("Chromium does not answer")
            self._buffer += data

    def _note(self, message: dict[str, Any]) -> None:
        page, method, params = (
            self._pages.get(message.get("sessionId", "")),
            message.get("method"),
            message.get("params"),
        )
        if page is None or params is None:
            return
        if method == "Network.requestWillBeSent":
            page.requests.append(params["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            page.messages.append(json.dumps(params))
