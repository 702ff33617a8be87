"""The reconciler: the one writer. Serialises changes, keeps the maps equal to the store. Read side: observing.py."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from lb.dataplane.protocol import DataPlane
from lb.errors import DataPlaneError, SluiceError
from lb.events import Events
from lb.model import Config
from lb.model.protect import Protected
from lb.reconcile import expiry, observe
from lb.reconcile.bans import Ban, bans_wanted, entries_of, tell_bans, with_bans
from lb.reconcile.beside import Beside, LacksError
from lb.reconcile.confirm import Confirmation
from lb.reconcile.desired import Desired, Proposal, keeping, without_expired
from lb.reconcile.disruption import ServiceMove
from lb.reconcile.doctor import Doctor
from lb.reconcile.floods import FloodWatch
from lb.reconcile.guard import NOBODY, Guard
from lb.reconcile.history import History
from lb.reconcile.hops import tell_hops
from lb.reconcile.maps import Maps
from lb.reconcile.nat_sweeper import NatSweeper
from lb.reconcile.observing import Observing
from lb.reconcile.probing import Probing
from lb.reconcile.services import StandingOf
from lb.reconcile.terms import PLAIN, Terms, account
from lb.reconcile.together import Asked, Step, Together, keep
from lb.reconcile.used import Callers, Used, in_use
from lb.reconcile.watch import Watch
from lb.store import Store

log = logging.getLogger("sluice.reconcile")

TRIM_AFTER_SECONDS = 10.0
"""How long a feature must have been out of use before the program is built without it."""
COMPILED_BESIDE_MOST = 3
"""How often a change starts over because its program is not compiled yet; then it compiles with the lock held."""
RETRY_SECONDS = 1.0
"""Pause before retrying what failed."""


def _whole(config: Config) -> object:
    return config


class Reconciler(Observing):
    """Safe to call from several threads. `start` adopts what the maps hold and makes it what the store says."""

    def __init__(
        self,
        store: Store,
        dataplane: DataPlane,
        *,
        clock: Callable[[], float] = time.time,
        events: Events | None = None,
    ) -> None:
        self._store, self._dataplane, self._clock = store, dataplane, clock
        self.events = events or Events()
        """Where events are published."""
        self.watch = Watch(dataplane, self._fit, self._on_unwatched, self._ban)
        """The watchers of packets."""
        self.doctor = Doctor(
            dataplane,
            self.status,
            lambda: (self._desired.config, self._plans.services),
            Probing(self._fit, self._on_unwatched, self.probe_way),
        )
        """Finds what is wrong."""
        self._lock = threading.RLock()
        self._together = Together(self._lock, self._make)
        self._wake = threading.Condition()
        self._hops_changed = self._stopping = False
        self._maps = Maps(dataplane, clock, lambda: self.watch.features | self.doctor.probing.features)
        self._floods = FloodWatch(dataplane, lambda: self._plans.services, self.events)
        self._nat = NatSweeper(
            dataplane, lambda: self._plans.services, lambda: self._desired.config.settings, self.events
        )
        revision, self._stored = store.load()
        """What the newest revision says: the desired state, and possibly expired entries."""
        self._desired = Desired(revision, self._stored.without_expired(clock()))
        self._confirmation = Confirmation(store, clock)
        self.history = History(self, store, self._confirmation, self._lock)
        """Earlier revisions, and the change that waits to be confirmed."""
        self._changed_at = time.monotonic()
        self._started_at = clock()
        self._thread: threading.Thread | None = None
        self._trimmer = Beside(self._trim, self.events.failure)
        self._listeners: list[tuple[Callable[[], None], Callable[[Config], object]]] = []
        self.listen(self._floods.wake, lambda config: config.services)
        self._callers, self._used = Callers(), Used()
        self._reports_of: observe.ReportsOf = observe.no_reports

    def use_health(self, standing_of: StandingOf, reports_of: observe.ReportsOf) -> None:
        """Set where the health of backends comes from; to be called before `start`."""
        self._maps.standing_of, self._reports_of = standing_of, reports_of

    def follow_health(self) -> None:
        """The health of backends has changed: put what follows in force, without a revision."""
        with self._lock:
            if not self._maps.failure:  # else `_follow` brings everything up to date
                self._renew()

    def start(self) -> None:
        """Adopt what the maps hold, write what differs from the store, and keep it so. Raises what applying raises."""
        self.watch.start()
        with self._lock:
            self._desired, self._stored = self.history.begin(self._desired, self._stored)
            self._maps.fill(self._desired.config)
            self._follow_bans()
        self._dataplane.watch(self._on_hops_changed)
        self._thread = threading.Thread(target=self._follow, name="reconciler", daemon=True)
        self._thread.start()
        self._floods.start()
        self._nat.start()

    def stop(self) -> None:
        """End the background threads; the maps stay as they are."""
        self._floods.stop()
        self._nat.stop()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread:
            self._thread.join()
        self._trimmer.wait()
        self.watch.close()

    def change(
        self,
        edit: Callable[[Config], Config],
        *,
        actor: str,
        summary: str,
        guard: Guard = NOBODY,
        terms: Terms = PLAIN,
    ) -> Desired:
        """Edit the desired state under the writer's lock; returns when the maps hold it.

        Changes that wait for the lock are made together, and each succeeds or fails by itself. edit gets the present
        config and returns the wanted one; what it raises is passed on and nothing changes; it may be called repeatedly.
        A config equal to the present one makes no revision. CapacityError: it does not fit a map, nothing changed.
        ConflictError: it locks out an address in use or moves too much, and guard does not allow that; or a revision
        waits to be confirmed. CompileError: nothing changed.

        If a program must be compiled first, others may change things meanwhile, and edit is called again.
        """
        asked = partial(Asked, edit, actor, summary, guard, terms)
        for _ in range(COMPILED_BESIDE_MOST):
            try:
                return self._together(asked())
            except LacksError as lacks:
                self._dataplane.prepare(lacks.wish)
        return self._together(asked(may_compile=True))

    def _make(self, asked: Sequence[Asked]) -> None:
        """Make the first of these changes, and those of the others that may join it, each a revision of its own.

        If it raises, none of them was made.
        """
        if self._plans.until <= self._clock() and not self._maps.failure:
            self._renew()
        before, until, began = self._desired, self._plans.until, time.perf_counter()
        steps = list(self._steps(asked))
        changes = [step for step in steps if step.is_change]
        moves: tuple[ServiceMove, ...] = ()
        if changes:
            moves = self._put_in_force(changes)
        elif asked[0].terms.is_rollback and steps[0].error is None:
            self._confirmation.end()
        revision = before.revision
        for step in steps:
            since, revision = revision, step.revision or revision
            step.asked.error = step.error
            if step.error is None:
                step.asked.made = Desired(revision, step.after, step.warnings, moves, since)
        seconds = round(time.perf_counter() - began, 6)
        for step in changes:
            step.tell(self.events, seconds)
        if self._plans.until < until or asked[0].terms.bear_on_pending:
            self._notify()  # something is due sooner
        for listener, part in self._listeners:
            if part(self._desired.config) is not part(before.config):
                listener()

    def _steps(self, asked: Sequence[Asked]) -> Iterator[Step]:
        """Each edit on top of the result of the one before. One that raises is a step that changes nothing."""
        present = self._desired.config
        for number, one in enumerate(asked):
            if number and not (asked[0].may_join(present) and one.may_join(present)):
                continue
            step = self._step(one, present)
            yield step
            if self._maps.hops.are_unknown(step.after, present):
                return  # it is not known yet whom the next one would lock out
            present = step.after

    def _step(self, one: Asked, present: Config) -> Step:
        now = self._clock()
        self._callers.add(one.guard.callers, now)
        try:
            config = keeping(present, one.edit(present))
            if config is present:
                return Step(one, present, present)
            if not one.terms.is_rollback:
                self._confirmation.check(present, config)
            hops = self._maps.hops.known
            return Step(one, present, config, one.guard.check(present, config, self._used, hops, now))
        except Exception as error:
            return Step(one, present, present, error=error)

    def _put_in_force(self, changes: Sequence[Step]) -> tuple[ServiceMove, ...]:
        """Store them, and make the maps match the last one; returns what they move, if that is wanted."""
        self._check_attached()
        before, config, one = self._desired.config, changes[-1].after, changes[0].asked
        plans = self._maps.plan(config)
        found = account(self._maps, before, config, plans, guard=one.guard, terms=one.terms)
        if not one.may_compile and (lacks := self._maps.lacks(config, plans)) is not None:
            raise LacksError(lacks)
        keep(self._store, self._stored, changes, self._clock())
        try:
            late = self._maps.hops.learn(config, before)
            self._maps.apply(config, plans, all_rows=late)
        except Exception as error:
            self._undo([step.revision for step in changes], error)
            raise
        self._desired, self._stored = Desired(changes[-1].revision, config), config
        if one.terms.bear_on_pending:
            self._confirmation.reload()
        self._changed_at = time.monotonic()
        self._follow_bans()
        return found.moves if found and one.terms.tell_moves else ()

    def in_use(self) -> list[Protected]:
        """Addresses that nothing should block automatically: recent callers, gateways, backends and VIPs."""
        return in_use(self._desired.config, dict(self._maps.hops.known), self._callers.lately(self._clock()))

    def listen(self, listener: Callable[[], None], part: Callable[[Config], object] = _whole) -> None:
        """Call it after every change of that part, on the thread that made it: it must not wait."""
        self._listeners.append((listener, part))

    def _renew(self, *, all_rows: bool = False) -> None:
        """Update the maps: expired entries are removed.

        They are removed from the desired state too; the store forgets them at its next write.
        """
        now, before, config = self._clock(), self._plans, self._desired.config
        plans = self._maps.plan(config, now)
        self._maps.apply(config, plans, all_rows=all_rows)
        self._desired = Desired(self._desired.revision, without_expired(config, plans))
        expiry.tell({"blocklist": before.deny, "allowlist": before.allow}, now, self.events)

    def _check_attached(self) -> None:
        """DataPlaneError if no interface is served: a change could not be put in force."""
        states = self._dataplane.interfaces()
        if not any(state.attached for state in states):
            names = ", ".join(state.name for state in states)
            raise DataPlaneError(
                f"the data plane is not attached to {names}, and nothing was changed: see /readyz"
            )

    def check(
        self, edit: Callable[[Config], Config], *, guard: Guard = NOBODY, terms: Terms = PLAIN
    ) -> Proposal:
        """A dry run: planned, but not stored or applied. It raises what a change raises.

        Except that a revision waits to be confirmed: that does not prevent a dry run.
        """
        with self._lock:
            before = self._desired.config
            config = keeping(before, edit(before))
            warnings = guard.check(before, config, self._used, self._maps.hops.known, self._clock())
            plans = self._maps.plan(config)
            found = account(self._maps, before, config, plans, guard=guard, terms=terms)
            return Proposal(before, config, warnings, found.moves if found else ())

    def now(self) -> float:
        """The clock that entries' deadlines are kept by, seconds since the epoch."""
        return self._clock()

    def _undo(self, revisions: Sequence[int], error: Exception) -> None:
        """Undo whatever part of the changes is in the maps. If that fails too, `_follow` retries."""
        for revision in revisions:
            self.events.failure(f"revision {revision} could not be applied and is rolled back: {error}")
        try:
            self._maps.go_back(self._desired.config)
        except Exception as again:
            self.events.failure(f"the maps could not be restored: {again}")
            self._notify()
        with self._store.together():
            for revision in reversed(revisions):
                self._store.discard(revision)

    def _fit(self) -> None:
        """Put a program in force that also has what watchers need; it is compiled while others may change things."""
        self._check_attached()
        self._dataplane.prepare(self._maps.wish(self._desired.config, self._plans))
        with self._lock:
            self._dataplane.require(self._maps.wish(self._desired.config, self._plans))
            self._changed_at = time.monotonic()

    def _on_unwatched(self) -> None:
        """Delay the trim: a watcher that returns soon, as `top` does, finds the program unchanged."""
        self._changed_at = time.monotonic()

    def _follow_bans(self) -> None:
        """Also retries after a failure, or when the reader died. A change holds even if reports cannot be read."""
        try:
            self.watch.follow_bans(bans_wanted(self._desired.config))
        except OSError as error:
            self.events.failure(
                f"sources over a limit cannot be banned, because the reports cannot be read: {error}"
            )

    def _ban(self, bans: list[Ban]) -> None:
        """Sources over the limit of a rule become entries of its layer of the blocklist."""
        with self._lock:
            now = self._clock()
            in_use = [one.prefix for one in self.in_use()]
            banned = entries_of(bans, self._plans.rules.by_number, self._desired.config, now, in_use)
            if not banned:
                return
            rules = ", ".join(sorted({each.rule for each in banned}))
            desired = self.change(
                lambda config: with_bans(config, banned),
                actor="limits",
                summary=f"{len(banned)} over the limit of {rules}",
            )
            tell_bans(self.events, banned, desired.revision)

    def _on_hops_changed(self) -> None:
        self._hops_changed = True
        self._notify()

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _follow(self) -> None:
        """The loop: changes of next hops, expired entries, unused features."""
        told: str | None = None
        while True:
            with self._wake:
                if not (self._stopping or self._hops_changed):
                    self._wake.wait(self._pause())
                if self._stopping:
                    return
                hops_changed, self._hops_changed = self._hops_changed, False
            try:
                with self._lock:
                    self._follow_once(hops_changed)
                    self._follow_bans()
                told = None
                if time.monotonic() - self._changed_at >= TRIM_AFTER_SECONDS:
                    self._trimmer.ask()
            except SluiceError as error:
                if str(error) != told:  # retried each second, but reported once
                    told = str(error)
                    self.events.failure(f"the maps could not be updated: {told}")
            except Exception:  # whatever it was, entries must expire and next hops be followed
                log.exception("the maps could not be updated")

    def _follow_once(self, hops_changed: bool) -> None:
        if self._maps.failure:
            self._maps.go_back(self._desired.config)
            return
        self.history.roll_back_if_due()
        self._maps.forget_moved()
        config = self._desired.config
        try:
            before = self._maps.hops.known
            moved = hops_changed and self._maps.hops.refresh(config)
            if moved:
                tell_hops(self.events, before, self._maps.hops.known)
        except Exception as error:
            self._maps.failure = f"the next hops cannot be read: {error}"
            raise
        if moved or self._plans.until <= self._clock():
            self._renew(all_rows=moved)

    def _trim(self) -> None:
        """Trim the program to what is in use. It is compiled before the lock is taken, so changes go on."""
        wish = self._maps.wish(self._desired.config, self._plans)
        self._dataplane.prepare(wish)
        with self._lock:
            if wish == self._maps.wish(self._desired.config, self._plans):
                self._dataplane.require(wish, exactly=True)

    def _pause(self) -> float:
        """How long to wait until something may be due."""
        left = self._confirmation.left()
        if self._maps.failure or (left is not None and left <= 0):  # what failed is retried
            return RETRY_SECONDS
        to_trim = self._changed_at + TRIM_AFTER_SECONDS - time.monotonic()
        longest = to_trim if to_trim > 0 else TRIM_AFTER_SECONDS
        longest = longest if left is None else min(left, longest)
        return max(0.0, min(longest, self._plans.until + expiry.GATHER_SECONDS - self._clock()))
