"""What a refusal of the venue is about, and when the question is asked again. Pure: values in, values out.

A refusal concerns its question alone. What concerns every question (the venue is away, a rate limit, a wrong clock, a
refused key) is told apart before: by ``wire.http``, which raises VenueBusy or KeyRefused, and by its CLOCK_OFF; a
question that alone gets no answer by ``asking``, which raises Unanswered.
"""

from __future__ import annotations

import re

from ledger.errors import KeyRefused, Unanswered, VenueRefused
from ledger.venue.requests import Request
from ledger.wire.http import CLOCK_OFF

UNKNOWN_SYMBOL = -1121
TOO_WIDE = -1127

FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 86_400_000

_PARAMETER = re.compile(r"(?i)\b(symbol|startTime|endTime|orderId|fromId|timestamp|recvWindow|signature|limit)\b")
_OF_PARAMETERS = range(-1199, -1099)
_OF_OTHERS = frozenset({UNKNOWN_SYMBOL, TOO_WIDE, -1102, -1125, -1128})
"""Codes of that range that are never about a limit unless they name it."""

_AGE = re.compile(r"(?i)start ?time|window|histor|older|recent|too far|\bdays?\b|\bmonths?\b|\byears?\b")
_SPAN = re.compile(r"(?i)\b(\d{1,4})[ -]?(hour|day|week|month|year)s?\b")
_DAY_MS = 86_400_000
# A month and a year at their shortest: less is asked for, never more.
_UNIT_MS = {"hour": 3_600_000, "day": _DAY_MS, "week": 7 * _DAY_MS, "month": 28 * _DAY_MS, "year": 365 * _DAY_MS}


def ends_walk(refused: VenueRefused) -> bool:
    """Whether it concerns every question: the key, our clock, or an answer that is not the venue's own (no code)."""
    if isinstance(refused, Unanswered):
        return False
    return isinstance(refused, KeyRefused) or refused.code is None or refused.code == CLOCK_OFF


def pause_ms(tries: int) -> int:
    """How long to wait after a market was refused ``tries`` times, at least once: 1, 2, 4 minutes … up to a day."""
    assert tries >= 1
    return min(FIRST_PAUSE_MS << min(tries - 1, 32), LONGEST_PAUSE_MS)


def may_be_about_limit(request: Request, refused: VenueRefused) -> bool:
    """Whether asking for fewer rows may help: the words name ``limit``, or name no parameter that we sent at all."""
    if request.limit is None or refused.code not in _OF_PARAMETERS:
        return False
    named = {name.lower() for name in _PARAMETER.findall(_words(refused))}
    return "limit" in named or not (named or refused.code in _OF_OTHERS)


def is_about_age(refused: VenueRefused) -> bool:
    """Whether the words say that the question goes back too far."""
    return not isinstance(refused, Unanswered) and _AGE.search(_words(refused)) is not None


def told_range_ms(refused: VenueRefused) -> int | None:
    """How far back the venue says it goes (``recent 90 days``), in ms; None: it names no span."""
    named = _SPAN.search(_words(refused))
    return None if named is None else int(named[1]) * _UNIT_MS[named[2].lower()]


def _words(refused: VenueRefused) -> str:
    """What the venue said, without the question it is told with."""
    _, said, words = str(refused).partition("the venue says ")
    return words if said else str(refused)
