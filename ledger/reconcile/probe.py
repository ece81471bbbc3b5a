"""What does this venue offer? Asked at start and daily, and within minutes while anything is unclear.

The questions and their meaning are ``venue.capabilities``; here they are only sent.
"""

from __future__ import annotations

from collections.abc import Iterable

from ledger.errors import KeyRefused, VenueBusy, VenueRefused, VenueSilenced, VenueUnreachable
from ledger.venue import capabilities, requests
from ledger.venue.capabilities import Capabilities, Outcome, Said
from ledger.venue.requests import Request
from ledger.wire.http import CLOCK_OFF, VenueHttp

FIRST_SYMBOL = "BTCUSDT"
"""Asked for when capabilities are probed before any symbol is known; an unknown symbol is an answer too."""
SECOND_SYMBOL = "ETHUSDT"
SYMBOLS_MAX = 3
"""How many symbols' trades are asked for until one answer is clear: one market with odd answers decides nothing."""
ATTEMPTS = 3
"""How often one endpoint is asked that gives no whole answer, before it counts as unknown."""
SILENCE_MAX_S = 120.0
"""So long a silence (Retry-After of a 5xx) is waited for before another question is asked; longer, it is about all."""


async def probe(
    http: VenueHttp, symbols: Iterable[str], *, now_s: float, before: Capabilities | None = None
) -> Capabilities:
    """Look at everything the venue does not document; none of ``symbols`` need exist, ``now_s`` is monotonic.

    Raises VenueError while the venue is away or refuses the key: absent is what it says, not what we fear.
    """
    known = before or Capabilities()
    names = list(dict.fromkeys((*symbols, FIRST_SYMBOL, SECOND_SYMBOL)))[:SYMBOLS_MAX]
    trades, attempts = None, ATTEMPTS
    for name in names:
        trades = await _said(http, requests.my_trades(name, limit=1), attempts)
        if trades is not None:
            break
        attempts = 1  # what hides an endpoint hides it for every market: the others are asked without patience
    return Capabilities(
        trades=capabilities.look(known.trades, trades, now_s),
        time=capabilities.look(known.time, await _said(http, requests.server_time()), now_s),
        markets=capabilities.look(known.markets, await _said(http, requests.exchange_info()), now_s),
        order_fields=known.order_fields,
    )


async def _said(http: VenueHttp, request: Request, attempts: int = ATTEMPTS) -> Said:
    """What one look says. A venue that answers everything but this says nothing clear; one that answers nothing is
    away."""
    try:
        answer = await http.send_patiently(request, attempts=attempts)
        return capabilities.offers(request, Outcome(answer.status, None, answer.body))
    except KeyRefused:
        raise
    except VenueRefused as refused:
        if refused.code == CLOCK_OFF:
            raise VenueBusy(f"{refused}; what the venue offers is asked again later") from None
        return capabilities.offers(request, Outcome(refused.status, refused.code))
    except VenueBusy as busy:
        if is_about_all(busy) or not await answers_others(http, request):
            raise
    return None


def is_about_all(busy: VenueBusy) -> bool:
    """Whether it concerns every question. A 503 with Retry-After does not: it may come to one question for ever."""
    return isinstance(busy, VenueUnreachable | VenueSilenced)


async def answers_others(http: VenueHttp, request: Request) -> bool:
    """Whether the venue answers a question that every key may ask, of another kind than this one, and not about its
    market. What it says is of no interest. Raises VenueBusy for a silence it wants, KeyRefused."""
    if not await http.wait_for_silence(SILENCE_MAX_S):
        return False
    for other in (requests.account(), requests.open_orders()):
        if other.kind == request.kind:
            continue
        try:
            await http.send(other)
        except VenueBusy as busy:
            if busy.retry_after_s is not None:
                raise
        except VenueRefused as refused:
            if isinstance(refused, KeyRefused):
                raise
            if refused.code not in (None, CLOCK_OFF):  # no code: some proxy's page
                return True
        else:
            return True
    return False
