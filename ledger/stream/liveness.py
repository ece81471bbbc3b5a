"""When a stream counts as live, and when a connection is tried again. Pure: time and chance are handed in."""

from __future__ import annotations

import random

from ledger.wire import budget
from ledger.wire.socket import ping_every_s

PAUSE_MAX_S = 15.0
"""The longest pause between two attempts: what happens while nobody listens may be lost for good."""
SETTLED_S = 60.0
"""A socket that lived this long was a good one."""
BRIEF_S = 5.0
"""A socket that lived no longer than this was as good as none."""
ANSWER_S = 1.0
"""How long the answer to a ping may take before silence looks like more than quiet."""


def late_s(quiet_s: float, silence_s: float) -> float:
    """How much of the last ``quiet_s`` without a frame, ping or pong cannot be called covered, in seconds.

    None of it while the answer to our next ping is not due yet: an account may be quiet. All of it afterwards:
    frames may have been missed ever since. ``silence_s`` is the setting, which decides how often we ping.
    """
    every_s = ping_every_s(silence_s)
    return quiet_s if quiet_s > every_s + min(ANSWER_S, every_s) else 0.0


def backoff_s(attempt: int, rng: random.Random) -> float:
    """Seconds to wait after ``attempt`` (1, 2, 3 …) failed: 1 to 2, 2 to 4, … 7.5 to 15."""
    return budget.backoff_s(attempt, rng, longest_s=PAUSE_MAX_S)


def next_attempt(attempt: int, lived_s: float) -> int:
    """The attempt to count after a socket ended; 0 is without a pause.

    What happens while nobody listens may be lost for good, so a good socket is replaced at once and a fair one after
    the shortest pause. A venue that accepts and drops at once is backed away from like one that does not accept.
    """
    if lived_s >= SETTLED_S:
        return 0
    return 1 if lived_s > BRIEF_S else attempt + 1
