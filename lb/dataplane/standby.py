"""Features that a program may have beyond the wish: what an operator may need at once."""

from lb.dataplane.layout import layout
from lb.dataplane.protocol import ProgramWish

STANDBY = frozenset({"HAVE_DENY4", "HAVE_DENY6", "HAVE_ALLOW"})
"""What may be needed within milliseconds. A program that is compiled anew has it at first; once it is trimmed to what
is in use, the larger one stays loaded beside it."""
_SWITCHES = frozenset({"HAVE_SPOOF", "HAVE_ECHO"})
"""What a setting turns off, where all else is just without use: a program that has it does what is not wished."""


def is_enough(had: ProgramWish, wish: ProgramWish) -> bool:
    """Whether a program made for one wish does for another."""
    spare = had.features - wish.features
    return wish.features <= had.features and wish.constants == had.constants and not spare & _SWITCHES


def with_standby(wish: ProgramWish) -> ProgramWish:
    """The wish, and what may be needed within milliseconds; once there are rules, all that one can ask of a packet."""
    asked = {name for name in layout().features if name.startswith("HAVE_RULE_")}
    more = asked if "HAVE_RULES" in wish.features else set()
    return ProgramWish(wish.features | STANDBY | more, wish.constants)
