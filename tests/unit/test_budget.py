"""The weight budget and the venue's wishes for silence, on a clock made of numbers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.wire.budget import BLOCK_MAX_S, Budget, backoff_s, told_wait_s, used_weight

NOW_MS = 1_717_430_400_000  # Mon, 03 Jun 2024 16:00:00 GMT


def spend(budget: Budget, weight: int, now_s: float) -> None:
    assert budget.reserve(weight, now_s) == 0
    budget.settle(weight, now_s)


def test_a_full_minute_waits_until_enough_of_it_is_over() -> None:
    budget = Budget(100)
    spend(budget, 60, 0)
    spend(budget, 40, 10)

    assert budget.reserve(10, 15) == pytest.approx(45)
    assert budget.reserve(70, 15) == pytest.approx(55)
    assert budget.reserve(10, 59.999) > 0
    assert budget.reserve(10, 60) == 0
    assert budget.used(60) == 50


def test_no_more_than_twenty_leave_in_any_second_however_much_weight_is_left() -> None:
    budget = Budget(1_000_000)
    now_s, sent = 0.0, []
    for _ in range(70):
        while (wait_s := budget.reserve(1, now_s)) > 0:
            now_s += wait_s
        sent.append(now_s)
    assert all(late - early >= 1 for early, late in zip(sent, sent[20:], strict=False))
    assert sent[19] == 0, "a burst of twenty waits for nothing"
    assert 3 <= sent[-1] < 3.1


def test_the_pace_holds_up_no_call_that_may_not_wait() -> None:
    budget = Budget(1_000_000)
    for _ in range(20):
        assert budget.reserve(1, 5) == 0
    assert budget.reserve(1, 5) > 0
    assert budget.reserve(1, 5, paced=False) == 0


def test_weight_counts_for_a_minute_from_the_answer_not_from_the_question() -> None:
    budget = Budget(10)
    assert budget.reserve(10, 0) == 0

    assert budget.reserve(1, 5) > 0, "the question of second 0 is still on its way"
    budget.settle(10, 8)
    assert budget.reserve(1, 67) == pytest.approx(1)
    assert budget.reserve(1, 68) == 0


def test_what_others_spend_on_our_address_counts_too() -> None:
    budget = Budget(100)
    spend(budget, 10, 0)

    budget.correct(95, 1)

    assert budget.used(1) == 95
    assert budget.reserve(10, 2) == pytest.approx(58)
    assert budget.used(61) == 0


def test_a_lower_count_of_the_venue_frees_nothing() -> None:
    budget = Budget(100)
    spend(budget, 90, 59)

    budget.correct(2, 61)  # the venue's minute has just begun anew

    assert budget.used(61) == 90


def test_a_question_heavier_than_the_budget_goes_alone() -> None:
    budget = Budget(20)
    spend(budget, 1, 0)

    assert budget.reserve(40, 1) == pytest.approx(59)
    assert budget.reserve(40, 60) == 0


def test_silence_holds_everything_back_and_is_never_shortened() -> None:
    budget = Budget(100)

    assert budget.block(130)
    assert not budget.block(60)
    assert budget.reserve(1, 100) == 30
    assert budget.blocked_for_s(129) == 1
    assert budget.used(129) == 0, "what is not asked weighs nothing"
    assert budget.reserve(1, 130) == 0


@st.composite
def _traffic(draw: st.DrawFn) -> list[tuple[float, int, float]]:
    """(pause before, weight, time on the way) of one request after another."""
    request = st.tuples(st.floats(0, 30), st.integers(1, 40), st.floats(0, 10))
    return draw(st.lists(request, min_size=1, max_size=40))


def _played(limit: int, traffic: list[tuple[float, int, float]]) -> Iterator[tuple[float, float, int]]:
    """Play the traffic, waiting as long as the budget says: (sent, answered, weight) of each request."""
    budget, now_s = Budget(limit), 0.0
    for pause_s, weight, way_s in traffic:
        now_s += pause_s
        while (wait_s := budget.reserve(weight, now_s)) > 0:
            now_s += wait_s
        sent_s, now_s = now_s, now_s + way_s
        budget.settle(weight, now_s)
        yield sent_s, now_s, weight


@given(_traffic(), st.randoms(use_true_random=False))
def test_no_sliding_minute_is_ever_heavier_than_the_limit(
    traffic: list[tuple[float, int, float]], chance: random.Random
) -> None:
    # The venue may count a request anywhere between question and answer.
    counted = [(chance.uniform(sent, answered), weight) for sent, answered, weight in _played(50, traffic)]

    for end_s, _ in counted:
        assert sum(weight for at_s, weight in counted if end_s - 60 < at_s <= end_s) <= 50


@pytest.mark.parametrize(
    ("headers", "used"),
    [
        ({"x-mbx-used-weight-1m": "37"}, 37),
        ({"x-sdx-used-weight": "12"}, 12),
        ({"x-sdx-used-weight": "12", "x-sdx-used-weight-1m": "14"}, 14),
        ({"x-mbx-used-weight-1d": "90000", "x-mbx-used-weight-10s": "800"}, None),
        ({"x-mbx-used-weight-1m": "many"}, None),
        ({"x-mbx-order-count-1m": "5"}, None),
        ({}, None),
    ],
)
def test_used_weight_is_read_from_whatever_header_tells_it(headers: dict[str, str], used: int | None) -> None:
    assert used_weight(headers) == used


@pytest.mark.parametrize(
    ("status", "headers", "text", "wait_s"),
    [
        (429, {"retry-after": "7"}, "", 7),
        (429, {}, "", 60),
        (418, {}, "", 120),
        (429, {"retry-after": "soon"}, "", 60),
        (418, {"retry-after": "-5"}, "", 60),
        (429, {"retry-after": "Mon, 03 Jun 2024 16:00:30 GMT"}, "", 30),
        (429, {"retry-after": "Mon, 03 Jun 2024 15:00:00 GMT"}, "", 0),
        (418, {}, f"Way too many requests; IP banned until {NOW_MS + 90_000}.", 90),
        (418, {"retry-after": "5"}, f"IP banned until {NOW_MS + 90_000}.", 90),
        (418, {"retry-after": "999999999999"}, "", BLOCK_MAX_S),
        (503, {"retry-after": "4"}, "", 4),
        (503, {}, "", None),
        (400, {}, "", None),
    ],
)
def test_silence_wanted_by_an_answer(status: int, headers: dict[str, str], text: str, wait_s: float | None) -> None:
    assert told_wait_s(status, headers, text, NOW_MS) == (None if wait_s is None else pytest.approx(wait_s))


def test_backoff_grows_to_a_minute_and_never_falls_under_a_second() -> None:
    chance = random.Random(7)
    waits = {attempt: [backoff_s(attempt, chance) for _ in range(200)] for attempt in (1, 2, 3, 6, 7, 5000)}

    for attempt, (shortest, longest) in {1: (1, 2), 2: (2, 4), 3: (4, 8), 6: (30, 60), 5000: (30, 60)}.items():
        assert shortest <= min(waits[attempt])
        assert max(waits[attempt]) <= longest
        assert max(waits[attempt]) - min(waits[attempt]) > (longest - shortest) / 2, "jitter spreads it"
