"""From single checks to a verdict: rise and fall, counted in a row. Pure."""

from dataclasses import dataclass, replace

from lb.model.standing import Health


@dataclass(frozen=True, slots=True)
class Count:
    """Where a backend is. good, bad: checks of this kind in a row, the last one included; one of them is 0."""

    health: Health = Health.UNKNOWN
    good: int = 0
    bad: int = 0

    def after(self, ok: bool, rise: int, fall: int) -> "Count":
        """Once another check has ended.

        Of a backend of which nothing is known the first good check is enough: it counted as healthy already.
        """
        good, bad = (self.good + 1, 0) if ok else (0, self.bad + 1)
        now = replace(self, good=good, bad=bad)
        if self.health is Health.UNHEALTHY:
            return replace(now, health=Health.HEALTHY) if good >= rise else now
        if bad >= fall:
            return replace(now, health=Health.UNHEALTHY)
        return replace(now, health=Health.HEALTHY) if ok else now
