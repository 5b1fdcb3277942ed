"""How many damaged media a run puts up with."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from mmrec.errors import DataError

__all__ = ["FaultBudget"]

logger = logging.getLogger(__name__)

# So many faults are never too many: one in the first ten media says nothing of the rest.
ALWAYS_ALLOWED = 10
# So many faults are named; the rest are counted.
NAMED = 5


class FaultBudget:
    """Counts media read and media found damaged, and stops a run in which too many are. Safe under threads.

    Args:
        max_faults: largest share of the media read so far that may be damaged; 10 of them always may.
    """

    def __init__(self, max_faults: float = 0.01) -> None:
        self.max_faults = max_faults
        self.num_read = 0
        self.num_faults = 0
        self._first: list[str] = []
        self._lock = threading.Lock()

    def tally(self, num_read: int, faults: Sequence[str] = ()) -> None:
        """Count ``num_read`` media more, of which ``faults`` are damaged, and masked.

        What is read together is counted together and in its own order, whichever thread was first: processes that
        read the same media stop at the same one.

        Args:
            faults: what is wrong with each.

        Raises:
            DataError: if that is too many; the message names the first few.
        """
        with self._lock:
            self.num_read += num_read
            for message in faults:
                self.num_faults += 1
                if len(self._first) < NAMED:
                    self._first.append(message)
                    logger.warning("masked: %s", message)
                elif self.num_faults == NAMED + 1:
                    logger.warning("more damaged media are masked and counted, not named")
            if faults and self.num_faults > max(ALWAYS_ALLOWED, self.max_faults * self.num_read):
                raise DataError(
                    f"{self.num_faults:,} of {self.num_read:,} media are damaged, more than the {self.max_faults:.1%} "
                    f"that a run puts up with: {'; '.join(self._first)}; `mmrec check` the dataset, or ingest it again"
                )
