"""A real Chromium without a window, spoken to by the DevTools protocol over two pipes; standard library only.

with Browser() as browser:
    page = browser.open(path, width=390, height=844)
    page.evaluate("document.title"), page.problems, page.requests, page.screenshot(dark=True)
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60  # seconds for one answer
GONE = ("Inspected target navigated", "context was destroyed", "Cannot find context")  # Chromium's words for it
LOADED = "document.readyState + location.protocol === 'completefile:'"


def find_chromium() -> str:
    """The program, or a skipped test with the reason."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium here (looked for {', '.join(NAMES)}): apt-get install chromium")
    return found


class Navigated(RuntimeError):
    """The page that was asked has made room for the next one."""


class Browser:
    """One browser process with a profile of its own."""

    def __enter__(self) -> "Browser":
        chromium = find_chromium()  # before there is anything to clear away
        self.profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        flags = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-extensions"
        quiet = "--disable-background-networking --disable-component-update --disable-dev-shm-usage --disable-sync"
        command = (
            f"exec {chromium} {flags} {quiet} --remote-debugging-pipe --user-data-dir={self.profile.name} "
            f"about:blank 3<&{theirs_in} 4>&{theirs_out}"
        )
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.buffer, self.number, self.events = b"", 0, []  # type: ignore[var-annotated]
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (RuntimeError, subprocess.TimeoutExpired, OSError):
            self.process.kill()
            self.process.wait()
        os.close(self.to)
        os.close(self.back)
        self.profile.cleanup()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; whatever comes before it is an event."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.to, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._read()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            reason = str(answer["error"])
            kind = Navigated if any(word in reason for word in GONE) else RuntimeError
            raise kind(f"{method}: {reason}")
        result: dict[str, Any] = answer.get("result", {})
        return result

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.back], [], [], max(0.0, end - time.monotonic()))[0]:
                raise RuntimeError(f"Chromium has not answered for {PATIENCE} s")
            part = os.read(self.back, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(
        self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, first: str | None = None
    ) -> "Page":
        """A page as a window of that size shows it, a phone below 600 px; `first` runs before its scripts."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        page.emulate(dark=dark)
        if first:
            page.call("Page.addScriptToEvaluateOnNewDocument", source=first)
        page.call("Page.navigate", url=path.resolve().as_uri())
        page.wait_until(LOADED)
        return page


class Page:
    """One tab, and all that it has complained of and asked for."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def wait_until(self, condition: str) -> None:
        """Wait for a condition that a navigation under way brings about, and may interrupt the question for."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate_and_leave(condition):
            if time.monotonic() > end:
                raise RuntimeError(f"has not come true for {PATIENCE} s: {condition}")
            time.sleep(0.05)

    def evaluate_and_leave(self, expression: str) -> Any:
        """The value of an expression, or None if the page has gone before it could answer."""
        try:
            return self.evaluate(expression)
        except Navigated:
            return None

    def emulate(self, *, dark: bool = False, media: str = "screen") -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, full: bool = True) -> bytes:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        return base64.b64decode(shot["data"])

    def _events(self, *methods: str) -> list[dict[str, Any]]:
        self.evaluate("0")  # fetches what has come in the meantime
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [event["params"] for event in mine if event["method"] in methods]

    @property
    def problems(self) -> list[str]:
        """Errors, warnings and words on the console."""
        return [
            json.dumps(event)
            for event in self._events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        ]

    @property
    def requests(self) -> list[str]:
        """Everything asked for but the page itself and what it carries in it."""
        asked = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in asked[1:] if not url.startswith("data:")]

    def axe(self, script: str) -> list[str]:
        """What axe-core finds wrong: rule, place, reason."""
        self.evaluate(script + "; 0")
        found = self.evaluate("axe.run().then(r => JSON.stringify(r.violations))")
        return [
            f"{violation['id']}: {node['target']}: {node['failureSummary']}"
            for violation in json.loads(found)
            for node in violation["nodes"]
        ]
