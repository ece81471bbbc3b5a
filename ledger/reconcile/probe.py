"""What does this venue offer? Asked at start and daily, since it documents less than it may have.

The questions and their meaning are ``venue.capabilities``; here they are only sent.
"""

from __future__ import annotations

from ledger.errors import KeyRefused, VenueBusy, VenueRefused
from ledger.venue import capabilities, requests
from ledger.venue.capabilities import Capabilities
from ledger.wire.http import CLOCK_OFF, VenueHttp

FIRST_SYMBOL = "BTCUSDT"
"""Asked for when capabilities are probed before any symbol is known; an unknown symbol is an answer too."""


async def probe(http: VenueHttp, symbol: str, order_fields: frozenset[str] = frozenset()) -> Capabilities:
    """Ask for everything the venue does not document and see what it says; ``symbol`` need not exist.

    Raises VenueError while the venue is away or busy: absent is what it says, not what we fear.
    """
    offered: list[bool] = []
    for request in (requests.my_trades(symbol, limit=1), requests.server_time(), requests.exchange_info()):
        try:
            answer = await http.send_patiently(request)
            outcome = capabilities.Outcome(answer.status, None, answer.body)
        except KeyRefused:
            raise
        except VenueRefused as refused:
            if refused.code == CLOCK_OFF:
                raise VenueBusy(f"{refused}; what the venue offers is asked again later") from None
            outcome = capabilities.Outcome(refused.status, refused.code)
        # A refusal we cannot read is no promise either: count on less, and ask again tomorrow.
        offered.append(capabilities.offers(request, outcome) or False)
    decided = capabilities.decide(
        has_trades=offered[0], has_time=offered[1], has_exchange_info=offered[2], order_fields=order_fields
    )
    assert decided is not None
    return decided
