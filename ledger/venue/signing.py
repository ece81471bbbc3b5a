"""Query strings, signed as the venue documents it.

Always holds: what is signed is what is sent. Names and values are percent-encoded first, HMAC-SHA256 keyed
with the secret goes over exactly that text, and the signature comes last, in hex. Time is handed in.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import quote, urlencode

from ledger.venue.requests import Request

RECV_WINDOW_MS_MAX = 60_000
"""The venue refuses a longer validity of a signed request."""


def encoded(params: tuple[tuple[str, str], ...]) -> str:
    """``params`` in their order as a query string; UTF-8, everything but letters, digits and ``-._~``
    escaped."""
    return urlencode(params, quote_via=quote, safe="")


def query_string(request: Request, *, secret: str, timestamp_ms: int, recv_window_ms: int = 5000) -> str:
    """The query string of ``request``: signed when it asks for that, else just encoded. Without the question
    mark.

    ``timestamp_ms`` is the venue's clock; the venue takes requests up to ``recv_window_ms`` old and 1 s
    ahead. Raises ValueError when ``recv_window_ms`` is not within 1 to 60,000.
    """
    if request.security != "signed":
        return encoded(request.params)
    if not 1 <= recv_window_ms <= RECV_WINDOW_MS_MAX:
        raise ValueError(f"recvWindow is {recv_window_ms} ms, expected 1 to {RECV_WINDOW_MS_MAX}")
    validity = (("recvWindow", str(recv_window_ms)), ("timestamp", str(timestamp_ms)))
    payload = encoded((*request.params, *validity))
    signature = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    return f"{payload}&signature={signature}"
