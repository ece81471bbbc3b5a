"""What this venue offers, found by probing: it documents no trade history, no time and no market list.

Always holds: only a clear answer counts. A venue that is busy, away or refuses the key has said nothing, and
nothing is decided until it does; "absent" is what the venue says of a path it does not know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ledger.errors import UnreadableFrame
from ledger.venue import rest_pages
from ledger.venue.requests import Request

Mode = Literal["trades", "orders_quote", "orders"]

_UNKNOWN_PATH = frozenset({404, 405, 410})
_PATH_IS_INVALID = -5000  # "Path …, Method GET is invalid", as the gateways of this family say it
_REFUSES_PARAMETERS = range(-1199, -1099)  # illegal, missing, malformed …: the path is there and looked at them


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one probe ended: HTTP ``status``, the venue's error ``code`` (None: gave none), the ``body`` of a
    200."""

    status: int
    code: int | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be recovered, and how. ``order_fields``: those of rest_pages.ORDER_FIELDS seen on orders.

    ``mode``: trades = every fill exactly; orders_quote = missing quantity and average price of each order;
    orders = missing quantity only.
    """

    mode: Mode
    has_time: bool
    has_exchange_info: bool
    order_fields: frozenset[str]


def offers(request: Request, outcome: Outcome | None) -> bool | None:
    """Whether the venue has the endpoint of ``request``; None = it did not say (busy, away, key refused): ask
    again.

    -1121 (invalid symbol) and its like mean yes. A 200 in another shape than this question's is another thing
    of the same name: no.
    """
    if outcome is None:
        return None
    if outcome.status == 200:
        return _is_answer(request, outcome.body)
    if outcome.code is not None and outcome.code in _REFUSES_PARAMETERS:
        return True
    if outcome.status in _UNKNOWN_PATH or outcome.code == _PATH_IS_INVALID:
        return False
    return None


def decide(
    *,
    has_trades: bool | None,
    has_time: bool | None,
    has_exchange_info: bool | None,
    order_fields: frozenset[str],
) -> Capabilities | None:
    """The capabilities; None while any probe is without a clear answer.

    ``order_fields`` is Page.fields of the order pages seen so far, empty before the first order.
    """
    if has_trades is None or has_time is None or has_exchange_info is None:
        return None
    return Capabilities(_mode(has_trades, order_fields), has_time, has_exchange_info, order_fields)


def learn(known: Capabilities, fields: frozenset[str]) -> Capabilities:
    """``known`` after another order page told ``fields``: an account without orders shows them only later."""
    seen = known.order_fields | fields
    return replace(known, order_fields=seen, mode=_mode(known.mode == "trades", seen))


def _mode(has_trades: bool, order_fields: frozenset[str]) -> Mode:
    if has_trades:
        return "trades"
    return "orders_quote" if "cummulativeQuoteQty" in order_fields else "orders"


def _is_answer(request: Request, body: bytes) -> bool:
    try:
        rest_pages.read(request, body)
    except UnreadableFrame:
        return False
    return True
