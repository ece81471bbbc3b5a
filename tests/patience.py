"""How long a test waits for what must come: a bound against hanging, never a measure, and longer on a busy machine."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

STRETCH_MAX = 20.0
CORES = os.cpu_count() or 1


def slowness() -> float:
    """How many times as long as on an idle machine work takes here and now: what wants to run, per core. At least 1."""
    wanting = 0.0
    with suppress(OSError):
        wanting = os.getloadavg()[0]
    with suppress(OSError, ValueError, IndexError):
        # The average forgets within a minute and learns as slowly; this is the number of this instant.
        wanting = max(wanting, float(Path("/proc/loadavg").read_text().split()[3].split("/")[0]))
    return min(max(1.0, wanting / CORES), STRETCH_MAX)


def stretched(seconds: float) -> float:
    """So many seconds of an idle machine, as long as they take on this one now."""
    return seconds * slowness()


class Patience:
    """``within_s`` seconds of an idle machine from now on; what the load is counts when one asks."""

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s
        self._began_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self._began_s > stretched(self.within_s)
