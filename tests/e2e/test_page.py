"""The page at /, in a real browser, of the real daemon, over real packets."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import browser as browsers
import httpx
import lifecycle
import pytest
from axe_core_python.selenium import Axe
from browser import DESKTOP, DOWN, END, ENTER, ESCAPE, PHONE, RIGHT, Page
from page_visits import PORT, ask, client_address, look_by_tls, look_for_talkers, tls_options
from place import Lab
from topology import Role

pytestmark = pytest.mark.timeout(300)  # a browser beside a compiler, on a machine that others use too

AWAY = "Failed to load resource: net::ERR_"
LOOKS = (
    ("desktop-light", DESKTOP, False),
    ("desktop-dark", DESKTOP, True),
    ("phone-dark", PHONE, True),
    ("phone-light", PHONE, False),
)
MARKUP = '<img src=x onerror="alert(1)"><b>bold</b>'


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browsers.chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chromium: Any, lab: Lab, http: httpx.Client) -> Iterator[Page]:
    """The page, not yet open. In the end: nothing was asked of another host, and the console has no word of trouble."""
    with browsers.relay(lab.socket) as url:
        page = Page(chromium, url)
        chromium.get("about:blank")
        page.gather()
        page.console.clear()
        page.requests.clear()
        page.width(DESKTOP)
        yield page
        page.gather()
        chromium.get("about:blank")

    assert page.requests
    assert {urlsplit(request).netloc for request in page.requests} == {urlsplit(url).netloc}
    assert page.console == []


def backends(lab: Lab) -> list[str]:
    return [host.address(4) for host in lab.configuration.of_role(Role.BACKEND)]


def status(http: httpx.Client) -> dict[str, Any]:
    document: dict[str, Any] = http.get("/v1/status").raise_for_status().json()
    return document


def test_what_is_shown_is_what_the_api_says(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any
) -> None:
    """Rows, drops, blocklist, tables and events are those of the API; what an operator wrote is text, not markup."""
    add_service("web", vips[4], "tcp", PORT, labels={"team": "edge <i>"}, weights=(2, 1, 1))
    add_service("dns6", vips[6], "udp", 53, family=6)
    http.post("/v1/services/web/backends/10.0.0.13/drain").raise_for_status()
    blocked = client_address(lab, 2)
    entry = {"prefix": blocked, "reason": MARKUP}
    http.post("/v1/blocklist", json=entry).raise_for_status()
    page.open()
    page.button("Expand all").click()

    ask(lab, vips[4], 60)
    ask(lab, vips[4], 4, client=2, patience=0.3)
    page.until("the drops are told of", lambda: "DROP_BLOCKLIST" in page.texts(".drop-table td:first-child"))
    page.until(
        "a curve has been drawn",
        lambda: (
            "L"
            in page.run(
                "return document.querySelector('tr[data-id=\"s/web\"] .curve-line').getAttribute('d')"
            )
        ),
    )
    document = status(http)
    shown = {
        key: page.row(key)
        for key in page.run("return [...document.querySelectorAll('tr[data-id]')].map((r) => r.dataset.id)")
    }

    expected = {f"s/{s['name']}" for s in document["services"]}
    expected |= {f"b/{s['name']}/{b['address']}" for s in document["services"] for b in s["backends"]}
    assert set(shown) == expected
    assert shown["s/web"]["state"] == "◐2/3 active, 1 draining"
    assert shown["s/web"]["address"] == f"tcp {vips[4]}:{PORT} ipip"
    assert shown["s/dns6"]["address"] == f"udp [{vips[6]}]:53 ipip"
    assert shown["b/web/10.0.0.13"]["state"] == "◐draining"
    assert shown["b/web/10.0.0.11"]["state"] == "●active"
    web = next(s for s in document["services"] if s["name"] == "web")
    for backend in web["backends"]:
        row = shown[f"b/web/{backend['address']}"]
        assert (row["weight"], row["flows"]) == (str(backend["weight"]), str(backend["flows"]))
    badges = page.texts("#badges .badge")
    assert badges[:3] == [
        "● ready",
        f"{lab.names.balancer_interface} · native XDP",
        f"revision {document['revision']}",
    ]
    assert len(page.texts(".fill-row")) == len(document["tables"])
    assert any(MARKUP in text for text in page.texts("#blocklist tbody td"))
    assert page.all("#blocklist img, #blocklist b") == []
    assert any(
        text.startswith("config.changed") or "config.changed" in text for text in page.texts("#events .kind")
    )
    look_for_talkers(page, lab, vips[4])
    page.button("Details of web").click()
    page.until("labels are shown", lambda: "team=edge <i>" in page.texts("dialog dd"))
    page.press(ESCAPE)
    page.shoot("traffic")


def test_health_and_what_waits_to_be_confirmed(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any
) -> None:
    """A backend that fails its check is shown with the reason; what waits to be confirmed is kept by a click."""
    check = {"type": "tcp", "port": 9, "interval_seconds": 0.5, "timeout_seconds": 0.5, "via": "direct"}
    add_service("web", vips[4], "tcp", PORT, health_check=check)
    change = {**http.get("/v1/config").json(), "settings": {"drop_spoofed": False}}
    http.put("/v1/config", json=change, params={"confirm_within_seconds": 600}).raise_for_status()
    page.open()
    page.button("Expand all").click()

    key = f"b/web/{backends(lab)[0]}"
    page.until("it is unhealthy", lambda: page.row(key).get("health", "").startswith("✕unhealthy"))
    seen = status(http)["services"][0]["backends"][0]
    assert seen["health_error"] in page.row(key)["health"]
    page.until("all are", lambda: page.texts("tr.service .c-state") == ["▲3/3 active, 3 failing"])
    page.one("#troubled").click()
    assert page.texts("#services-count") == ["1"]

    waiting = page.texts('.banner[data-key="confirm"] .banner-text')
    assert waiting[0].startswith(
        f"Revision {http.get('/v1/status').json()['revision']} waits to be confirmed"
    )
    page.button("Keep it").click()
    page.until("it is kept", lambda: not page.all('.banner[data-key="confirm"]'))
    assert status(http)["pending"] is None
    assert http.get("/v1/config").json()["settings"]["drop_spoofed"] is False


def test_a_backend_is_drained_by_hand(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any
) -> None:
    """Drained by mouse it gets no new flow, enabled by keyboard it gets some again; only what is confirmed is done."""
    add_service("web", vips[4], "tcp", PORT)
    first = backends(lab)[0]
    page.open()
    page.until("the row is there", lambda: page.row("s/web")).get("name")
    page.all('tr[data-id="s/web"]')[0].click()
    page.button(f"Drain {first} of web").click()

    assert page.one("dialog h2").text == f"Drain {first} of web?"
    page.button("Cancel", "dialog").click()
    assert status(http)["services"][0]["backends"][0]["admin_state"] == "enabled"
    page.button(f"Drain {first} of web").click()
    page.button("Drain", "dialog").click()
    page.until("it drains", lambda: page.row(f"b/web/{first}").get("state") == "◐draining")
    got = ask(lab, vips[4], 90)
    assert set(got) == {"backend2", "backend3"}, got

    page.browser.find_element("tag name", "body").send_keys("s")
    page.press("e")
    assert page.one("dialog h2").text == f"Enable {first} of web?"
    page.press(ENTER)
    page.until("it is active", lambda: page.row(f"b/web/{first}").get("state") == "●active")
    assert set(ask(lab, vips[4], 90)) == {"backend1", "backend2", "backend3"}


def test_a_client_is_blocked_and_let_in_again(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any
) -> None:
    """Blocked by keyboard it gets no answer, and "explain" says why; found by its address it is unblocked by mouse.

    What would drop a backend is refused in the daemon's words, and done when it is asked for all the same.
    """
    add_service("web", vips[4], "tcp", PORT)
    blocked = client_address(lab, 1)
    page.open()
    page.browser.find_element("tag name", "body").send_keys("b")
    page.one('dialog input[name="prefix"]').send_keys(blocked)
    page.one('dialog input[name="reason"]').send_keys("by hand", ENTER)
    page.until("the dialog is gone", lambda: not page.all("dialog"))

    assert http.get(f"/v1/blocklist/{blocked}").json()["reason"] == "by hand"
    assert ask(lab, vips[4], 3, patience=0.3) == {None: 3}
    page.one('form.explain input[name="src"]').send_keys(f"{blocked}:40000")
    page.one('form.explain input[name="dst"]').send_keys(f"{vips[4]}:{PORT}")
    page.button("Explain").click()
    assert page.one(".explained .verdict").text.startswith("✕ DROP_BLOCKLIST")
    assert page.texts(".steps .stage") == ["parse", "admit"]
    search = page.one("#blocklist input")
    search.send_keys(blocked, ENTER)
    # The list may be drawn anew between finding and clicking.
    page.until("a click", lambda: page.button(f"Unblock {blocked}/32").click() is None)
    page.button("Unblock", "dialog").click()
    page.until(
        "it is gone",
        lambda: (
            page.texts("#blocklist .empty") == [f"Nothing on the blocklist holds {blocked}, or lies in it."]
        ),
    )
    assert set(ask(lab, vips[4], 30)) <= {"backend1", "backend2", "backend3"}
    search.clear()
    search.send_keys("10.0.1.300", ENTER)
    page.until("a fault is said", lambda: "10.0.1.300" in page.texts("#blocklist .empty")[0])
    assert page.console_errors(422) == 1
    search.clear()
    search.send_keys(ENTER)

    backend = backends(lab)[0]
    page.button("Block…").click()
    page.one('dialog input[name="prefix"]').send_keys(backend, ENTER)

    refusal = page.until(
        "it is refused", lambda: [e for e in page.all("dialog .refusal") if e.is_displayed()]
    )[0]
    assert backend in refusal.text
    assert http.get(f"/v1/blocklist/{backend}").status_code == 404
    page.button("Block all the same", "dialog").click()
    page.until("the dialog is gone", lambda: not page.all("dialog"))
    assert http.get(f"/v1/blocklist/{backend}").status_code == 200
    assert page.console_errors(409) == 1


def test_old_data_are_said_to_be_old(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any, *, tmp_path: Path
) -> None:
    """While the daemon stands still, and while there is none, a banner says so; it goes when the daemon is back.

    That one listens with TLS as well: there the page comes without a token, and its data with one.
    """
    add_service("web", vips[4], "tcp", PORT)
    page.open()
    page.until("the row is there", lambda: page.row("s/web"))
    daemon = lifecycle.find_daemon(lab)
    assert daemon is not None
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        stale = page.until("a banner", lambda: page.texts('.banner[data-key="stale"] .banner-text'))
        assert "Data are old" in stale[0]
        page.shoot("stale")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    page.until("no banner", lambda: not page.all(".banner"))

    os.kill(daemon.pid, signal.SIGKILL)
    page.until("a banner", lambda: page.all('.banner[data-key="stale"]'))
    lifecycle.start_daemon(lab, *tls_options(tmp_path))
    lifecycle.wait_for_daemon(lab)
    page.until("no banner", lambda: not page.all(".banner"))
    http.post("/v1/blocklist", json={"prefix": "203.0.113.99"}).raise_for_status()
    page.until("events go on", lambda: "POST /v1/blocklist" in page.texts("#events .text")[0])
    page.until("of the new daemon", lambda: page.row("s/web"))
    page.gather()
    page.console = [line for line in page.console if AWAY not in line]
    look_by_tls(lab, http, page)


def many(services: int, each: int) -> list[dict[str, Any]]:
    """Services with backends that are nowhere."""
    return [
        {
            "name": f"s{n:03}",
            "vip": f"10.201.{n // 250}.{n % 250 + 1}",
            "port": PORT,
            "protocol": "tcp",
            "backends": [{"address": f"10.9.{n % 250}.{k + 1}"} for k in range(each)],
        }
        for n in range(services)
    ]


def test_four_hundred_services(lab: Lab, http: httpx.Client, page: Page, record_property: Any) -> None:
    """With 4,000 backends only the rows in sight are in the document, and every one is reached by key and by filter."""
    http.put("/v1/config", json={"services": many(400, 10)}).raise_for_status()
    page.open()
    page.until("rows", lambda: page.row("s/s000"))
    paint = page.run(
        "return {paint: performance.getEntriesByName('first-contentful-paint')[0].startTime,"
        " rows: performance.getEntriesByName('rows')[0].startTime}"
    )
    record_property("first_paint_ms", round(paint["paint"]))
    record_property("rows_ms", round(paint["rows"]))
    print(f"first paint after {paint['paint']:.0f} ms, rows after {paint['rows']:.0f} ms")

    table = page.one("table.services")
    assert table.get_attribute("aria-rowcount") == "401"
    page.button("Expand all").click()
    assert table.get_attribute("aria-rowcount") == "4401"
    assert len(page.all("table.services tr")) < 100
    page.browser.find_element("tag name", "body").send_keys("s")
    page.press(END)
    page.until("the last row", lambda: page.row("b/s399/10.9.149.10"))
    assert page.browser.switch_to.active_element.get_attribute("data-id") == "b/s399/10.9.149.10"
    page.one("#filter").send_keys("10.9.123.7 unresolved")
    page.until("two services", lambda: page.texts("#services-count") == ["2 of 400"])
    assert [
        r["name"]
        for r in map(
            page.row,
            page.run("return [...document.querySelectorAll('tr[data-id]')].map((r) => r.dataset.id)"),
        )
    ] == [
        "▾s123tcp 10.201.0.124:80",
        "10.9.123.7weight 1",
        "▾s373tcp 10.201.1.124:80",
        "10.9.123.7weight 1",
    ]
    page.shoot("four-hundred")


def wrong(page: Page) -> list[str]:
    """What axe finds against WCAG 2 A and AA, contrast included."""
    axe = Axe()
    found = axe.run(
        page.browser, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
    )
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0].get('failureSummary', '')}"
        for one in found["violations"]
    ]


def lines_of(page: Page, prefix: str) -> int:
    """On how many lines a prefix of the blocklist is shown."""
    script = """
        const text = document.createRange(), cells = [...document.querySelectorAll(".entries td")];
        text.selectNodeContents(cells.find((cell) => cell.textContent === arguments[0]));
        return new Set([...text.getClientRects()].map((line) => line.top)).size;
    """
    found: int = page.run(script, prefix)
    return found


def test_it_can_be_read_by_everyone(http: httpx.Client, page: Page) -> None:
    """On a desktop and a phone, by day and by night: nothing is wider than the screen, and axe finds nothing."""
    services = many(3, 3)
    services[0]["name"] = "a-service-whose-name-is-as-long-as-it-may-well-be"
    entry = {"prefix": "2001:db8:1234:5678:9abc:def0:1234:5678", "reason": "a" * 120}
    entries = [entry, {"prefix": "198.151.100.128/25", "reason": "one line"}]
    http.put("/v1/config", json={"services": services, "blocklist": entries}).raise_for_status()
    http.post("/v1/services/s001/backends/10.9.1.1/drain").raise_for_status()
    page.open()
    page.button("Expand all").click()
    page.one('form.explain input[name="src"]').send_keys("[2001:db8:1234:5678:9abc:def0:1234:5678]:40000")
    page.one('form.explain input[name="dst"]').send_keys("[2001:db8::1]:53", ENTER)
    page.one(".steps")

    found = {}
    for name, size, dark in LOOKS:
        page.width(size, dark=dark)
        page.shoot(name)
        found[name] = wrong(page)
        if page.run("return document.documentElement.scrollWidth > innerWidth"):
            found[name].append("it is wider than the screen")
        if size is PHONE:
            assert lines_of(page, "198.151.100.128/25") == 1
            page.run("document.querySelector('tr.backend').click()")
            page.one("dialog dd")
            found[name] += wrong(page)
            page.press(ESCAPE)
    assert found == {name: [] for name, _, _ in LOOKS}
    assert "bar-full" in page.moving()
    page.width(DESKTOP, still=True)
    assert page.moving() == []


def test_nobody_looks_while_the_page_is_hidden(lab: Lab, http: httpx.Client, page: Page) -> None:
    """A page behind another asks for nothing, and asks again when it is seen."""
    page.open()
    shown = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    hidden = page.browser.current_window_handle
    try:
        before = requests(http)
        page.until("some seconds", lambda: page.run("return performance.now() > 4000"))
        assert requests(http) == before
    finally:
        page.browser.close()
        page.browser.switch_to.window(shown)
    assert hidden != shown
    page.until("it is looked again", lambda: requests(http) > before)


def requests(http: httpx.Client) -> float:
    """How often the status was asked for."""
    lines = http.get("/metrics").text.splitlines()
    counted = [
        line
        for line in lines
        if line.startswith("sluice_api_requests_total{") and 'route="/v1/status"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counted)


def test_keys_lead_everywhere(
    lab: Lab, http: httpx.Client, page: Page, vips: dict[int, str], add_service: Any
) -> None:
    """The first Tab skips to the services; arrows unfold and go; what has the focus is seen to have it."""
    add_service("web", vips[4], "tcp", PORT)
    page.open()
    page.until("the row is there", lambda: page.row("s/web"))
    page.browser.find_element("tag name", "body").send_keys(browsers.TAB)
    assert page.browser.switch_to.active_element.text == "Skip to the services"

    page.press(ENTER, "/")
    assert page.browser.switch_to.active_element.get_attribute("id") == "filter"
    page.press("web", ENTER, RIGHT, DOWN)
    focused = page.browser.switch_to.active_element
    assert focused.get_attribute("data-id") == f"b/web/{backends(lab)[0]}"
    assert focused.get_attribute("aria-level") == "2"
    cell = page.run("return getComputedStyle(document.activeElement.cells[0]).boxShadow")
    assert cell != "none"
    page.press("i")
    assert page.one("dialog h2").text == backends(lab)[0]
    page.press(ESCAPE)
    page.until("the dialog is gone", lambda: not page.all("dialog"))
    assert page.browser.switch_to.active_element.get_attribute("data-id") == f"b/web/{backends(lab)[0]}"
    page.press("?")
    assert page.one("dialog h2").text == "Keys"
    page.press(ESCAPE)
