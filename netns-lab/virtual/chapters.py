"""What is seen in the machine, in order."""

from collections.abc import Callable, Mapping

from virtual import installing, interfaces, translated, unit

REBOOTING = unit.REBOOTING
CHAPTERS: Mapping[str, Callable[[], object]] = {
    "install": installing.install,
    "prepare": installing.prepare,
    "start": installing.start,
    "nat": translated.nat,
    "unit": unit.unit,
    "bond": interfaces.bond,
    "lag": interfaces.lag,
    "tagged": interfaces.tagged,
    "vlan": interfaces.vlan,
    "reboot": unit.reboot,
    "after": unit.after,
    "uninstall": installing.uninstall,
}
FIRST = ("install", "prepare", "start")
"""Those without which the others cannot be."""


def chosen(wanted: list[str]) -> list[str]:
    """The chapters to go through. ValueError names one that there is not."""
    unknown = set(wanted) - CHAPTERS.keys()
    if unknown:
        raise ValueError(
            f"there is no chapter {', '.join(sorted(unknown))}: choose from {', '.join(CHAPTERS)}"
        )
    needed = {
        *FIRST,
        *wanted,
        *(["after"] if "reboot" in wanted else ["reboot"] if "after" in wanted else []),
    }
    return [name for name in CHAPTERS if not wanted or name in needed]
