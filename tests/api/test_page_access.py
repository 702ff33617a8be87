"""The page in a browser, of a daemon that asks who comes: it wants a token, and shows what its bearer may do."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_guarded import Guarded, guarded_app
from api_stack import WEB
from live import serving_tcp

sys.path.append(str(Path(__file__).resolve().parents[1] / "e2e"))

from browser import ENTER, Page, chromium

from api.access.identity import LISTENER_KEY, LOOPBACK, PEER_KEY


@pytest.fixture
def daemon() -> Iterator[Guarded]:
    """A daemon with a service, where who comes without a token may do nothing."""
    with guarded_app() as daemon:
        daemon.allow(loopback=None)
        daemon.unix().post("/v1/services", json=WEB).raise_for_status()
        yield daemon


@pytest.fixture
def page(daemon: Guarded, tmp_path: Path) -> Iterator[Page]:
    """Its page, on a loopback address."""

    async def by_loopback(scope: Any, receive: Any, send: Any) -> None:
        scope.update({LISTENER_KEY: LOOPBACK, PEER_KEY: None})
        await daemon.app(scope, receive, send)

    with chromium(tmp_path / "profile") as browser, serving_tcp(by_loopback) as url:
        yield Page(browser, url)
        browser.get("about:blank")


def sign_in(page: Page, token: str) -> None:
    field = page.one('dialog input[name="token"]')
    field.clear()
    field.send_keys(token, ENTER)


def test_signing_in(daemon: Guarded, page: Page) -> None:
    """Nothing is shown before a valid token is given; a viewer gets no buttons, an operator those of its role."""
    page.browser.get(page.url)
    sign_in(page, "slt_made-up")
    page.until("it is refused", lambda: "not valid" in "".join(page.texts("dialog .refusal")))
    assert page.texts("#badges .badge") == []

    sign_in(page, daemon.token("viewer", "guest"))
    page.until("who it is", lambda: page.texts("#identity") == ["token guest · viewer"])
    page.button("Expand all").click()
    page.until("a backend", lambda: page.row("b/web/10.0.0.11"))
    assert page.texts("tr.backend .act") == []
    assert not page.one("#block").is_enabled()
    assert page.run("return localStorage.length") == 0

    page.one("#identity").click()
    sign_in(page, daemon.token("operator", "ann"))
    page.until("who it is", lambda: page.texts("#identity") == ["token ann · operator"])
    page.button("Expand all").click()
    page.button("Drain 10.0.0.11 of web").click()
    page.button("Drain", "dialog").click()
    page.until("it drains", lambda: page.row("b/web/10.0.0.11").get("state") == "◐draining")
    drained = [line for line in daemon.audit() if line.path.endswith("/drain")]
    assert [(line.actor, line.status) for line in drained] == [("token ann", 202)]

    daemon.unix().put(
        "/v1/config",
        json=daemon.unix().get("/v1/config").json()
        | {"rules": [{"name": "no-ntp", "action": "drop", "protocol": "udp", "ports": "123"}]},
        params={"confirm_within_seconds": 600},
    ).raise_for_status()
    page.until("what waits", lambda: page.all('.banner[data-key="confirm"]'))
    assert page.all(".banner button") == []  # that is for admins


def test_who_gives_no_token_is_asked_once(page: Page) -> None:
    """The dialog does not come back by itself; the bar has the way to it, and the banner says why there are no data."""
    page.browser.get(page.url)
    page.one("dialog")
    page.button("Cancel", "dialog").click()
    page.until("the banner", lambda: page.all('.banner[data-key="stale"]'))
    page.until(
        "some polls",
        lambda: (
            page.run("return performance.getEntriesByName(arguments[0]).length", f"{page.url}/v1/status") > 1
        ),
    )

    assert page.all("dialog") == []
    page.button("Sign in").click()
    page.one("dialog")
