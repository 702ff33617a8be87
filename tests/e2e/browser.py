"""A headless Chromium that looks at the page, and the way from it to the daemon's unix socket."""

import base64
import contextlib
import json
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE_SECONDS = 40.0
OUTPUT = Path(__file__).resolve().parents[1] / "output"
"""Screenshots, for whoever wants to see what the tests have seen; not part of the repository."""
DESKTOP, PHONE = (1440, 900), (390, 844)
_FLAGS = (
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
T = TypeVar("T")


class _Relay(socketserver.ThreadingTCPServer):
    """Passes each connection on to where `connect` leads, byte by byte."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.connect = connect
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Passage)

    def end(self) -> None:
        """Cut what is still connected, and wait for the threads."""
        self.shutdown()
        for one in list(self.open):
            _cut(one)
        self.server_close()


class _Passage(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        try:
            there = self.server.connect()
        except OSError:
            return
        with there:
            both = {self.request, there}
            self.server.open |= both
            back = threading.Thread(target=_pump, args=(there, self.request))
            back.start()
            _pump(self.request, there)
            back.join()
            self.server.open -= both


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    _cut(source)
    _cut(sink)


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _to_unix(path: Path) -> socket.socket:
    there = socket.socket(socket.AF_UNIX)
    try:
        there.connect(str(path))
    except OSError:
        there.close()
        raise
    return there


def relay(path: Path) -> contextlib.AbstractContextManager[str]:
    """The unix socket as an address that a browser can open."""
    return relayed(lambda: _to_unix(path))


@contextlib.contextmanager
def relayed(connect: Callable[[], socket.socket], scheme: str = "http") -> Iterator[str]:
    """The end of what `connect` gives as an address that a browser can open; who speaks there decides on TLS."""
    server = _Relay(connect)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.end()
        thread.join()


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("there is no chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={DESKTOP[0]},{DESKTOP[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """The page in a browser. What it should come to is waited for; a fault names what was to be."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser, self.url = browser, url
        self.console: list[str] = []
        self.requests: list[str] = []

    def open(self) -> None:
        """Load it anew, and wait for the first data."""
        self.browser.get(self.url)
        self.until("the badges are there", lambda: self.all("#badges .badge"))

    def until(self, what: str, found: Callable[[], T | bool | None]) -> T:
        """What is found, once it is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(StaleElementReferenceException):
                if result := found():
                    return result  # type: ignore[return-value]
            if time.monotonic() > deadline:
                self.shoot("failed")
                raise AssertionError(f"it did not come to this: {what}")
            time.sleep(0.05)

    def all(self, css: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> WebElement:
        return self.until(f"{css} is there", lambda: next(iter(self.all(css)), None))

    def button(self, label: str, within: str = "body") -> WebElement:
        """The button that is called so, by its text or by its label."""

        def found() -> WebElement | None:
            for button in self.all(f"{within} button"):
                names = (button.text.strip(), button.get_attribute("aria-label"))
                if label in names and button.is_displayed():
                    return button
            return None

        return self.until(f'a button "{label}"', found)

    def press(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    def texts(self, css: str) -> list[str]:
        """The texts of all of these, in one question: the page may redraw meanwhile."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent.trim())"
        return self.run(script, css)

    def row(self, key: str) -> dict[str, str]:
        """The cells of a row of the table by column; empty if it is not there."""
        script = """
            const row = document.querySelector(`tr[data-id="${arguments[0]}"]`);
            const cell = (c) => [c.className.replace("c-", ""), c.textContent.trim()];
            return row && Object.fromEntries([...row.cells].map(cell));
        """
        return self.run(script, key) or {}

    def run(self, script: str, *values: Any) -> Any:
        return self.browser.execute_script(script, *values)

    def width(self, size: tuple[int, int], *, dark: bool = False, still: bool = False) -> None:
        """The window's size, and what the system wants of colours, and whether nothing shall move."""
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        wishes = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def moving(self) -> list[str]:
        """What CSS would move: each kind of element with a transition or an animation that takes time."""
        script = """
            const timed = (style) => [style.transitionDuration, style.animationDuration].join().split(",")
              .some((span) => parseFloat(span) > 0);
            const all = [...document.querySelectorAll("*")];
            return [...new Set(all.filter((e) => timed(getComputedStyle(e))).map((e) => e.className || e.tagName))];
        """
        found: list[str] = self.run(script)
        return found

    def shoot(self, name: str) -> None:
        """The whole page as a picture in OUTPUT."""
        OUTPUT.mkdir(exist_ok=True)
        size = self.run(
            "return [document.documentElement.clientWidth, document.documentElement.scrollHeight]"
        )
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], 4000), "scale": 1}
        shot = self.browser.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
        )
        (OUTPUT / f"page-{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def gather(self) -> None:
        """Take what the browser has logged since: its console, and what was requested."""
        self.console += [line["message"] for line in self.browser.get_log("browser")]
        for line in self.browser.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def console_errors(self, status: int) -> int:
        """How often the browser has told of a refusal with this status, which was meant: off the console with it."""
        self.gather()
        meant = [line for line in self.console if f"the server responded with a status of {status} " in line]
        self.console = [line for line in self.console if line not in meant]
        return len(meant)


ESCAPE, ENTER, DOWN, RIGHT, END, TAB = (
    Keys.ESCAPE,
    Keys.ENTER,
    Keys.ARROW_DOWN,
    Keys.ARROW_RIGHT,
    Keys.END,
    Keys.TAB,
)
