"""The reconciler: the one writer. Serialises changes, keeps the maps equal to the store, and reports what is seen."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lb.model import Config, Prefix
from lb.reconcile.observed import Counters, Hits, ServiceStatus, Status, VerdictInfo


@dataclass(frozen=True, slots=True)
class Desired:
    """A revision and what it says. Immutable: readers take it once and see one state."""

    revision: int
    config: Config


class Reconciler:
    """Safe to call from several threads."""

    @property
    def desired(self) -> Desired:
        """The last acknowledged revision."""
        raise NotImplementedError

    def change(self, edit: Callable[[Config], Config], *, actor: str, summary: str) -> Desired:
        """Edit the desired state under the writer's lock; returns when the maps hold it.

        edit gets the present config and returns the wanted one; what it raises is passed on and nothing changes.
        A config equal to the present one makes no revision. CapacityError: it does not fit a map, nothing changed.
        """
        raise NotImplementedError

    def check(self, edit: Callable[[Config], Config]) -> tuple[Config, Config]:
        """A dry run: the present config and the one that edit would make, compiled but not stored or applied."""
        raise NotImplementedError

    def now(self) -> float:
        """The clock that entries' deadlines are kept by, seconds since the epoch."""
        raise NotImplementedError

    def status(self) -> Status:
        """All that is observed, but for counters of verdicts."""
        raise NotImplementedError

    def service_status(self, name: str) -> ServiceStatus:
        """One service as it is; NotFoundError."""
        raise NotImplementedError

    def readiness(self) -> list[str]:
        """Why the data plane is not in step with the desired state; empty when it is."""
        raise NotImplementedError

    def counters(self) -> Counters:
        """All packet counters."""
        raise NotImplementedError

    def hits(self, prefixes: list[Prefix], *, allow: bool = False) -> list[Hits]:
        """What each blocklist (or allowlist) entry has decided."""
        raise NotImplementedError

    def live_flows(self, service: str, address: IPv4Address | IPv6Address) -> int:
        """Flows in the flow table that a backend of a service holds now."""
        raise NotImplementedError

    def verdicts(self) -> list[VerdictInfo]:
        """The verdict list of the data plane, in order of number."""
        raise NotImplementedError
