"""A sandbox market kept in a file is the same market after a restart, whatever cut it off."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from ledger.errors import ConfigError
from ledger.sandbox.market import Market
from ledger.sandbox.state import Beginning, Hit, Moved, State, Stepped, opened

NOW_MS = 1_717_430_400_000
NEW = Beginning(seed=7, history=40, history_days=3, until_ms=NOW_MS)


def market_of(state: State) -> Market:
    market = Market(state.beginning.seed)
    state.relive(market)
    return market


def traded(state: State, market: Market, actions: int) -> None:
    """So many actions, with a hit and two movements among them, of which one is refused."""
    for n in range(actions):
        state.note(Stepped(NOW_MS + n))
        market.step(NOW_MS + n)
    order = next(order for order in market.books.open_orders() if order.left == order.orig_qty)
    state.note(Hit(NOW_MS + actions, order.symbol, order.order_id, order.left))
    market.hit(order, order.left, NOW_MS + actions)
    state.note(Moved(NOW_MS + actions, "SOL", Decimal("12.34567890")))
    market.move("SOL", Decimal("12.34567890"), NOW_MS + actions)
    state.note(Moved(NOW_MS + actions, "SOL", Decimal("-9999999")))
    with pytest.raises(ConfigError):
        market.move("SOL", Decimal("-9999999"), NOW_MS + actions)


def test_a_market_goes_on_where_it_was_with_the_same_key(tmp_path: Path) -> None:
    file = tmp_path / "market"
    first = opened(file, NEW)
    market = market_of(first)
    traded(first, market, 60)
    first.close()

    again = opened(file, Beginning(seed=99, history=0, history_days=1, until_ms=NOW_MS + 999))
    assert again.beginning == NEW, "the file says what the market began with"
    twin = market_of(again)
    assert twin.books.truth() == market.books.truth()
    assert twin.step(NOW_MS + 500) == market.step(NOW_MS + 500), "and it goes on alike"
    assert file.stat().st_mode & 0o077 == 0
    again.close()


@pytest.mark.parametrize("cut", [1, 9])
def test_an_action_that_was_cut_off_never_happened_and_the_next_is_kept(tmp_path: Path, cut: int) -> None:
    file = tmp_path / "market"
    first = opened(file, NEW)
    market_of(first)
    first.note(Stepped(NOW_MS + 1))
    first.note(Stepped(NOW_MS + 2))
    first.close()
    file.write_bytes(file.read_bytes()[:-cut])

    again = opened(file, NEW)
    market_of(again)
    again.note(Stepped(NOW_MS + 3))
    again.close()
    assert file.read_text().splitlines()[1:] == [
        '{"type":"step","at_ms":1717430400001}',
        '{"type":"step","at_ms":1717430400003}',
    ]


def test_a_file_that_is_in_use_or_no_market_is_one_clear_sentence(tmp_path: Path) -> None:
    used = opened(tmp_path / "used", NEW)
    with pytest.raises(ConfigError, match="Another sandbox uses"):
        opened(tmp_path / "used", NEW)
    used.close()
    for text in ("no market", "{}\n", '{"seed":1}\n', f"{NEW}\n"):
        (tmp_path / "other").write_text(text)
        with pytest.raises(ConfigError, match="holds no sandbox market"):
            opened(tmp_path / "other", NEW)
        assert (tmp_path / "other").read_text() == text, "nothing of it is touched"
    with pytest.raises(ConfigError, match="cannot keep its market"):
        opened(tmp_path, NEW)


def test_every_new_market_has_a_name_and_a_key_of_its_own() -> None:
    one, other = (Beginning(seed=1, history=0, history_days=1, until_ms=NOW_MS) for _ in range(2))
    assert len({one.name, other.name, one.api_key, other.api_key, one.api_secret, other.api_secret}) == 6
