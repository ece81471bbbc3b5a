"""What a refusal is about, by its code and its words."""

from __future__ import annotations

import pytest

from ledger.errors import VenueRefused
from ledger.reconcile import refusals
from ledger.venue import requests

DAY_MS = 86_400_000


def refused(code: int, words: str) -> VenueRefused:
    told = f"GET /api/v1/allOrders LIMITUSDT: the venue says {words!r} (HTTP 400, code {code})"
    return VenueRefused(told, status=400, code=code)


@pytest.mark.parametrize(
    ("code", "words", "about_limit"),
    [
        (-1130, "Data sent for parameter 'limit' is not valid.", True),
        (-1104, "Limit must be at most 500", True),
        (-1130, "Invalid data", True),
        (-1100, "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.", False),
        (-1130, "Data sent for parameter 'startTime' is not valid.", False),
        (-1121, "Invalid symbol.", False),
        (-1127, "More than 24 hours between them", False),
        (-2013, "limit", False),
    ],
)
def test_a_limit_is_refused_by_name_or_where_nothing_is_named(code: int, words: str, about_limit: bool) -> None:
    assert refusals.may_be_about_limit(requests.all_orders("LIMITUSDT"), refused(code, words)) is about_limit


def test_a_question_without_a_limit_is_never_refused_for_it() -> None:
    assert not refusals.may_be_about_limit(requests.account(), refused(-1130, "limit"))


@pytest.mark.parametrize(
    ("words", "range_ms"),
    [
        ("Search window is restricted to recent 90 days only.", 90 * DAY_MS),
        ("Only the last 6 months can be queried", 6 * 28 * DAY_MS),
        ("history of 2 years", 730 * DAY_MS),
        ("startTime is too old", None),
    ],
)
def test_how_far_back_the_venue_goes_is_read_from_its_words(words: str, range_ms: int | None) -> None:
    assert refusals.is_about_age(refused(-4188, words))
    assert refusals.told_range_ms(refused(-4188, words)) == range_ms


def test_other_words_say_nothing_about_age() -> None:
    assert not refusals.is_about_age(refused(-4000, "This market is closed."))
