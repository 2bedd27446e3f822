"""Drive the installed Firefox through its own WebDriver BiDi: no driver program is needed.

Playwright can't drive an unpatched Firefox and geckodriver is no Debian package; Firefox itself
listens for the protocol on a WebSocket.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PREFERENCES = """
user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.getAddons.cache.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,none");
user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
"""


class Firefox:
    """One headless Firefox with one tab.

    Attributes:
        console: what the pages said: console messages and uncaught errors, as text.
        requests: addresses asked for over a network; Firefox tells nothing of files.
    """

    def __init__(self, program: str, profile: Path) -> None:
        """Start it and wait until it listens.

        Args:
            program: the Firefox.
            profile: an empty folder for its profile.
        """
        from websockets.sync.client import connect

        (profile / "user.js").write_text(PREFERENCES)
        log = profile / "firefox.log"
        with log.open("wb") as said:
            listen = ("--remote-debugging-port", "0")
            self._process = subprocess.Popen(
                [program, "--headless", "--no-remote", "--profile", str(profile), *listen],
                stdout=said,
                stderr=said,
            )
        self.console: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)
        self._socket = connect(
            _address(log, self._process) + "/session", max_size=None, open_timeout=60
        )
        self._ask("session.new", capabilities={})
        wanted = ["log.entryAdded", "network.beforeRequestSent"]
        self._ask("session.subscribe", events=wanted)
        tree = self._ask("browsingContext.getTree")
        self._tab = tree["contexts"][0]["context"]

    def __enter__(self) -> Firefox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def goto(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._ask("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def size(self, width: int, height: int) -> None:
        """Set the size of what is seen, in CSS pixels."""
        viewport = {"width": width, "height": height}
        self._ask("browsingContext.setViewport", context=self._tab, viewport=viewport)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression gives in the page; its value must be JSON."""
        said = self._ask(
            "script.evaluate",
            expression=f"JSON.stringify({expression})",
            target={"context": self._tab},
            awaitPromise=True,
        )
        if said["type"] == "exception":
            raise AssertionError(said["exceptionDetails"]["text"])
        return json.loads(said["result"]["value"]) if "value" in said["result"] else None

    def until(self, condition: str, seconds: float = 10) -> None:
        """Wait until a condition holds in the page."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise AssertionError(f"it never came to {condition}")
            time.sleep(0.03)

    def press(self, key: str) -> None:
        """Press and release a key: a letter, or an arrow by its WebDriver code point."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._ask(
            "input.performActions",
            context=self._tab,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=60))
            if said.get("type") == "event":
                self._note(said["method"], said["params"])
            elif said.get("id") == number:
                if said["type"] == "error":
                    raise AssertionError(f"{method}: {said['error']}: {said['message']}")
                result: dict[str, Any] = said["result"]
                return result

    def _note(self, event: str, given: dict[str, Any]) -> None:
        if event == "log.entryAdded":
            self.console.append(f"{given['level']}: {given['text']}")
        elif given["request"]["url"].startswith(("http:", "https:", "ws:", "wss:")):
            self.requests.append(given["request"]["url"])


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    for _ in range(1200):
        found = re.search(
            r"WebDriver BiDi listening on (ws://\S+)", log.read_text("utf-8", "replace")
        )
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"Firefox did not start: {log.read_text('utf-8', 'replace')[-500:]}")
