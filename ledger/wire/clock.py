"""Clocks: what time it is here, what time it is at the venue, and how to wait.

Always holds: nothing else in the program reads the time. ``monotonic_s`` measures how long things take and is
never compared with the wall; the venue's clock is this machine's plus an offset measured over REST.
"""

from __future__ import annotations

import asyncio
import time

from ledger.wire.offset import Offset, Reading

UNMEASURED_ERROR_MS = 2000
"""How far off this machine's clock is taken to be as long as nobody measured."""


class Clock:
    """The real time. The offset to the venue is 0 until somebody measures it.

    The venue's clock is carried on by the steady one: when somebody sets this machine's wall clock, ours of the venue
    does not jump with it.
    """

    def __init__(self, error_ms: int = UNMEASURED_ERROR_MS) -> None:
        self._anchor: tuple[int, float] | None = None
        self._offset = Offset(error_ms, since_s=self.monotonic_s())
        self._signing_ms: int | None = None

    def now_ms(self) -> int:
        """This machine's wall clock, ms UTC. It may jump."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since some moment of the past; never goes back."""
        return time.monotonic()

    def steady_ms(self) -> int:
        """What this machine's wall clock said when first asked, carried on by the steady one, ms UTC."""
        if self._anchor is None:
            self._anchor = self.now_ms(), self.monotonic_s()
        anchor_ms, anchor_s = self._anchor
        return anchor_ms + round((self.monotonic_s() - anchor_s) * 1000)

    def venue_now_ms(self) -> int:
        """The venue's clock, ms UTC, as far as it is believed (see ``wire.offset``)."""
        return self.steady_ms() + self._offset.ms

    def venue_ms_at(self, monotonic_s: float) -> int:
        """What the venue's clock said at that moment, by what is believed now."""
        return self.venue_now_ms() - round((self.monotonic_s() - monotonic_s) * 1000)

    def signing_now_ms(self) -> int:
        """The venue's clock as it was last measured, believed or not: for what the venue itself compares with it."""
        return self.steady_ms() + self.signing_offset_ms

    @property
    def signing_offset_ms(self) -> int:
        """The offset of ``signing_now_ms``."""
        return self._offset.ms if self._signing_ms is None else self._signing_ms

    def refuse(self, offset_ms: int) -> None:
        """The venue refused a timestamp made with this offset: no request is signed by a measurement that agrees."""
        self._offset.refuse(offset_ms)

    @property
    def offset_ms(self) -> int:
        """The venue's clock minus this machine's, as that was when first asked."""
        return self._offset.ms

    @property
    def error_ms(self) -> int:
        """How far ``venue_now_ms`` may be from the venue's clock, either way, ms."""
        return self._offset.error_ms

    @property
    def is_doubted(self) -> bool:
        """Whether the newest answer contradicts what is believed."""
        return bool(self._offset.doubts)

    @property
    def doubted_for_s(self) -> float:
        """Seconds since the first of the answers that contradict; 0 when none does."""
        return self.monotonic_s() - self._offset.doubts[0].at_s if self._offset.doubts else 0.0

    @property
    def may_be_ahead(self) -> bool:
        """Whether the newest answer says that ``venue_now_ms`` is ahead of the venue: nothing more is covered then."""
        return self._offset.may_be_ahead

    @property
    def steps_back(self) -> int:
        """How often ``venue_now_ms`` turned out to have been ahead."""
        return self._offset.steps_back

    @property
    def doubted_since_s(self) -> float:
        """Since when (monotonic) what the last step back replaced had been believed."""
        return self._offset.doubted_since_s

    def trail_ms(self, rest_lag_s: float) -> int:
        """How long before an instant of ours REST may know nothing yet of what the venue dates: as long as it lags, and
        as much more as our clock may be ahead."""
        return int(rest_lag_s * 1000) + self.error_ms

    def vouch(self, name: str, ms: int) -> None:
        """What another clock of our own says now, ms UTC."""
        self._offset.vouch(name, ms - self.steady_ms())

    def hear(self, reading: Reading, *, refused: bool = False, passing: bool = False) -> None:
        """Take note of what one answer tells of the venue's clock (see ``Offset.hear``)."""
        self.vouch("this machine", self.now_ms())
        self._offset.hear(reading, refused=refused, passing=passing)
        if not passing:
            is_better = not reading.agrees(self._offset.ms) and not self._offset.is_refused(reading)
            self._signing_ms = reading.offset_ms if is_better else None

    def set_offset(self, offset_ms: int, error_ms: int) -> None:
        """Believe this offset, which may be wrong by so much, whatever was measured."""
        self._offset.set(offset_ms, error_ms, self.monotonic_s())

    async def sleep(self, seconds: float) -> None:
        """Wait; not at all for zero or less, but other tasks get their turn."""
        await asyncio.sleep(max(seconds, 0))


class ManualClock(Clock):
    """A clock that stands still until ``advance`` moves it: for tests and simulations."""

    def __init__(self, start_ms: int = 1_717_430_400_000) -> None:
        self._start_ms = start_ms
        self._elapsed_s = 0.0
        self._jumped_ms = 0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._someone_slept = asyncio.Event()
        super().__init__(error_ms=0)  # it is right

    def now_ms(self) -> int:
        return self._start_ms + self._jumped_ms + round(self._elapsed_s * 1000)

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def advance(self, seconds: float) -> None:
        """Let time pass and wake, in order, whoever slept until then."""
        assert seconds >= 0, "time does not go back"
        self._elapsed_s += seconds
        for due_s, sleeper in sorted(self._sleepers, key=lambda entry: entry[0]):
            if due_s <= self._elapsed_s and not sleeper.done():
                sleeper.set_result(None)

    def jump(self, ms: int) -> None:
        """Set the wall clock forward or back, as an administrator would; nobody wakes."""
        self._jumped_ms += ms

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._elapsed_s + seconds, sleeper)
        self._sleepers.append(entry)
        self._someone_slept.set()
        try:
            await sleeper
        finally:
            self._sleepers.remove(entry)

    async def until_asleep(self, seconds: float | None = None) -> float:
        """Wait until somebody sleeps (for exactly ``seconds``, if given); returns the shortest sleep left."""
        while True:
            left_s = sorted(due_s - self._elapsed_s for due_s, sleeper in self._sleepers if not sleeper.done())
            if seconds is not None:
                left_s = [left for left in left_s if abs(left - seconds) < 1e-6]
            if left_s:
                return left_s[0]
            self._someone_slept.clear()
            await self._someone_slept.wait()
