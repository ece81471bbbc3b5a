"""What the numbers of an account's status mean, in words: for people line by line, for a monitor as reasons.

Pure: a row of ``db.reads.status`` in, text out. Each line has one meaning. Ages are by the database's clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ledger.output import moment

MAX_LAG_S = 60
"""How far coverage may trail before ``status --check`` says so."""

MODES = {
    "trades": "trades: every fill missed in a gap is read again",
    "orders_quote": "orders_quote: of fills missed in a gap the quantity and the average price are known",
    "orders": "orders: of fills missed in a gap the quantity is known (REST offers no fills)",
}


def derived(row: dict[str, Any]) -> dict[str, Any]:
    """The row with what follows from it: ``lag_ms`` of coverage (None: nothing is covered yet) and whether the last
    error is healed: live since, and covered beyond it."""
    now_ms, through_ms, error_at = _ms(row["asked_at"]), row["complete_through_ms"], row["last_error_at"]
    healed = bool(row["live"] and not row["paused_error"] and (through_ms or 0) > _ms(error_at)) if error_at else None
    return row | {"lag_ms": None if through_ms is None else now_ms - through_ms, "last_error_healed": healed}


def lines(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line, for a person."""
    row = derived(row)
    yield "venue", row["rest_origin"] or "none has accepted the key yet"
    yield "mirrored by", f"{row['leader']}, since {_utc(row['led_since'])}" if row["led"] else "NOBODY"
    if row["paused_error"]:
        yield "PAUSED", f"since {_utc(row['paused_since'])}: {row['paused_error']}"
    yield "live", "yes" if row["live"] else f"NO{_outage(row)}"
    yield "last frame", _last_frame(row)
    yield "complete through", _through(row)
    yield "recovery mode", MODES.get(row["mode"] or "", row["mode"] or "not asked the venue yet")
    yield "gaps", f"{row['open_gaps']} open, {row['gaps']} in all"
    if row["coverage_holes"]:
        yield "coverage holes", f"{_holes(row)}; see: sdx-ledger discrepancy list"
    if row["markets_known"] is not None:
        yield "markets read", f"{row['markets_walked']} of {row['markets_known']}, for the open gaps"
    yield "frames received", str(row["frames_seen"])
    yield "unreadable frames", str(row["unreadable_frames"])
    if row["last_problem"]:
        yield "last of these", row["last_problem"]
    yield "missing executions", f"on {row['missing_executions']} orders"
    yield "provisional fills", str(row["provisional_fills"])
    yield "orders to ask again", str(row["order_checks"])
    if row["unknown_statuses"]:
        yield "unknown statuses", f"on {row['unknown_statuses']} orders"
    see = "; see: sdx-ledger discrepancy list" if row["open_discrepancies"] else ""
    yield "open discrepancies", f"{row['open_discrepancies']}{see}"
    yield "REST weight", "none used" if row["weight_used"] is None else f"{row['weight_used']} used in one minute"
    if silence := _silence(row):
        yield "silence", f"{silence}; were that a mistake: sdx-ledger account unblock {row['account']}"
    if row["last_error"]:
        now = ", healed since" if row["last_error_healed"] else ", not healed yet"
        yield "last error", f"{row['last_error']} ({_utc(row['last_error_at'])}{now})"


def reasons(row: dict[str, Any], *, max_lag_s: float) -> list[str]:
    """Why this account is not kept as it should be; none when it is: mirrored, live, and no further behind than so."""
    row = derived(row)
    found = []
    if row["paused_error"]:
        found.append(f"paused since {_utc(row['paused_since'])}: {row['paused_error']}")
    if not row["led"]:
        found.append("no process mirrors it")
    if not row["live"]:
        found.append(f"not live{_outage(row)}")
    if silence := _silence(row):
        found.append(silence)
    if row["lag_ms"] is None:
        found.append("nothing is complete yet")
    elif row["lag_ms"] > max_lag_s * 1000:
        found.append(f"complete through {_through(row)}, allowed are {max_lag_s:g} s")
    if found and row["coverage_holes"]:
        found.append(f"coverage holes: {_holes(row)}")
    return found


def checked(rows: list[dict[str, Any]], *, max_lag_s: float) -> tuple[bool, str]:
    """Whether every account is kept as it should be, and one line that says why not, or how well."""
    if not rows:
        return False, "no account is mirrored here yet"
    wrong = {row["account"]: reasons(row, max_lag_s=max_lag_s) for row in rows}
    if any(wrong.values()):
        return False, "; ".join(f"{account}: {', '.join(why)}" for account, why in wrong.items() if why)
    return True, "; ".join(f"{row['account']}: live, complete through {_through(derived(row))}" for row in rows)


def _outage(row: dict[str, Any]) -> str:
    if row["outage_since"] is None:
        return ""
    since = f": no socket since {_utc(row['outage_since'])} ({row['outage_cause']}), REST alone is asked"
    return f"{since}; {row['stream_error']}" if row["stream_error"] else since


def _silence(row: dict[str, Any]) -> str:
    """Until when the venue wants no calls, by the service's clock; empty when it may be asked."""
    left_ms = (row["blocked_until_ms"] or 0) - _ms(row["asked_at"])
    if left_ms <= 0:
        return ""
    return f"the venue wants no calls before {moment(row['blocked_until_ms'])}, in {_age(left_ms)}"


def _last_frame(row: dict[str, Any]) -> str:
    if row["last_frame_at"] is None:
        return "none lately" if row["frames_seen"] else "none yet"
    return f"{_age(_ms(row['asked_at']) - _ms(row['last_frame_at']))} ago ({_utc(row['last_frame_at'])})"


def _through(row: dict[str, Any]) -> str:
    if row["complete_through_ms"] is None:
        return "nothing yet"
    return f"{moment(row['complete_through_ms'])}, {_age(row['lag_ms'])} ago"


def _holes(row: dict[str, Any]) -> str:
    oldest = moment(row["oldest_hole_ms"]) if row["oldest_hole_ms"] else "the beginning"
    return f"{row['coverage_holes']}, the oldest from {oldest}"


def _age(ms: int) -> str:
    """A duration as people say it, whole units of its own size."""
    seconds = max(0, round(ms / 1000))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
