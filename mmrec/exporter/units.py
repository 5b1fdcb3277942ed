"""Units of an export, each done by whichever process takes it first; who finds all of them done finishes the export."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmrec.data.leases import SILENCE_S, Leases
from mmrec.exporter.parts import is_intact
from mmrec.exporter.workplace import POLL_S, Lost, Workplace

__all__ = ["Units"]

logger = logging.getLogger(__name__)

# A process that has nothing else to do takes over what another one has had so much longer than it took itself.
_SLOWER = 3.0
_HASHING_THREADS = 4

May = Callable[[], bool]


class Units:
    """What one process does of an export.

    Args:
        work: the export.
        leases: opened.

    Attributes:
        mine: units that this process has done, with what is known of each.
    """

    def __init__(self, work: Workplace, leases: Leases) -> None:
        self._work = work
        self._leases = leases
        self._longest_s = SILENCE_S
        self.mine: dict[str, dict[str, Any]] = {}

    def do(
        self,
        units: Sequence[str],
        write: Callable[[str, May], dict[str, Any]],
        done: Callable[[str], object] = lambda unit: None,
    ) -> None:
        """Return when all of the units are done, by anybody, or the whole export is over.

        Args:
            write: does a unit and returns what is to be known of it, if it still may when it commits a file.
            done: called with each unit that is done.
        """
        waiting = list(units)
        while waiting and not self._work.is_over():
            before, waiting = waiting, [unit for unit in waiting if not self._done(unit, write, done)]
            if len(before) == len(waiting):  # others have all of them
                slow = [unit for unit in waiting if self._leases.watched_s(unit) > _SLOWER * self._longest_s]
                for unit in slow[:1]:
                    logger.warning("%s takes its owner long; doing it here", unit)
                    self._take(unit, by_force=True)
                if not slow:
                    time.sleep(POLL_S)

    def _done(self, unit: str, write: Callable[[str, May], dict[str, Any]], done: Callable[[str], object]) -> bool:
        """Whether the unit is done, if possible by doing it."""
        if self._work.entry(unit) is None:
            if not self._take(unit):
                return False
            if self._work.entry(unit) is None:
                try:
                    self._write(unit, write)
                except Lost:
                    return False
        self._leases.release(unit)
        done(unit)
        return True

    def _take(self, unit: str, *, by_force: bool = False) -> bool:
        try:
            return self._leases.seize(unit) if by_force else self._leases.take(unit)
        except FileNotFoundError:  # the folder of leases goes away with the end
            return False

    def _write(self, unit: str, write: Callable[[str, May], dict[str, Any]]) -> None:
        started = time.monotonic()
        entry = write(unit, lambda: self._leases.holds(unit))
        self._work.enter(unit, entry, lambda: self._leases.holds(unit))
        self.mine[unit] = entry
        self._longest_s = max(self._longest_s, time.monotonic() - started)

    def damaged(self, units: Sequence[str]) -> list[str]:
        """Of the units those that others have done and that are not, or no more, what they said; withdrawn."""

        def is_whole(unit: str) -> bool:
            entry = self._work.entry(unit)
            return unit in self.mine or (entry is not None and is_intact(self._work, entry["part"]))

        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            found = [unit for unit, whole in zip(units, pool.map(is_whole, units), strict=True) if not whole]
        for unit in found:
            self._work.withdraw(unit)
        return found

    def finish(self, is_done: Callable[[May], bool]) -> None:
        """Finish the export, or wait until another process has.

        Args:
            is_done: finishes, if it still may at the last step; False if units proved damaged and were done again.
        """
        while not self._work.is_over():
            if self._take("finish"):
                try:
                    if is_done(lambda: self._leases.holds("finish")):
                        return
                except Lost:
                    continue
            elif self._leases.watched_s("finish") > 10 * SILENCE_S:
                self._take("finish", by_force=True)
            else:
                time.sleep(POLL_S)
