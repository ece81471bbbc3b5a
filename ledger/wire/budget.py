"""How much and how soon the venue may be asked. Pure: time is handed in.

Always holds: over any sliding 60 s the weight sent stays within the limit, wherever in those seconds the venue
counts it; no more than 20 paced requests leave in any second; nothing is sent while the venue has told us to wait.
Sources: the venue documents weights, 429 and 418; Retry-After, used-weight headers and bans of 2 minutes to 3 days are
those of the venue it follows.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

WINDOW_S = 60.0
REQUESTS_PER_S_MAX = 20
"""However much weight is left: a burst looks like an attack."""
PACE_S = 1.0
BLOCK_MAX_S = 3 * 86_400.0
"""The longest ban anybody has told of. A longer wait is taken for a mistake of the sender and cut to this."""

UNTOLD_WAIT_S = {429: 60.0, 418: 120.0}
"""How long to wait when the answer does not say it."""

GARBAGE_WAIT_S = 60.0
_IN_FLIGHT_PAUSE_S = 0.25
_BACKOFF_MAX_S = 60.0


class Budget:
    """Weight spent in the last minute, ours and what the venue counts besides (other programs on our address).

    A request's weight counts from ``reserve`` on and for 60 s after ``settle``, since nobody can tell when
    between the two the venue counted it. Times are seconds of one monotonic clock.
    """

    def __init__(self, limit: int) -> None:
        assert limit >= 1
        self.limit = limit
        self._in_flight = 0
        self._spent: deque[tuple[float, int]] = deque()
        self._sent: deque[float] = deque(maxlen=REQUESTS_PER_S_MAX)
        """When the newest paced requests were let through."""
        self._blocked_until_s = float("-inf")

    def reserve(self, weight: int, now_s: float, *, spare: int = 0, paced: bool = True) -> float:
        """Reserve ``weight`` and return 0, or reserve nothing and return the seconds to wait before asking again.

        A weight above the limit is let through when nothing else was spent in the minute. ``spare`` of the limit is
        left for calls that may not wait; those are not ``paced`` either.
        """
        if (blocked_s := self.blocked_for_s(now_s)) > 0:
            return blocked_s
        if paced and (pace_s := self._pace_s(now_s)) > 0:
            return pace_s
        allowed = max(self.limit - spare - weight, 0)
        if self.used(now_s) <= allowed:
            self._in_flight += weight
            if paced:
                self._sent.append(now_s)
            return 0.0
        return self._wait_s(allowed, now_s)

    def settle(self, weight: int, now_s: float) -> None:
        """A request of ``weight`` is over, answered or not."""
        assert self._in_flight >= weight
        self._in_flight -= weight
        self._spent.append((now_s, weight))

    def correct(self, used: int, now_s: float) -> None:
        """The venue says that ``used`` was spent in its minute. More than we know of: others spend too.

        Less means only that its minute began later than ours.
        """
        if (unknown := used - self.used(now_s)) > 0:
            self._spent.append((now_s, unknown))

    def used(self, now_s: float) -> int:
        """Weight that counts at ``now_s``."""
        while self._spent and self._spent[0][0] <= now_s - WINDOW_S:
            self._spent.popleft()
        return self._in_flight + sum(weight for _, weight in self._spent)

    def block(self, until_s: float) -> bool:
        """Send nothing before ``until_s``. A block is never shortened; False when one as long already stands."""
        if until_s <= self._blocked_until_s:
            return False
        self._blocked_until_s = until_s
        return True

    def blocked_for_s(self, now_s: float) -> float:
        """Seconds until the venue may be asked again, 0 when it may now."""
        return max(self._blocked_until_s - now_s, 0.0)

    def _pace_s(self, now_s: float) -> float:
        """Seconds until another paced request may leave, 0 when it may now."""
        if len(self._sent) < REQUESTS_PER_S_MAX:
            return 0.0
        # Never so little that the clock would not move.
        left_s = self._sent[0] + PACE_S - now_s
        return max(left_s, 0.001) if left_s >= 0 else 0.0

    def _wait_s(self, allowed: int, now_s: float) -> float:
        """Seconds until enough has left the window, going by what is known now."""
        excess = self._in_flight + sum(weight for _, weight in self._spent) - allowed
        for at_s, weight in self._spent:
            excess -= weight
            if excess <= 0:
                return max(at_s + WINDOW_S - now_s, 0.001)
        return _IN_FLIGHT_PAUSE_S


def used_weight(headers: Mapping[str, str]) -> int | None:
    """The weight the venue counts for its current minute; None where no header says it.

    ``headers`` have lower-case names. The venue's name for it is not known: any name with ``used-weight`` that
    does not speak of another interval than one minute (-1s, -10m, -1d).
    """
    told = [
        int(value)
        for name, value in headers.items()
        if "used-weight" in name
        and not re.search(r"used-weight-(?!1m$)\d+[a-z]$", name)
        and re.fullmatch(r"[0-9]{1,9}", value.strip())
    ]
    return max(told, default=None)


def told_wait_s(status: int, headers: Mapping[str, str], text: str, venue_now_ms: int) -> float | None:
    """How long the venue wants silence after this answer, in seconds; None when it asks for none.

    The longest of Retry-After (seconds or an HTTP date) and 'banned until <ms>' in the text counts. 429 and 418
    that tell neither get 60 s and 120 s, a Retry-After that cannot be read 60 s.
    """
    waits_s: list[float] = []
    if (retry_after := headers.get("retry-after")) is not None:
        waits_s.append(_retry_after_s(retry_after.strip(), venue_now_ms))
    if (ban := re.search(r"banned until (\d{10,16})", text)) is not None:
        waits_s.append((int(ban[1]) - venue_now_ms) / 1000)
    if not waits_s:
        return UNTOLD_WAIT_S.get(status)
    return min(max(*waits_s, 0.0), BLOCK_MAX_S)


def backoff_s(attempt: int, rng: random.Random, *, longest_s: float = _BACKOFF_MAX_S) -> float:
    """Seconds to wait after ``attempt`` (1, 2, 3 …) failed: 1 to 2, 2 to 4, … up to half of ``longest_s`` to all of it.

    Never under a second, which also keeps connection attempts a second apart. The jitter keeps many clients
    from coming back at once.
    """
    assert attempt >= 1
    most_s = min(2.0 ** min(attempt, 10), longest_s)
    return rng.uniform(most_s / 2, most_s)


def _retry_after_s(value: str, venue_now_ms: int) -> float:
    if re.fullmatch(r"[0-9]{1,12}", value):
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - venue_now_ms / 1000
    except (ValueError, OverflowError):
        return GARBAGE_WAIT_S
