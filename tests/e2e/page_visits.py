"""Parts of a visit to the page that take several steps."""

import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import browser as browsers
import httpx
import inside
import traffic
from browser import ENTER, Page
from place import Lab
from rerun import CHECKOUT
from topology import Role

sys.path.insert(0, str(CHECKOUT / "tests" / "api"))

from authority import Authority

PORT, TLS_PORT = 80, 8443


def client_address(lab: Lab, number: int) -> str:
    return lab.configuration.of_role(Role.CLIENT)[number - 1].address(4)


def ask(lab: Lab, vip: str, flows: int, *, client: int = 1, patience: float = 3.0) -> dict[str | None, int]:
    """How many new connections each backend got; None: nobody."""
    return dict(
        traffic.count(
            traffic.run(lab.namespace(Role.CLIENT, client), "tcp", vip, PORT, flows, patience=patience)
        )
    )


def look_for_talkers(page: Page, lab: Lab, vip: str) -> None:
    """Top talkers, while two clients send: who, how much and what became of it; put together otherwise; and no more."""
    first, second = client_address(lab, 1), client_address(lab, 2)

    def seen() -> set[str]:
        ask(lab, vip, 20)
        ask(lab, vip, 2, client=2, patience=0.2)
        return set(page.texts("#talkers tbody td:nth-child(1), #talkers tbody td:nth-child(4)"))

    page.button("Look").click()
    page.until("both, and what became of it", lambda: {first, second, "TX_IPIP", "DROP_BLOCKLIST"} <= seen())
    assert "packets/s in all" in page.texts("#talkers .empty")[0]
    page.one('#talkers-controls option[value="service"]').click()
    page.until("by service", lambda: "web" in seen())
    assert page.texts("#talkers th")[0] == "service"
    assert page.all("#talkers tbody button") == []
    page.button("Stop").click()
    page.button("Look")


def tls_options(folder: Path) -> tuple[str, ...]:
    """What makes a daemon listen on TLS_PORT, by a certificate that no browser knows."""
    certificate, key = Authority(folder, "authority").issue("edge")
    return "--listen", f"127.0.0.1:{TLS_PORT}", "--tls-cert", str(certificate), "--tls-key", str(key)


def look_by_tls(lab: Lab, http: httpx.Client, page: Page) -> None:
    """The same browser at the daemon's own TLS port, which is in the balancer's namespace."""

    def connect() -> socket.socket:
        there = ("127.0.0.1", TLS_PORT)
        return inside.call(lab.namespace(Role.BALANCER), lambda: socket.create_connection(there))

    role = {"name": "guest", "role": "viewer"}
    token = http.post("/v1/tokens", json=role).raise_for_status().json()["token"]
    page.browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
    with browsers.relayed(connect, "https") as url:
        page.browser.get(url)
        field = page.one('dialog input[name="token"]')
        assert page.row("s/web") == {}
        field.send_keys(token, ENTER)
        page.until("the row is there", lambda: page.row("s/web"))
        assert page.texts("#identity") == ["token guest · viewer"]
        assert page.run("return [location.protocol, isSecureContext]") == ["https:", True]
        assert not page.one("#block").is_enabled()
        assert page.console_errors(401) >= 1
        page.gather()
        page.browser.get("about:blank")
    page.browser.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": False})
    http.delete("/v1/tokens/guest").raise_for_status()
    asked = {request for request in page.requests if request.startswith("https:")}
    assert {urlsplit(request).netloc for request in asked} == {urlsplit(url).netloc}
    page.requests = [request for request in page.requests if request not in asked]
