"""The doctor's view of the kernel's data plane. Nothing here changes anything."""

from collections.abc import Iterable, Mapping, Sequence

from lb.dataplane.backend_probe import ask_backends
from lb.dataplane.build import Program
from lb.dataplane.claims import claims
from lb.dataplane.hook import Hook
from lb.dataplane.host_facts import gather
from lb.dataplane.link_facts import Served, interfaces_as_they_are
from lb.dataplane.protocol import BackendQuestion, MachineFacts
from lb.dataplane.tables import Tables
from lb.doctor.facts import BackendAnswers
from lb.settings import ServeSettings


class Examined:
    """The data plane as far as the doctor looks at it."""

    tables: Tables
    _settings: ServeSettings
    _hooks: Mapping[str, Hook]
    _in_force: Mapping[str, Program]
    _clock_began: float

    def machine(self, others: Iterable[str]) -> MachineFacts:
        """See DataPlane."""
        in_force = {name: self._in_force.get(name) for name in self._hooks}
        mode = str(self._settings.xdp_mode)
        served = {name: Served(mode, one.info.id if one else None) for name, one in in_force.items()}
        counted = tuple(self.tables.verdict_counters.by_cpu().tolist())
        return MachineFacts(
            gather(self._settings.pin_root.parent, compiling=False, clock_began=self._clock_began),
            interfaces_as_they_are(served, others, counted),
            tuple(self._settings.command()),
        )

    def ask_backends(self, questions: Sequence[BackendQuestion]) -> list[BackendAnswers]:
        """See DataPlane."""
        return ask_backends(questions)

    def claims(self, asked: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
        """See DataPlane."""
        return claims(asked)
