"""Which difference between the venue's clock and ours to believe. Pure: readings and times are handed in.

Always holds: one reading alone never moves the offset that was believed before; what a second one confirms is believed
at once only where a clock of our own (this machine's, the database's) is near it, or the venue itself refused our time;
without any of these it must be measured for a while. A time that the venue itself refused is believed only where a
clock of our own is near it, however long it is measured: a wrong Date is not what the venue goes by. Nothing farther
than a day from every clock of ours is ever believed.
Until anything is known, the older of the venue's clock and ours counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TRUST_MS = 2000
"""Two readings that differ by no more, beyond their own errors, agree: a Date has whole seconds and is stamped on the
way."""
NEAR_MS = 60_000
"""A clock of our own vouches for what differs from it by no more."""
FAR_MS = 86_400_000
"""What differs by more from every clock of our own is nonsense, whoever tells it."""
LASTS_S = 60.0
"""So long something that nothing vouches for must be told before it is believed."""
REMEMBERED_S = 900.0
REMEMBERED_MAX = 32

Source = Literal["time", "date"]
"""Which part of the venue told: its time endpoint, or whatever writes the Date header."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The venue's clock minus our steady one by one answer, and how far that may be off, ms; ``at_s``: monotonic."""

    offset_ms: int
    error_ms: int
    at_s: float
    source: Source

    def agrees(self, offset_ms: int, error_ms: int = 0) -> bool:
        """Whether this reading may mean the same offset."""
        return abs(self.offset_ms - offset_ms) <= TRUST_MS + self.error_ms + error_ms


class Offset:
    """The offset believed now, and the readings that contradict it."""

    def __init__(self, error_ms: int, *, since_s: float = 0.0) -> None:
        self.doubts: list[Reading] = []
        """Readings since the last that agreed, none of which does."""
        self.steps_back = 0
        """How often what was believed turned out to be ahead of the venue."""
        self.doubted_since_s = since_s
        """Since when (monotonic) the offset that the last step back replaced had been believed."""
        self._ms = 0
        self._error_ms = error_ms
        self._since_s = since_s
        self._settled = False
        self._refused_ms: int | None = None
        """The offset of the newest timestamp that the venue refused."""
        self._own_ms: dict[str, int] = {}

    @property
    def ms(self) -> int:
        """The venue's clock minus our steady one. Before anything was confirmed the older of the two counts."""
        return self._ms if self._settled or not self._may_be_older else min(self._ms, self.doubts[-1].offset_ms)

    @property
    def error_ms(self) -> int:
        """How far ``ms`` may be off, either way."""
        return self._error_ms if self._settled or not self._may_be_older else self.doubts[-1].error_ms

    @property
    def may_be_ahead(self) -> bool:
        """Whether the newest reading says that the venue's clock is behind what is believed."""
        return bool(self.doubts) and self.doubts[-1].offset_ms < self.ms

    def vouch(self, name: str, offset_ms: int) -> None:
        """What a clock of our own says, as its difference from our steady one."""
        self._own_ms[name] = offset_ms

    def refuse(self, offset_ms: int) -> None:
        """The venue refused a timestamp made with this offset."""
        self._refused_ms = offset_ms

    def is_refused(self, reading: Reading) -> bool:
        """Whether a reading says what the venue itself refused."""
        return self._refused_ms is not None and reading.agrees(self._refused_ms)

    def set(self, offset_ms: int, error_ms: int, now_s: float) -> None:
        """Believe this, whatever was said before."""
        if self._settled and offset_ms < self._ms - TRUST_MS:
            self.steps_back += 1
            self.doubted_since_s = self._since_s
        if not self._settled or abs(offset_ms - self._ms) > TRUST_MS:
            self._since_s = now_s
        self._ms, self._error_ms, self._settled = offset_ms, error_ms, True
        self.doubts = []

    def hear(self, reading: Reading, *, refused: bool = False, passing: bool = False) -> None:
        """Take note of one reading. ``refused``: the venue refused our time, which speaks for the reading.

        ``passing``: it came along with an answer to something else, so while it agrees it is too coarse to be taken.
        """
        if reading.agrees(self._ms):
            if passing:
                self._settled, self.doubts = True, []
            else:
                self.set(reading.offset_ms, reading.error_ms, reading.at_s)
            return
        told = [one for one in self.doubts if reading.at_s - one.at_s <= REMEMBERED_S]
        same = [one for one in told if reading.agrees(one.offset_ms, one.error_ms)]
        self.doubts = [*told, reading][-REMEMBERED_MAX:]
        if same and self._is_confirmed(reading, same, refused=refused):
            finest = min((reading, *same), key=lambda one: (one.error_ms, -one.at_s))
            self.set(finest.offset_ms, finest.error_ms, reading.at_s)

    def _is_confirmed(self, reading: Reading, same: list[Reading], *, refused: bool) -> bool:
        if not self._differs_by(reading, FAR_MS):
            return False
        if self._differs_by(reading, NEAR_MS):
            return True
        if self.is_refused(reading):
            return False
        if refused:
            return True
        sources = {one.source for one in (reading, *same)}
        # Two parts of the venue agree, and nothing was known before that they contradict.
        if not self._settled and len(sources) > 1:
            return True
        return reading.at_s - same[0].at_s >= LASTS_S

    def _differs_by(self, reading: Reading, most_ms: int) -> bool:
        """Whether a clock of our own differs from the reading by no more than that."""
        return any(abs(reading.offset_ms - own_ms) <= most_ms for own_ms in self._own_ms.values())

    @property
    def _may_be_older(self) -> bool:
        return bool(self.doubts) and self._differs_by(self.doubts[-1], FAR_MS)
