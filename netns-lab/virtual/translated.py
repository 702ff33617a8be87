"""Chapter: mode nat on this kernel, whose verifier takes the second program or does not."""

import json
from collections.abc import Iterator
from typing import Any

import inside
from virtual import network, sluice, traffic
from virtual.network import BACKENDS, CLIENT
from virtual.report import check, fact, within

VIP, POOL = "10.200.1.2", ("10.0.0.9", "fd00::9")
REQUESTS, PINGS = 20, 10
NO_ANSWER = 5
"""The exit code of a command that waited in vain."""


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    """What is tried, one after the other: in words, and as a service."""
    tcp = {"name": "translated", "vip": VIP, "protocol": "tcp", "port": 80, "mode": "nat"}
    tcp["backends"] = [{"address": address} for address in BACKENDS.values()]
    yield "TCP", tcp
    echo = {key: value for key, value in tcp.items() if key != "port"}
    yield "ICMP echo", {**echo, "protocol": "icmp"}
    yield "keep", {**tcp, "nat_source": "keep"}
    yield "IPv4 to IPv6", {**tcp, "backends": [{"address": "fd00::11"}]}


def documents(exported: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The desired state with each of these services beside what there is, for `sluice apply`."""
    settings = {**exported.get("settings", {}), "nat_pools": list(POOL)}
    for words, service in services():
        document = {**exported, "settings": settings, "services": [*exported["services"], service]}
        yield words, json.dumps(document)


def nat() -> None:
    """Each form is loaded; TCP and echo are asked too."""
    exported = sluice.ask("export")
    network.run("ip", "address", "add", f"{POOL[0]}/32", "dev", sluice.interface())
    for words, document in documents(exported):
        _apply(document)
        fact(f"mode nat, {words}: the kernel has taken both programs")
        if words == "TCP":
            names = [traffic.curl("/whoami", vip=VIP).decode().strip() for _ in range(REQUESTS)]
            check(set(names) == BACKENDS.keys(), f"answers came from {names}")
            fact(f"{REQUESTS} requests through mode nat, by {len(BACKENDS)} backends")
        if words == "ICMP echo":
            ping = ["ping", "-n", "-q", "-c", str(PINGS), "-i", "0.2", VIP]
            said = sluice.run(*inside.command(CLIENT, ping)).stdout
            check(f" {PINGS} received" in said, said)
            fact(f"{PINGS} pings through mode nat")
    _apply(json.dumps(exported))
    network.run("ip", "address", "del", f"{POOL[0]}/32", "dev", sluice.interface())


def _apply(document: str) -> None:
    """Return when it is in force. An emulated machine may work on it for longer than the command waits."""

    def seen() -> bool:
        done = sluice.run("sluice", "apply", "-f", "-", ok=False, feed=document)
        check(done.returncode in (0, NO_ANSWER), done.stderr)
        return done.returncode == 0

    within(sluice.START_SECONDS, "the document in force", seen)
