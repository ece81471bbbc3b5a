"""A sandbox market's past in a file, so that a restart goes on with it.

The first line says how the market began and by what it is known to its clients, each further line one thing that was
done to it. The same beginning and the same actions make the same market, so nothing else need be kept. Always holds: an
action is in the file before it happens; a last line that was cut off by a crash is no action; one process at a time
uses a file. The keys in it open nothing but this sandbox.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO

import msgspec

from ledger.errors import ConfigError
from ledger.sandbox.market import Market, live_through


class Beginning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a market began: what it was made of, up to when its made-up history goes (ms UTC), and its clients' key.

    ``name`` tells one market from another.
    """

    seed: int
    history: int
    history_days: int
    until_ms: int
    name: str = msgspec.field(default_factory=lambda: secrets.token_hex(4))
    api_key: str = msgspec.field(default_factory=lambda: f"sandbox-{secrets.token_hex(8)}")
    api_secret: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))


class Stepped(msgspec.Struct, frozen=True, tag="step"):
    """One action of the market's own."""

    at_ms: int


class Hit(msgspec.Struct, frozen=True, tag="hit"):
    """Somebody took ``qty`` of a resting order."""

    at_ms: int
    symbol: str
    order_id: int
    qty: Decimal


class Moved(msgspec.Struct, frozen=True, tag="move"):
    """A deposit, or a withdrawal."""

    at_ms: int
    asset: str
    amount: Decimal


Action = Stepped | Hit | Moved


class State:
    """The past of one market, kept in ``file`` (None: not kept) from now on."""

    def __init__(self, beginning: Beginning, file: BinaryIO | None = None, past: tuple[Action, ...] = ()) -> None:
        self.beginning = beginning
        self._file = file
        self._past = past

    def relive(self, market: Market) -> None:
        """Let everything happen to a new market that happened to this one."""
        began = self.beginning
        live_through(market, began.history, began.until_ms - began.history_days * 86_400_000, began.until_ms)
        for action in self._past:
            match action:
                case Stepped():
                    market.step(action.at_ms)
                case Hit():
                    market.hit(market.books.orders[action.symbol, action.order_id], action.qty, action.at_ms)
                case Moved():
                    with suppress(ConfigError):  # one that was refused then is refused now
                        market.move(action.asset, action.amount, action.at_ms)
        self._past = ()

    def note(self, action: Action) -> None:
        """Keep what is about to happen."""
        if self._file is not None:
            self._file.write(msgspec.json.encode(action) + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()


def opened(path: Path, new: Beginning) -> State:
    """The market in this file, or ``new`` in a new one. Raises ConfigError when the file is none of a market, cannot be
    used, or is in use."""
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise ConfigError(f"The sandbox cannot keep its market in {path}: {error}. Choose another file.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(f"Another sandbox uses {path}. Stop that one, or choose another file.") from None
    whole, _, cut = file.read().rpartition(b"\n")
    lines = whole.splitlines()
    try:
        beginning = msgspec.json.decode(lines[0], type=Beginning) if lines else new
        past = tuple(msgspec.json.decode(line, type=Action) for line in lines[1:])
    except msgspec.DecodeError as error:
        file.close()
        raise ConfigError(f"{path} holds no sandbox market: {error}. Choose another file.") from None
    if not lines and cut:
        file.close()
        raise ConfigError(f"{path} holds no sandbox market. Choose another file.")
    file.seek(len(whole) + 1 if lines else 0)
    file.truncate()
    if not lines:
        file.write(msgspec.json.encode(beginning) + b"\n")
        file.flush()
    return State(beginning, file, past)
