"""The data plane in the kernel: one set of pinned maps, one program an interface, compiled for what is in use."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lb.dataplane import clock
from lb.dataplane.bpffs import ensure_bpffs
from lb.dataplane.build import NAME_PREFIX, Build, Program
from lb.dataplane.examined import Examined
from lb.dataplane.explain import TracedProgram, Tracers
from lb.dataplane.former import Former, find_former, open_former, tell_about
from lb.dataplane.hook import PINS, Hook, pin_directory, remove_other_maps
from lb.dataplane.host_facts import clock_offset
from lb.dataplane.kernel_tables import open_tables
from lb.dataplane.layout import Verdict, layout
from lb.dataplane.map_states import map_states
from lb.dataplane.neighbours import Neighbours
from lb.dataplane.probe_path import ProbePath
from lb.dataplane.programs import Programs
from lb.dataplane.protocol import (
    InterfaceState,
    MapState,
    NextHop,
    ProgramState,
    ProgramWish,
)
from lb.dataplane.rtnetlink import Link
from lb.dataplane.samples import PIN, RingBuffer
from lb.dataplane.settle import Settle
from lb.dataplane.sole import Sole
from lb.dataplane.standby import is_enough, with_standby
from lb.dataplane.tables import Tables, size_flags
from lb.errors import DataPlaneError, InterfaceError, LargeFramesError, SluiceError
from lb.events import Events
from lb.settings import ServeSettings, TableSizes


class KernelDataPlane(Examined):
    """A DataPlane. Opening it creates or adopts the maps; the first `require` loads the program."""

    def __init__(self, settings: ServeSettings, flow_key: bytes, events: Events | None = None) -> None:
        self._events = events or Events()
        self.sizes: TableSizes = settings.sizes
        self._settings = settings
        self._flow_key = flow_key
        self._former: Former | None = None
        self._key = (
            int.from_bytes(flow_key[:8], "little") | 1 << 63,
            int.from_bytes(flow_key[8:16], "little") | 1 << 63,
        )
        self._neighbours = Neighbours()
        self._lock = threading.RLock()
        self._hooks = {name: Hook(name, settings.pin_root) for name in settings.interfaces}
        self._wish = ProgramWish(frozenset())
        self._coming: frozenset[str] = frozenset()
        """What was prepared last: it is about to be required."""
        self._refit: Settle | None = None
        self._in_force: dict[str, Program] = {}
        self._away: dict[str, Program] = {}
        """The last program of interfaces that are gone."""
        self._tracers = Tracers()
        self._probe_path = ProbePath(self._events)
        self._clock_began = clock_offset()
        links = self._neighbours.links()
        if not any(name in links for name in settings.interfaces):
            there = ", ".join(sorted(n for n in links if n != "lo")) or "none but lo"
            names = " or ".join(settings.interfaces)
            raise InterfaceError(f"there is no interface {names}: there are {there}")
        self._conditions = {n: links[n].condition if n in links else "gone" for n in settings.interfaces}
        """The last reported state of each interface."""
        ensure_bpffs(settings.pin_root.parent)
        self._pins = self._make_pins()
        self._sole = Sole(dict(zip(settings.interfaces, self._directories, strict=True)))
        self.tables: Tables = open_tables(self._pins, self.sizes)
        self._programs = Programs(settings, self._pins, self._key)
        tell_about(self._pins, self._flow_key)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The list of xdp/verdicts.h."""
        return layout().verdicts

    def _make_pins(self) -> Path:
        """The directory of the maps: under the first interface, named by the layout of memory and its sizes."""
        sizes = "-".join(f"{value:x}" for value in size_flags(self.sizes).values())
        for name in self._settings.interfaces:
            pin_directory(name, self._settings.pin_root).mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"maps-{layout().digest}-{sizes}"
        # Interfaces may be named in another order than they were.
        pins = next(
            (path for d in self._directories if (path := d / name).is_dir()), self._directories[0] / name
        )
        pins.mkdir(mode=0o700, exist_ok=True)
        return pins

    @property
    def _directories(self) -> list[Path]:
        """Where the pins of our interfaces are."""
        return [pin_directory(name, self._settings.pin_root) for name in self._settings.interfaces]

    def former(self) -> Former | None:
        """See DataPlane."""
        pins = find_former(self._directories, self._pins)
        if pins is None:
            return None
        try:
            self._former = open_former(pins, self._flow_key)
        except (OSError, KeyError, ValueError, TypeError) as error:
            self._events.failure(f"the tables in force cannot be read: flows and counts begin anew ({error})")
        return self._former

    @property
    def flow_key(self) -> tuple[int, int]:
        """See DataPlane."""
        return self._key

    def forget_former(self, lost: int = 0) -> None:
        """See DataPlane."""
        if self._former is not None:
            self._former.close()
            self._former = None
            text = "flows and counts were taken over by tables of other sizes or layout"
            if lost:
                text += f"; {lost} connections of mode nat found no room: start with more --nat-slots"
            self._events.publish(
                "tables.rebuilt", text, level="warning" if lost else "info", lost_connections=lost
            )
        remove_other_maps(self._pins, self._directories)

    def require(self, wish: ProgramWish, *, exactly: bool = False) -> None:
        """See DataPlane. An interface that is away gets its program when it comes back."""
        with self._lock:
            if not (is_enough(self._wish, wish) and self._in_force and (not exactly or wish == self._wish)):
                ready = with_standby(wish)
                links = self._neighbours.links()
                ours = [links[name] for name in self._hooks if name in links]
                if not exactly and not self._programs.all_at_hand(ours, wish):
                    wish = ready
                self._attach(links, wish)
                self._keep_ready()
            self._fit_probes(self._wish)

    def _fit_probes(self, wish: ProgramWish) -> None:
        constants = {**size_flags(self.sizes), **dict(wish.constants)}
        wanted = "HAVE_PROBES" in wish.features
        self._probe_path.want(
            Build(frozenset(), constants, self._pins, kept=self._settings.cache) if wanted else None
        )

    def _attach(self, links: Mapping[str, Link], wish: ProgramWish) -> None:
        # All are compiled and checked before the first is put in force, and a wish that fails is forgotten: unless
        # every interface has its program, the next `require` tries again.
        is_first = not self._in_force
        programs = {name: self._programs.get(links[name], wish) for name in self._hooks if name in links}
        for name, hook in self._hooks.items():
            link = links.get(name)
            if link is None:
                if (gone := self._in_force.pop(name, None)) is not None:
                    self._away[name] = gone
                    self._tell("interface.lost", f"interface {name} is gone", name, level="warning")
                hook.lost()
                continue
            program = programs[name]
            if not hook.is_alive(link):
                hook.lost() if name in self._in_force else None
                hook.adopt(link)
            alive = hook.is_alive(link)
            if self._in_force.get(name) is not program or not alive:
                program = self._put(hook, link, program, wish)
                kind, done = ("program.swapped", "swapped") if alive else ("interface.attached", "attached")
                size = f"{program.info.instructions} instructions"
                self._tell(
                    kind,
                    f"program {program.info.name} {done} on {name}: {size}",
                    name,
                    program=program.info.name,
                    program_id=program.info.id,
                    instructions=program.info.instructions,
                    features=sorted(program.build.features),
                )
            self._in_force[name] = program
            self._away.pop(name, None)
        self._wish = wish
        self._forget_old()
        if is_first:
            self._programs.forget_left()
        if not self._in_force:
            raise InterfaceError(f"none of the interfaces {', '.join(self._hooks)} is there")

    def _put(self, hook: Hook, link: Link, program: Program, wish: ProgramWish) -> Program:
        """Put it in force, or its multi-buffer variant if the driver requires that; returns which."""
        try:
            self._hook(hook, link, program)
        except LargeFramesError:
            program = self._programs.get_large(link, wish)
            self._hook(hook, link, program)
        return program

    def _hook(self, hook: Hook, link: Link, program: Program) -> None:
        large, replace_foreign = "HAVE_FRAGS" in program.build.features, self._settings.replace_foreign
        hook.put(
            program.fd, link, self._settings.xdp_mode, replace_foreign=replace_foreign, takes_large=large
        )

    def _tell(self, kind: str, text: str, interface: str, *, level: str = "info", **facts: object) -> None:
        self._events.publish(kind, text, level=level, interface=interface, **facts)

    def _forget_old(self) -> None:
        """Unload programs that are neither in force nor kept ready."""
        self._tracers.keep([program.build for program in self._in_force.values()])
        needed = (*self._in_force.values(), *self._away.values())
        self._programs.forget_all_but(needed, (with_standby(self._wish).features, self._coming))

    def lacks(self, wish: ProgramWish) -> ProgramWish | None:
        """See DataPlane."""
        with self._lock:
            if is_enough(self._wish, wish) and self._in_force:
                return None
            ready, links = with_standby(wish), self._neighbours.links()
            ours = [links[name] for name in self._hooks if name in links]
            at_hand = any(self._programs.all_at_hand(ours, one) for one in (wish, ready))
            return None if at_hand else ready

    def prepare(self, wish: ProgramWish) -> None:
        """See DataPlane."""
        self._coming = wish.features
        for link in self._neighbours.links().values():
            if link.name in self._hooks:
                self._programs.get(link, wish)

    def _keep_ready(self) -> None:
        """Compile, in the background, what an operator may need at once."""
        wish = with_standby(self._wish)

        def prepare() -> None:
            try:
                self.prepare(wish)
            except SluiceError as error:
                self._events.failure(f"no program is kept ready for the lists: {error}")

        if wish != self._wish:
            threading.Thread(target=prepare, name="standby", daemon=True).start()

    def next_hops(self, addresses: Iterable[bytes]) -> Mapping[bytes, NextHop]:
        """See DataPlane."""
        return self._neighbours.next_hops(addresses)

    def remember(self, macs: Mapping[bytes, bytes]) -> None:
        """See DataPlane."""
        self._neighbours.remember(macs)

    def watch(self, changed: Callable[[], None]) -> None:
        """See DataPlane. An interface that came back has a program before that; one made for it is compiled beside."""
        refit = self._refit = Settle(self._try_to_refit)

        def look() -> None:
            with self._lock:
                links = self._neighbours.links()
                self._tell_conditions(links)
                self._put_back(links)
            changed()
            refit.tell()

        self._neighbours.watch(look, lambda: any(hook.was_taken_off() for hook in self._hooks.values()))

    def _try_to_refit(self) -> None:
        try:
            self._look_after_interfaces()
        except SluiceError as error:
            self._events.failure(str(error))

    def _look_after_interfaces(self) -> None:
        self.prepare(self._wish)  # whoever else has to do with programs goes on meanwhile
        with self._lock:
            links = self._neighbours.links()
            for name, hook in self._hooks.items():
                link, program = links.get(name), self._in_force.get(name)
                there = program is not None and hook.is_alive(link)
                fits = link is not None and program is not None and self._program_fits(program, link)
                if (link is None and program is None) or (there and fits):
                    continue
                self._attach(links, self._wish)
                return

    def _put_back(self, links: Mapping[str, Link]) -> None:
        """An interface that has come back gets the program that it had, at once: the one for it takes seconds."""
        for name, hook in self._hooks.items():
            link, program = links.get(name), self._in_force.get(name) or self._away.get(name)
            if link is None or program is None or hook.is_alive(link):
                continue
            hook.lost()
            with contextlib.suppress(SluiceError):  # it is tried again with the other
                self._hook(hook, link, program)
                self._in_force[name] = program
                self._away.pop(name, None)
                text = f"program {program.info.name}, which it had before, attached on {name}"
                self._tell("interface.attached", text, name, program=program.info.name)

    def _tell_conditions(self, links: Mapping[str, Link]) -> None:
        """Interfaces that went down, or came up."""
        for name, before in self._conditions.items():
            now = links[name].condition if name in links else "gone"
            if now == before:
                continue
            self._conditions[name] = now
            if now == "up":
                self._tell("interface.up", f"interface {name} is up", name)
            elif now != "gone":  # that it is lost is told where it is taken off
                told = "is down" if now == "down" else "has no carrier"
                self._tell("interface.down", f"interface {name} {told}", name, level="warning")

    def _program_fits(self, program: Program, link: Link) -> bool:
        return program.build.name == self._programs.build(link, self._wish).name

    def interfaces(self) -> list[InterfaceState]:
        """See DataPlane."""
        links = self._neighbours.links()
        states = []
        for name, hook in self._hooks.items():
            link = links.get(name)
            if link is None:
                states.append(InterfaceState(name, None, None, None, False, "none", None, link="gone"))
                continue
            attached, pins = name in self._in_force and hook.is_alive(link), hook.pins()
            states.append(
                InterfaceState(
                    name,
                    link.index,
                    link.mac.hex(":"),
                    link.mtu,
                    attached,
                    link.xdp_mode,
                    link.xdp_program_id,
                    pins,
                    hook.reason if attached else "",
                    link.condition,
                    unpinned=attached and len(pins) < len(PINS),
                )
            )
        return states

    def programs(self) -> list[ProgramState]:
        """See DataPlane."""
        with self._lock:
            return self._programs.states(list(self._in_force.values()))

    def maps(self) -> list[MapState]:
        """See DataPlane."""
        return map_states(self._pins)

    def tracer(self, interface: str) -> TracedProgram:
        """See DataPlane. A concurrent change of the program does not wait for the compiler here."""
        with self._lock:
            program = self._in_force.get(interface)
        if program is None:
            raise DataPlaneError(f"no program is attached to {interface}: see /readyz")
        return self._tracers.get(interface, program.build)

    def samples(self) -> RingBuffer:
        """See DataPlane."""
        return RingBuffer(self._pins / PIN)

    def probe_source(self, ifindex: int, family: int) -> str:
        """See DataPlane."""
        return self._probe_path.source(ifindex, family)

    def clock_seconds(self) -> int:
        """See DataPlane."""
        return clock.seconds()

    def close(self) -> None:
        """See DataPlane."""
        self._probe_path.close()
        if self._refit is not None:
            self._refit.close()
        self._neighbours.close()
        self._sole.close()


__all__ = ["NAME_PREFIX", "KernelDataPlane"]
