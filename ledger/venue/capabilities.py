"""What this venue offers to this key, found by probing: it documents no trade history, no time and no market list.

Always holds: only a clear answer counts. What a firewall's page, an odd status or an odd body leaves open is unknown:
counted on as little as what is absent, and asked for again within minutes. So is what the venue denies to this key,
since a permission comes and goes. "Absent" is what the venue says of a path it does not know; said twice, some time
apart, it stands for the day. Which calls every key may make, so that a refusal there is one of the key, is said here
and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ledger.errors import UnreadableFrame
from ledger.venue import rest_pages
from ledger.venue.requests import Request

Mode = Literal["trades", "orders_quote", "orders"]
Said = Literal["offered", "absent", "denied"] | None
"""What one answer says of its endpoint; denied: this key may not, for now. None: nothing clear."""

ABSENT_AFTER_S = 60.0
"""An endpoint is absent once it was said to be at two looks at least this far apart."""

_UNKNOWN_PATH = frozenset({404, 405, 410})
_PATH_IS_INVALID = -5000  # "Path …, Method GET is invalid", as the gateways of this family say it
_REFUSES_PARAMETERS = range(-1199, -1099)  # illegal, missing, malformed …: the path is there and looked at them
_BAD_KEY = frozenset({-2014, -2015})
_EVERY_KEY_MAY = frozenset({"account", "openOrders", "allOrders", "order", "order_settle", "userDataStream"})
"""Kinds of the calls the venue documents for a key that reads: whoever is refused there has no good key."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one probe ended: HTTP ``status``, the venue's error ``code`` (None: gave none), the ``body`` of a
    200."""

    status: int
    code: int | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the looks at one endpoint have shown. ``offered`` None: the last one showed nothing clear.

    ``is_sure``: nobody need look again today. ``no_since_s``: the first of the looks in a row that found it absent.
    """

    offered: bool | None = None
    is_sure: bool = False
    no_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What can be recovered, and how: what was seen of myTrades, time and exchangeInfo.

    ``order_fields``: those of rest_pages.ORDER_FIELDS seen on orders, empty before the first order.
    """

    trades: Seen = Seen()
    time: Seen = Seen()
    markets: Seen = Seen()
    order_fields: frozenset[str] = frozenset()

    @property
    def mode(self) -> Mode:
        """trades = every fill exactly; orders_quote = missing quantity and average price of each order; orders =
        missing quantity only. The unknown is not counted on.
        """
        if self.trades.offered:
            return "trades"
        return "orders_quote" if "cummulativeQuoteQty" in self.order_fields else "orders"

    @property
    def has_time(self) -> bool:
        """Whether the venue tells its time."""
        return self.time.offered is True

    @property
    def has_exchange_info(self) -> bool:
        """Whether the venue lists its markets."""
        return self.markets.offered is True

    @property
    def is_sure(self) -> bool:
        """Whether all of it is clear, so that nothing need be asked again today."""
        return self.trades.is_sure and self.time.is_sure and self.markets.is_sure


def proves_key(request: Request) -> bool:
    """Whether a refusal of this question is one of the key: every key that reads may ask it."""
    return request.kind in _EVERY_KEY_MAY


def is_denied(status: int, code: int | None) -> bool:
    """Whether an answer says that this key may not: a wrong key, a wrong address, or no permission for this call."""
    return status == 401 or code in _BAD_KEY


def offers(request: Request, outcome: Outcome) -> Said:
    """What this answer says of the endpoint of ``request``.

    -1121 (invalid symbol) and its like mean that it is offered. A 200 in another shape than this question's says
    nothing.
    """
    if outcome.status == 200:
        return "offered" if _is_answer(request, outcome.body) else None
    if outcome.code is not None and outcome.code in _REFUSES_PARAMETERS:
        return "offered"
    if is_denied(outcome.status, outcome.code):
        return "denied"
    if outcome.status in _UNKNOWN_PATH or outcome.code == _PATH_IS_INVALID:
        return "absent"
    return None


def look(before: Seen, said: Said, now_s: float) -> Seen:
    """What is known after another look that said this. ``now_s`` is monotonic."""
    if said == "offered":
        return Seen(True, is_sure=True)
    if said == "absent":
        since_s = now_s if before.no_since_s is None else before.no_since_s
        return Seen(False, now_s - since_s >= ABSENT_AFTER_S, since_s)
    return Seen(False if said == "denied" else None, no_since_s=before.no_since_s)


def learn(known: Capabilities, fields: frozenset[str]) -> Capabilities:
    """``known`` after another order page told ``fields``: an account without orders shows them only later."""
    return replace(known, order_fields=known.order_fields | fields)


def _is_answer(request: Request, body: bytes) -> bool:
    try:
        rest_pages.read(request, body)
    except UnreadableFrame:
        return False
    return True
