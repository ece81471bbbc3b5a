"""What is signed is what is sent: encoded first, signature last."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.venue import requests
from ledger.venue.requests import Request
from ledger.venue.signing import query_string

# Secret, order and first signature are the example of Binance's public API documentation, nobody's key.
SECRET = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
NOW_MS = 1499827319559


def order_of(symbol: str) -> Request:
    params = (
        ("symbol", symbol),
        ("side", "BUY"),
        ("type", "LIMIT"),
        ("timeInForce", "GTC"),
        ("quantity", "1"),
        ("price", "0.1"),
    )
    return Request("GET", "/api/v1/order", params, "signed", 1, "order")


def test_published_vector() -> None:
    assert query_string(order_of("LTCBTC"), secret=SECRET, timestamp_ms=NOW_MS) == (
        "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559"
        "&signature=c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
    )


def test_a_symbol_that_is_not_ascii_is_encoded_before_it_is_signed() -> None:
    # The signature was made with: printf '%s' PAYLOAD | openssl dgst -sha256 -hmac SECRET
    assert query_string(order_of("１２３４５６"), secret=SECRET, timestamp_ms=NOW_MS) == (
        "symbol=%EF%BC%91%EF%BC%92%EF%BC%93%EF%BC%94%EF%BC%95%EF%BC%96&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1"
        "&price=0.1&recvWindow=5000&timestamp=1499827319559"
        "&signature=e1353ec6b14d888f1164ae9af8228a3dbd508bc82eb867db8ab6046442f33ef3"
    )


def test_what_is_not_signed_is_only_encoded() -> None:
    assert query_string(requests.server_time(), secret=SECRET, timestamp_ms=NOW_MS) == ""
    assert (
        query_string(requests.extend_listen_key("a/b+c"), secret=SECRET, timestamp_ms=NOW_MS) == "listenKey=a%2Fb%2Bc"
    )


def test_a_request_without_parameters_is_signed_too() -> None:
    query = query_string(requests.account(), secret=SECRET, timestamp_ms=NOW_MS, recv_window_ms=60_000)
    assert query.startswith("recvWindow=60000&timestamp=1499827319559&signature=")


@pytest.mark.parametrize("recv_window_ms", [0, -1, 60_001])
def test_a_validity_the_venue_refuses_is_refused_here(recv_window_ms: int) -> None:
    with pytest.raises(ValueError, match="recvWindow"):
        query_string(requests.account(), secret=SECRET, timestamp_ms=NOW_MS, recv_window_ms=recv_window_ms)


@given(symbol=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_venue_reads_back_what_was_asked_and_finds_the_signature_right(symbol: str) -> None:
    query = query_string(requests.open_orders(symbol), secret=SECRET, timestamp_ms=NOW_MS)
    payload, _, signature = query.rpartition("&signature=")
    assert query.isascii()
    assert parse_qsl(payload, keep_blank_values=True)[0] == ("symbol", symbol)
    assert signature == hmac.new(SECRET.encode(), payload.encode(), hashlib.sha256).hexdigest()
