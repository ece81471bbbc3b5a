"""Asks one question, and where no answer comes finds out whether the venue is away or this question alone fails.

Always holds: a question is given up only while the venue answers another; a rate limit, a wrong clock, a refused key
and an address where nobody answers concern every question, and are never taken for the fault of one.
"""

from __future__ import annotations

from ledger.errors import Unanswered, VenueBusy
from ledger.reconcile import probe
from ledger.venue import capabilities
from ledger.venue.requests import Request
from ledger.wire.http import Answer, VenueHttp

ATTEMPTS = 6
"""How often one question is asked that gives no whole answer, before it is seen whether others are answered."""
MARKETS_MAX = 3
"""With so many markets that get no answer to a kind of question, the others are asked it without patience too."""


class Asker:
    """Asks the questions of one account's reconciler."""

    def __init__(self, http: VenueHttp) -> None:
        self._http = http
        self._unanswered: set[tuple[str, str | None]] = set()
        """Kind and market of the questions that got no answer when they were asked last."""

    async def ask(self, request: Request) -> Answer:
        """The answer. Raises VenueError; Unanswered where the venue answers others but not this question."""
        key, attempts = (request.kind, request.symbol), self._attempts(request)
        self._unanswered.discard(key)
        try:
            return await self._http.send_patiently(request, attempts=attempts)
        except VenueBusy as busy:
            if probe.is_about_all(busy) or not await probe.answers_others(self._http, request):
                raise
        # The venue may have come back just now: only what fails beside an answer to another is a fault of its own.
        try:
            return await self._http.send(request)
        except VenueBusy as busy:
            if probe.is_about_all(busy):
                raise
            self._unanswered.add(key)
            raise Unanswered(f"{busy}; the venue answers other questions meanwhile") from None

    def _attempts(self, request: Request) -> int:
        """A question that got no answer before is asked once: what comes after it must not wait each time."""
        markets = {symbol for kind, symbol in self._unanswered if kind == request.kind}
        if request.symbol in markets or len(markets) >= MARKETS_MAX:
            return 1
        # What the venue need not have is looked at anew sooner than it is waited for.
        return ATTEMPTS if capabilities.proves_key(request) else probe.ATTEMPTS
