"""`sluice top` at a terminal: tabs over the whole screen, drawn anew each second; curses knows the terminals."""

import curses
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from lb.cli.session import Session
from lb.cli.top_tables import Line, Look, Seen, View, backends, drops, services, summary
from lb.errors import SluiceError

TABS = ("talkers", "services", "backends", "drops")
BY = ("source", "prefix", "service", "verdict")
_TABLES = {"services": services, "backends": backends, "drops": drops}
_TALKERS_LOOKED_FOR = 100
"""Lines of talkers: as many as a screen may have."""
_WAIT_MS = 100
_HELP = "1-4 or Tab: another tab   ↑ ↓: scroll   b: talkers by   p: pause   q: quit"


class Looker(threading.Thread):
    """Asks the daemon again and again, as the screen wants it, in a thread of its own: the keys never wait for it."""

    def __init__(self, session: Session, query: dict[str, Any], seconds: float) -> None:
        super().__init__(daemon=True)
        self._session, self._query, self._seconds = session, query, seconds
        self.tab, self.by = TABS[0], query["by"]
        self.seen, self.error = Seen(), ""
        self.changed, self._woken, self._ended = threading.Event(), threading.Event(), False

    def run(self) -> None:
        """Until the process ends, or `end`."""
        while not self._ended:
            self._woken.clear()
            try:
                self._look()
                self.error = ""
            except SluiceError as error:
                self.error = str(error)
                self._woken.wait(self._seconds)
            self.changed.set()

    def _look(self) -> None:
        ask = self._session.client.call
        status, stats = ask("GET", "/status").document, ask("GET", "/stats").document
        self.seen = self.seen.after(Look(time.monotonic(), status, stats))
        self.changed.set()
        if self.tab != TABS[0]:
            self._woken.wait(self._seconds)
            return
        by = self.by
        found = ask("GET", "/top", query={**self._query, "by": by, "limit": _TALKERS_LOOKED_FOR}).document
        if by == self.by:
            self.seen = replace(self.seen, talkers=found)

    def show(self, tab: str, by: str) -> None:
        """What is asked for from now on."""
        if by != self.by:
            self.seen = replace(self.seen, talkers=None)
        self.tab, self.by = tab, by
        self._woken.set()

    def end(self) -> None:
        """Ask no more."""
        self._ended = True
        self._woken.set()


class Screen:
    """The tabs, and what the keys do."""

    def __init__(
        self, window: curses.window, looker: Looker, talkers: Callable[[dict[str, Any]], View]
    ) -> None:
        self._window, self._looker, self._talkers = window, looker, talkers
        self._tab, self._by, self._top, self._paused = TABS[0], looker.by, 0, False
        self._seen, self._bad = looker.seen, curses.A_BOLD
        curses.set_escdelay(25)
        curses.curs_set(0)
        window.timeout(_WAIT_MS)
        if curses.has_colors() and not os.environ.get("NO_COLOR"):
            curses.use_default_colors()
            curses.init_pair(1, curses.COLOR_RED, -1)
            self._bad |= curses.color_pair(1)

    def run(self) -> None:
        """Draw and listen, until q."""
        self.draw()
        while True:
            key = self._window.getch()
            if key in (ord("q"), ord("Q"), 27):
                return
            if key != -1:
                self._press(key)
            if key != -1 or self._looker.changed.is_set():
                self._looker.changed.clear()
                self.draw()

    def _press(self, key: int) -> None:
        page = max(1, self._window.getmaxyx()[0] - 6)
        steps = {curses.KEY_DOWN: 1, curses.KEY_UP: -1, curses.KEY_NPAGE: page, curses.KEY_PPAGE: -page}
        steps |= {ord("j"): 1, ord("k"): -1}
        if key in steps:
            self._top = max(0, self._top + steps[key])
        elif key == curses.KEY_HOME:
            self._top = 0
        elif key in (9, curses.KEY_RIGHT, curses.KEY_BTAB, curses.KEY_LEFT):
            step = 1 if key in (9, curses.KEY_RIGHT) else -1
            self._open(TABS[(TABS.index(self._tab) + step) % len(TABS)])
        elif ord("1") <= key < ord("1") + len(TABS):
            self._open(TABS[key - ord("1")])
        elif key == ord("b"):
            self._by = BY[(BY.index(self._by) + 1) % len(BY)]
            self._open(TABS[0])
        elif key == ord("p"):
            self._paused = not self._paused
        elif key == curses.KEY_RESIZE:
            curses.update_lines_cols()

    def _open(self, tab: str) -> None:
        self._tab, self._top = tab, 0
        self._looker.show(tab, self._by)

    def _view(self) -> View:
        if self._tab in _TABLES:
            return _TABLES[self._tab](self._seen)
        if self._seen.talkers is None:
            return View("", [], f"looking at who sends the most, by {self._by}…")
        return self._talkers(dict(self._seen.talkers))

    def draw(self) -> None:
        """The whole screen, as far as there is room."""
        if not self._paused:
            self._seen = self._looker.seen
        view, window = self._view(), self._window
        height, _ = window.getmaxyx()
        room = max(0, height - 6)
        self._top = max(0, min(self._top, len(view.lines) - room))
        window.erase()
        for at, text in enumerate(summary(self._seen, time.time())):
            self._put(at, text, curses.A_BOLD if at == 0 else 0)
        column = 0
        for at, tab in enumerate(TABS):
            name = f" {at + 1} {tab}{f' by {self._by}' if tab == TABS[0] else ''} "
            self._put(2, name, curses.A_REVERSE if tab == self._tab else 0, column)
            column += len(name) + 1
        self._put(4, view.header, curses.A_BOLD)
        for at, line in enumerate(view.lines[self._top : self._top + room]):
            self._put(5 + at, line.text, self._bad if line.is_bad else 0)
        if not view.lines and self._seen.now is not None:
            self._put(5, view.nothing)
        self._put(
            height - 1, self._foot(len(view.lines), room), self._bad if self._looker.error else curses.A_DIM
        )
        window.refresh()

    def _foot(self, lines: int, room: int) -> str:
        if self._looker.error:
            return self._looker.error
        where = f"{self._top + 1}-{min(lines, self._top + room)} of {lines}   " if lines > room > 0 else ""
        return f"{'PAUSED   ' if self._paused else ''}{where}{_HELP}"

    def _put(self, line: int, text: str, attribute: int = 0, column: int = 0) -> None:
        """Text where it fits; what is beyond the edge is left out."""
        height, width = self._window.getmaxyx()
        if not (0 <= line < height and column < width):
            return
        try:
            self._window.addnstr(line, column, text, width - column, attribute)
        except curses.error:  # the last cell of the screen is written, and the cursor has nowhere to go
            return


def is_possible() -> bool:
    """Whether this terminal can be drawn on."""
    try:
        curses.setupterm()
    except curses.error:
        return False
    return bool(curses.tigetstr("cup")) and bool(curses.tigetstr("clear"))


def run(
    session: Session, query: dict[str, Any], seconds: float, lines: Callable[[dict[str, Any]], Any]
) -> None:
    """The screen, until q or Ctrl-C. lines: the table of a document of /top, its header first, a remark last."""
    looker = Looker(session, query, seconds)

    def talkers(document: dict[str, Any]) -> View:
        head, *rows = map(click.unstyle, lines(document))
        return View(head, [Line(row) for row in rows])

    def within(window: curses.window) -> None:
        looker.start()
        Screen(window, looker, talkers).run()

    try:
        curses.wrapper(within)
    finally:
        looker.end()
