"""Chapters: systemd looks after the daemon, and packets do not depend on it."""

import json
import time

from virtual import installing, network, sluice, traffic
from virtual.report import check, fact, within
from virtual.traffic import Clients

KEPT = network.FILES / "kept"
FAULTS = {"KILL": "systemctl kill -s KILL", "STOP": "a daemon that hangs (SIGSTOP), killed by the watchdog"}
REBOOTING = "rebooting"


def unit() -> None:
    """Watchdog, kill, stop and start, under load."""
    fed = sluice.unit("WatchdogTimestampMonotonic")
    within(
        installing.WATCHDOG_SECONDS,
        "the watchdog is fed",
        lambda: sluice.unit("WatchdogTimestampMonotonic") != fed,
    )
    fact(f"the watchdog is fed; it would bite after {sluice.unit('WatchdogUSec')['WatchdogUSec']}")
    for number, words in FAULTS.items():
        with Clients() as clients:
            former = sluice.unit("MainPID")["MainPID"]
            began = time.monotonic()
            sluice.run("systemctl", "kill", "--kill-whom=main", "-s", number, "sluice")
            wait_for_another(former)
            took = time.monotonic() - began
            clients.more()
        fact(f"{words}: another is active after {took:.0f} s; {clients.done} requests meanwhile, none failed")
    check("Watchdog timeout" in sluice.journal(1000), "the journal says nothing of the watchdog")
    with Clients() as clients:
        began = time.monotonic()
        sluice.systemctl("stop")
        stopped = time.monotonic()
        state = sluice.unit("ActiveState", "Result")
        check(state == {"ActiveState": "inactive", "Result": "success"}, str(state))
        clients.more()
        starting = time.monotonic()
        sluice.systemctl("start")
        again = time.monotonic() - starting
        clients.more()
    took = f"systemctl stop takes {stopped - began:.0f} s, start {again:.0f} s"
    fact(f"{took}; {clients.done} requests meanwhile, none failed")


def wait_for_another(former: str) -> None:
    """Return when another process than this is the unit's, and says that it is ready. NotSeenError."""

    def seen() -> bool:
        now = sluice.unit("MainPID", "ActiveState")
        return now["ActiveState"] == "active" and now["MainPID"] not in ("0", former)

    within(sluice.START_SECONDS, "another daemon is active", seen)


def reboot() -> str:
    """The machine boots anew; what was compiled is on its disk."""
    KEPT.write_text(json.dumps(sorted(path.name for path in sluice.COMPILED.iterdir())))
    # `systemctl reboot` asks logind, which is not in there.
    sluice.run("systemctl", "start", "--no-block", "reboot.target")
    return REBOOTING


def after() -> None:
    """All is as it was, by itself, and no compiler was asked."""
    within(
        sluice.START_SECONDS,
        "the daemon is active",
        lambda: sluice.unit("ActiveState")["ActiveState"] == "active",
    )
    fresh = {path.name for path in sluice.COMPILED.iterdir()} - set(json.loads(KEPT.read_text()))
    check(not fresh, f"{len(fresh)} programs were compiled anew")
    times = sluice.unit("ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    begun, ready = (int(value) / 1e6 for _, value in sorted(times.items(), reverse=True))
    installing.prepare_backends()
    sluice.wait_until_healthy()
    fact(f"after a reboot: active {ready - begun:.0f} s after it was started, and nothing was compiled")
    fact(traffic.balance())
