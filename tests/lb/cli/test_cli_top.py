"""sluice top over the whole screen: its tabs, its keys, and the rates that it shows."""

from typing import Any

from cli_shell import Shell
from display import Display, display

from lb.cli.top_tables import Look, Seen, backends, drops, services, summary
from lb.dataplane.layout import layout

NUMBER = {v.name: v.number for v in layout().verdicts}
TO_ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"


def tally(packets: int) -> dict[str, int]:
    return {"packets": packets, "bytes": packets * 100}


def look(at: float, *, web: int, dns: int, dropped: int) -> Look:
    """What the daemon says of two services, the second with a backend that is not reached."""

    def backend(address: str, state: str) -> dict[str, Any]:
        return {"address": address, "weight": 1, "effective_state": state, "health": "unknown", "flows": 7}

    def service(name: str, state: str) -> dict[str, Any]:
        where = {"protocol": "tcp", "vip": "192.0.2.10", "port": 80}
        return {"name": name, **where, "flows": 7, "backends": [backend("10.0.0.11", state)]}

    status = {
        "version": "1.2.3",
        "ready": True,
        "revision": 9,
        "started_at": 1000.0,
        "interfaces": [{"name": "eth0", "attached": True, "xdp_mode": "native"}],
        "tables": [{"name": "flows", "entries": 5, "capacity": 1000}],
        "services": [service("web", "active"), service("dns", "unresolved")],
    }
    stats = {
        "verdicts": {"TX_IPIP": tally(web), "DROP_RULE": tally(dropped), "DROP_LIMIT": tally(0)},
        "services": {"web": tally(web), "dns": tally(dns)},
        "backends": {"web": {"10.0.0.11": tally(web)}, "dns": {"10.0.0.11": tally(dns)}},
    }
    return Look(at, status, stats)


def test_the_fastest_is_the_first_line() -> None:
    """Rates are what came between two looks, by the time between; what takes no flows is marked."""
    seen = (
        Seen().after(look(10.0, web=100, dns=500, dropped=4)).after(look(12.0, web=300, dns=3500, dropped=10))
    )

    shown = services(seen)
    assert shown.header.split() == ["SERVICE", "ADDRESS", "BACKENDS", "FLOWS", "PACKETS/S", "BITS/S"]
    assert [line.text.split() for line in shown.lines] == [
        ["dns", "tcp", "192.0.2.10", "80", "0/1", "active", "7", "1.5", "k", "1.2", "M"],
        ["web", "tcp", "192.0.2.10", "80", "1/1", "active", "7", "100", "80.0", "k"],
    ]
    assert [line.is_bad for line in shown.lines] == [True, False]
    assert [line.text.split()[:3] for line in backends(seen).lines] == [
        ["10.0.0.11", "dns", "unresolved"],
        ["10.0.0.11", "web", "active"],
    ]
    assert [line.text.split() for line in drops(seen).lines] == [
        ["DROP_RULE", "3", "2.4", "k", "100.0", "%", "10"]
    ]
    assert summary(seen, 1090.0) == [
        "Sluice 1.2.3: ready, revision 9, up 1m 30s, eth0 native",
        "packets/s: forwarded 100, dropped 3, passed 0; flows 5 of 1.0 k",
    ]


def test_a_counter_that_began_anew_has_no_rate() -> None:
    """Nor has one that was seen once only, or of something that is new."""
    once = Seen().after(look(10.0, web=100, dns=5, dropped=4))
    anew = once.after(look(12.0, web=3, dns=6, dropped=4))

    assert [line.text.split()[-2:] for line in services(once).lines] == [["-", "-"], ["-", "-"]]
    assert {line.text.split()[0]: line.text.split()[-2] for line in services(anew).lines}["web"] == "-"
    assert services(Seen()).lines == []
    assert summary(Seen(), 0.0) == ["Sluice", ""]


def busy(shell: Shell, display: Display, stands: Any) -> list[str]:
    """The screen, once this holds of it, while packets come: for "quick" ten times as many as for "web"."""

    def more(lines: list[str]) -> bool:
        plans = shell.reconciler._plans.services.by_name
        for name, packets in (("web", 10), ("quick", 100)):
            shell.dataplane.tables.backend_counters.add(plans[name].start, packets, packets * 100)
        shell.dataplane.tables.verdict_counters.add(NUMBER["DROP_BLOCKLIST"], 7, 700)
        return bool(stands(lines))

    return display.until(more)


def test_the_screen(web: Shell) -> None:
    """Tabs by key, sorted by rate; scrolled, paused, made smaller; q leaves the terminal as it was."""
    web.ok(
        "service",
        "add",
        "quick",
        "--vip",
        "192.0.2.11",
        "--port",
        "53",
        "--protocol",
        "udp",
        "--backend",
        "10.0.0.9",
    )
    with display("--server", web.server, "top", "--seconds", "0.1") as screen:
        lines = screen.until(lambda lines: "sampled" in "".join(lines))
        assert lines[0].startswith("Sluice ")
        assert "ready" in lines[0]
        assert lines[2].split() == [
            "1",
            "talkers",
            "by",
            "source",
            "2",
            "services",
            "3",
            "backends",
            "4",
            "drops",
        ]
        assert TO_ALTERNATE in screen.raw

        screen.press("2")
        lines = busy(
            web,
            screen,
            lambda lines: (
                lines[4].startswith("SERVICE")
                and lines[5].startswith("quick")
                and lines[6].split()[-1] != "-"
            ),
        )
        assert lines[6].startswith("web")
        screen.press("\t")
        lines = busy(
            web, screen, lambda lines: lines[4].startswith("BACKEND") and lines[5].startswith("10.0.0.9")
        )
        assert len([line for line in lines if line.startswith("10.0.0.")]) == 3
        screen.press("4")
        busy(web, screen, lambda lines: lines[5].startswith("DROP_BLOCKLIST"))
        screen.press("3")
        screen.resize(8, 30)
        lines = screen.until(
            lambda lines: lines[4].startswith("BACKEND") and lines[-1].startswith("1-2 of 3")
        )
        assert (len(lines), max(map(len, lines))) == (8, 30)
        screen.press("j")
        screen.until(lambda lines: lines[-1].startswith("2-3 of 3"))
        screen.press("p")
        screen.until(lambda lines: lines[-1].startswith("PAUSED"))
        screen.resize(24, 100)
        screen.press("pb")
        screen.until(lambda lines: "talkers by prefix" in lines[2] and lines[4].startswith("PREFIX"))
        screen.press("q")

        assert screen.end() == 0
        assert screen.raw.count(BACK) == 1


def test_the_screen_while_the_daemon_is_away() -> None:
    """What is wrong stands in the last line, and the keys go on working."""
    with display("--server", "/no/such.sock", "top") as screen:
        screen.until(lambda lines: lines[-1].startswith("there is no socket /no/such.sock"))
        screen.press("2q")

        assert screen.end() == 0


def test_a_terminal_that_cannot_be_drawn_on(web: Shell) -> None:
    """It gets one look after the other, as a pipe does."""
    with display("--server", web.server, "top", "--seconds", "0.1", term="dumb") as screen:
        screen.until(lambda lines: sum("sampled" in line for line in lines) >= 2)

        assert TO_ALTERNATE not in screen.raw
