"""When a stream counts as live and when a socket is replaced."""

from __future__ import annotations

import random

from ledger.stream.liveness import backoff_s, late_s, next_attempt


def test_a_quiet_account_is_covered_until_the_answer_to_a_ping_is_overdue() -> None:
    assert late_s(quiet_s=0.0, silence_s=75) == 0
    assert late_s(quiet_s=20.5, silence_s=75) == 0, "pinged at 20 s, the answer may take a second"
    assert late_s(quiet_s=21.5, silence_s=75) == 21.5, "nothing since the last sign of life is sure"


def test_a_short_silence_setting_pings_more_often_and_doubts_sooner() -> None:
    assert late_s(quiet_s=1.9, silence_s=3) == 0
    assert late_s(quiet_s=2.1, silence_s=3) == 2.1
    assert late_s(quiet_s=0.7, silence_s=1) == 0.7


def test_a_venue_that_accepts_and_drops_at_once_is_backed_away_from() -> None:
    chance = random.Random(1)
    attempt, waits = 1, []
    for _ in range(5):
        waits.append(backoff_s(attempt, chance))
        attempt = next_attempt(attempt, lived_s=0.3)

    assert waits == sorted(waits)
    assert 7.5 <= waits[-1] <= 15, "who is backed away from is still looked for four times a minute"


def test_a_socket_that_lived_well_is_replaced_at_once_and_a_fair_one_soon() -> None:
    assert next_attempt(6, lived_s=3600) == 0
    assert next_attempt(6, lived_s=20) == 1
    assert next_attempt(6, lived_s=5) == 7
