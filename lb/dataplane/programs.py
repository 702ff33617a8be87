"""The loaded programs: made for what is in use, one per interface, kept while they may be needed."""

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from lb.dataplane import libbpf, second
from lb.dataplane.build import Build, Program, compile_program, retire
from lb.dataplane.hook import pin_directory, pinned_program
from lb.dataplane.protocol import ProgramState, ProgramWish
from lb.dataplane.rtnetlink import Link
from lb.dataplane.tables import size_flags
from lb.settings import ServeSettings

_FRAGS_MTU = 3000
"""From this MTU on, frames may not fit one page: the multi-buffer program is used."""


class Programs:
    """Safe for concurrent threads: of those that need the same program, one makes it.

    Each build has one slot for its second program: if it were made twice, the kept one would call the other's second.
    """

    def __init__(self, settings: ServeSettings, pins: Path, flow_key: tuple[int, int]) -> None:
        self._settings, self._pins, self._flow_key = settings, pins, flow_key
        self._loaded: dict[tuple[str, str], Program] = {}
        """By name and interface."""
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._large = set[str]()
        """Interfaces that accept only multi-buffer programs, whatever their own MTU."""

    def build(self, link: Link, wish: ProgramWish) -> Build:
        """What the program of that interface is compiled from."""
        constants = {
            **size_flags(self._settings.sizes),
            **dict(wish.constants),
            "OUR_IFINDEX": link.index,
            "OUR_MAC_FIRST4": int.from_bytes(link.mac[:4], "little"),
            "OUR_MAC_LAST2": int.from_bytes(link.mac[4:], "little"),
            "FLOW_KEY0": self._flow_key[0],
            "FLOW_KEY1": self._flow_key[1],
        }
        if "HAVE_NAT" in wish.features:
            constants["OUR_MTU"] = min(link.mtu, 65535)
        frags = {"HAVE_FRAGS"} if link.mtu > _FRAGS_MTU or link.name in self._large else set()
        return Build(wish.features | frags, constants, self._pins, kept=self._settings.cache)

    def at_hand(self, link: Link, wish: ProgramWish) -> Program | None:
        """A program that needs no compiling: one kept, or the one an earlier run left attached."""
        build = self.build(link, wish)
        # What is kept is not put back: another thread may have let go of it meanwhile.
        kept = self._loaded.get((build.name, link.name))
        if kept is None and (left := self._left_attached(build, link)) is not None:
            kept = self._keep(left, link)
        return kept

    def all_at_hand(self, links: Iterable[Link], wish: ProgramWish) -> bool:
        """Whether none of these interfaces needs the compiler for that wish."""
        return all(self.at_hand(link, wish) for link in links)

    def get(self, link: Link, wish: ProgramWish) -> Program:
        """The program; compiled if it is not at hand. CompileError, KnownAnswerError, SetupError."""
        program = self.at_hand(link, wish)
        if program is not None:
            return program
        build = self.build(link, wish)
        with self._making(build.name, link.name):
            return self.at_hand(link, wish) or self._keep(compile_program(build), link)

    def get_large(self, link: Link, wish: ProgramWish) -> Program:
        """Use multi-buffer programs for this interface; returns the one for that wish."""
        self._large.add(link.name)
        return self.get(link, wish)

    def _making(self, name: str, interface: str) -> threading.Lock:
        """Held while a program is made or unloaded."""
        return self._locks.setdefault((name, interface), threading.Lock())

    def _keep(self, fresh: Program, link: Link) -> Program:
        """Keep a program; if another thread has made the same meanwhile, that one."""
        kept = self._loaded.setdefault((fresh.build.name, link.name), fresh)
        if kept is not fresh:
            os.close(fresh.fd)
        return kept

    def _left_attached(self, build: Build, link: Link) -> Program | None:
        with contextlib.suppress(OSError):
            fd = pinned_program(pin_directory(link.name, self._settings.pin_root))
            info = libbpf.prog_info(fd)
            if info.name == build.name and (not build.has_second or second.stands(build.pins, build.name)):
                return Program(fd, build, info, time.time())
            os.close(fd)
        return None

    def forget_all_but(self, needed: Iterable[Program], ready: Collection[frozenset[str]]) -> None:
        """Unload programs that are neither needed nor kept ready."""
        keep = {id(program) for program in needed}
        for key, program in list(self._loaded.items()):
            if id(program) not in keep and program.build.features - {"HAVE_FRAGS"} not in ready:
                with self._making(*key):
                    del self._loaded[key]
                    retire(program)

    def forget_left(self) -> None:
        """Unload second programs that an earlier run has left and no program here calls."""
        with contextlib.suppress(OSError):
            second.keep_only(self._pins, {program.info.name for program in self._loaded.values()})

    def states(self, in_force: Collection[Program]) -> list[ProgramState]:
        """What is loaded, those in force first."""
        active = {id(program) for program in in_force}
        states = [
            _state(program, interface, in_force=id(program) in active)
            for (_, interface), program in list(self._loaded.items())
        ]
        return sorted(states, key=lambda state: not state.in_force)


def _state(program: Program, interface: str, *, in_force: bool) -> ProgramState:
    return ProgramState(
        program.build.features,
        program.info.instructions,
        program.info.jited_bytes,
        interface,
        in_force,
        program.info.verified,
        program.cost.stack_bytes,
        program.compiled_at,
        program.cost.compile_seconds,
        program.cost.load_seconds,
        program.cost.check_seconds,
        program.info.id,
        program.info.name,
        program.info.tag,
    )
