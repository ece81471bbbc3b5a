"""What status says, and what a monitor gets: each line has one meaning, each reason says what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ledger import health

NOW = datetime(2026, 11, 29, 18, 17, 46, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)


def account(**more: Any) -> dict[str, Any]:
    """An account in good health, as the database tells it."""
    return {
        "account": "main",
        "asked_at": NOW,
        "rest_origin": "https://api.spacedex.com",
        "led": True,
        "leader": "box, process 7",
        "led_since": datetime(2026, 11, 29, 17, 0, tzinfo=UTC),
        "mode": "orders",
        "live": True,
        "complete_through_ms": NOW_MS - 11_000,
        "frames_seen": 8404,
        "unreadable_frames": 0,
        "last_problem": None,
        "last_frame_at": datetime(2026, 11, 29, 18, 17, 43, tzinfo=UTC),
        "open_gaps": 0,
        "gaps": 2,
        "outage_cause": None,
        "outage_since": None,
        "stream_error": None,
        "open_discrepancies": 0,
        "coverage_holes": 0,
        "oldest_hole_ms": None,
        "missing_executions": 46,
        "provisional_fills": 0,
        "order_checks": 0,
        "unknown_statuses": 0,
        "weight_used": 30,
        "blocked_until_ms": None,
        "last_error": None,
        "last_error_at": None,
        "paused_error": None,
        "paused_since": None,
        "markets_walked": None,
        "markets_known": None,
        **more,
    }


AWAY = {
    "live": False,
    "outage_since": datetime(2026, 11, 29, 18, 10, tzinfo=UTC),
    "outage_cause": "lost",
    "complete_through_ms": NOW_MS - 467_000,
    "open_gaps": 1,
}
ERROR = {"last_error": "stream: HTTP 503", "last_error_at": datetime(2026, 11, 29, 17, 52, 46, tzinfo=UTC)}


def test_a_silence_that_the_venue_asks_for_is_a_line_and_a_reason_until_it_is_over() -> None:
    silent = account(blocked_until_ms=NOW_MS + 259_200_000)
    told = "the venue wants no calls before 2026-12-02 18:17:46.000 UTC, in 3 d"
    advice = f"{told}; were that a mistake: sdx-ledger account unblock main"
    assert dict(health.lines(silent))["silence"] == advice
    assert health.reasons(silent, max_lag_s=60) == [told]
    over = account(blocked_until_ms=NOW_MS)
    assert "silence" not in dict(health.lines(over))
    assert health.reasons(over, max_lag_s=60) == []


def test_every_line_of_an_account_in_good_health() -> None:
    assert list(health.lines(account())) == [
        ("venue", "https://api.spacedex.com"),
        ("mirrored by", "box, process 7, since 2026-11-29 17:00:00 UTC"),
        ("live", "yes"),
        ("last frame", "3 s ago (2026-11-29 18:17:43 UTC)"),
        ("complete through", "2026-11-29 18:17:35.000 UTC, 11 s ago"),
        ("recovery mode", "orders: of fills missed in a gap the quantity is known (REST offers no fills)"),
        ("gaps", "0 open, 2 in all"),
        ("frames received", "8404"),
        ("unreadable frames", "0"),
        ("missing executions", "on 46 orders"),
        ("provisional fills", "0"),
        ("orders to ask again", "0"),
        ("open discrepancies", "0"),
        ("REST weight", "30 used in one minute"),
    ]


def test_an_outage_that_goes_on_is_shown_with_its_beginning() -> None:
    said = dict(health.lines(account(**AWAY, stream_error="cannot reach wss://s (SDX_STREAM_URL): connection refused")))

    assert said["live"] == (
        "NO: no socket since 2026-11-29 18:10:00 UTC (lost), REST alone is asked; cannot reach wss://s "
        "(SDX_STREAM_URL): connection refused"
    )
    assert said["gaps"] == "1 open, 2 in all"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (account(**ERROR), "stream: HTTP 503 (2026-11-29 17:52:46 UTC, healed since)"),
        (account(**ERROR, **AWAY), "stream: HTTP 503 (2026-11-29 17:52:46 UTC, not healed yet)"),
        (
            account(**ERROR, complete_through_ms=NOW_MS - 1_600_000),
            "stream: HTTP 503 (2026-11-29 17:52:46 UTC, not healed yet)",
        ),
    ],
    ids=["live and covered beyond it", "not live", "covered up to before it"],
)
def test_an_error_says_whether_it_is_healed(row: dict[str, Any], said: str) -> None:
    assert dict(health.lines(row))["last error"] == said


@pytest.mark.parametrize(
    ("row", "is_well", "said"),
    [
        (account(), True, "main: live, complete through 2026-11-29 18:17:35.000 UTC, 11 s ago"),
        (account(complete_through_ms=NOW_MS - 60_000), True, None),
        (
            account(complete_through_ms=NOW_MS - 400_000),
            False,
            "main: complete through 2026-11-29 18:11:06.000 UTC, 6 min ago, allowed are 60 s",
        ),
        (
            account(**AWAY),
            False,
            "main: not live: no socket since 2026-11-29 18:10:00 UTC (lost), REST alone is asked, complete through "
            "2026-11-29 18:09:59.000 UTC, 7 min ago, allowed are 60 s",
        ),
        (
            account(led=False, leader=None, led_since=None, live=False, complete_through_ms=None),
            False,
            "main: no process mirrors it, not live, nothing is complete yet",
        ),
        (
            account(paused_error="42501: permission denied", paused_since=NOW),
            False,
            "main: paused since 2026-11-29 18:17:46 UTC: 42501: permission denied",
        ),
        (
            account(complete_through_ms=NOW_MS - 7_200_000, coverage_holes=1, oldest_hole_ms=NOW_MS - 7_200_000),
            False,
            "main: complete through 2026-11-29 16:17:46.000 UTC, 2 h ago, allowed are 60 s, coverage holes: 1, the "
            "oldest from 2026-11-29 16:17:46.000 UTC",
        ),
    ],
    ids=["well", "at the limit", "behind", "outage", "stopped", "paused", "a hole"],
)
def test_a_monitor_gets_one_line(row: dict[str, Any], is_well: bool, said: str | None) -> None:
    found, line = health.checked([row], max_lag_s=60)

    assert found is is_well
    assert "\n" not in line
    assert said is None or line == said


def test_a_monitor_is_told_of_the_accounts_that_are_not_well_alone() -> None:
    rows = [account(), account(account="grid", led=False, leader=None)]

    assert health.checked(rows, max_lag_s=60) == (False, "grid: no process mirrors it")
    assert health.checked([], max_lag_s=60) == (False, "no account is mirrored here yet")
