"""What goes wrong, and when: faults as values, and the switches they set.

A script is a JSON list: ``[{"at_s": 5, "do": "drop"}, {"at_s": 9, "do": "rest_status", "status": 503}]``;
``at_s`` counts seconds from the start of the server. The same objects work over ``POST /sandbox/fault`` and
in process.

Always holds: a fault changes what is sent, never what is true (but for ``move``, which is something that happens);
every countdown ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Literal

import msgspec

from ledger.errors import ConfigError
from ledger.sandbox import nonsense
from ledger.sandbox.books import Fill, Order

FRAME_BYTES_MAX = 1 << 20
"""The frame size the mirror accepts; ``oversize`` garbage is one byte more."""


class _Fault(msgspec.Struct, tag_field="do", forbid_unknown_fields=True, frozen=True, kw_only=True):
    at_s: float = 0.0


class Drop(_Fault, tag="drop", frozen=True, kw_only=True):
    """Abort every socket, without a close frame."""


class Silence(_Fault, tag="silence", frozen=True, kw_only=True):
    """The sockets of this moment stay up and say nothing more, no ping and no pong; ``for_s`` None: for good.

    With ``frames_only`` pings and pongs flow and only the frames are lost.
    """

    for_s: float | None = None
    frames_only: bool = False


class RefuseWs(_Fault, tag="refuse_ws", frozen=True, kw_only=True):
    """Answer 503 to every new socket for ``for_s`` seconds."""

    for_s: float = 5.0


class DropFrames(_Fault, tag="drop_frames", frozen=True, kw_only=True):
    """Lose the next ``n`` frames."""

    n: int = 1


class Duplicate(_Fault, tag="duplicate", frozen=True, kw_only=True):
    """Send each of the next ``n`` frames twice."""

    n: int = 1


class Reorder(_Fault, tag="reorder", frozen=True, kw_only=True):
    """Hold the next ``n`` frames (for a second at most), then send them shuffled."""

    n: int = 10


class Garbage(_Fault, tag="garbage", frozen=True, kw_only=True):
    """Send frames nobody can read; ``all`` is every kind but ``oversize``, which costs the connection."""

    kind: Literal[
        "all", "not_json", "cut_json", "unknown_event", "missing_field", "nan", "nul", "not_utf8", "oversize"
    ] = "all"


class ExpireKey(_Fault, tag="expire_key", frozen=True, kw_only=True):
    """The listen key dies now; with ``announce`` false nobody is told."""

    announce: bool = True


class ServerShutdown(_Fault, tag="server_shutdown", frozen=True, kw_only=True):
    """Announce a shutdown on every socket; nothing is cut."""


class ClockOffset(_Fault, tag="clock_offset", frozen=True, kw_only=True):
    """The venue's clock jumps to ``ms`` away from the true one."""

    ms: int


class RestLag(_Fault, tag="rest_lag", frozen=True, kw_only=True):
    """REST serves the books as they were ``s`` seconds ago (never older than this fault); 0 ends it."""

    s: float


class RestNotFound(_Fault, tag="rest_not_found", frozen=True, kw_only=True):
    """The next ``n`` GET order answer -2013, whatever is asked."""

    n: int = 1


class RestForgets(_Fault, tag="rest_forgets", frozen=True, kw_only=True):
    """REST has none of the orders that were ``rejected`` (-2013), nor of those that ended without an execution
    ``after_s`` seconds ago or longer (-2026; null: it has them all)."""

    rejected: bool = True
    after_s: float | None = None


class OddEndings(_Fault, tag="odd_endings", frozen=True, kw_only=True):
    """The next ``n`` orders that are canceled or expire end in a status that no page documents."""

    n: int = 1


class IgnoreFilters(_Fault, tag="ignore_filters", frozen=True, kw_only=True):
    """allOrders and myTrades ignore startTime, endTime and their id cursors, and give the newest rows."""

    on: bool = True


class Pages(_Fault, tag="pages", frozen=True, kw_only=True):
    """A page of allOrders or myTrades has at most ``rows`` rows; with ``refuse`` a larger limit is refused (-1130)."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    refuse: bool = False


class History(_Fault, tag="history", frozen=True, kw_only=True):
    """allOrders and myTrades go back ``days`` (null: to the beginning); an older startTime is refused or, with
    ``refuse`` false, answered without the older rows."""

    days: float | None
    refuse: bool = True


class RefuseMarket(_Fault, tag="refuse_market", frozen=True, kw_only=True):
    """Every question about ``symbol`` is refused with ``code``; null ends it."""

    symbol: str
    code: int | None


class Move(_Fault, tag="move", frozen=True, kw_only=True):
    """A deposit, or a withdrawal when ``amount`` (decimal text) is negative.

    With ``announce`` false there is no balanceUpdate, also where the dialect knows it; with ``position`` false no
    position follows either, and only the account tells.
    """

    asset: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{1,20}$")]
    amount: Decimal
    announce: bool = True
    position: bool = True


class RestFault(_Fault, frozen=True, kw_only=True):
    """Spoils the next ``count`` REST answers whose path contains ``path``."""

    count: int = 1
    path: str = ""


class RestStatus(RestFault, tag="rest_status", frozen=True, kw_only=True):
    """An error of the venue with this HTTP status; ``retry_after`` goes into the header as it stands.

    ``code`` null: one that fits the status.
    """

    status: int
    retry_after: int | str | None = None
    code: int | None = None


class RestHtml(RestFault, tag="rest_html", frozen=True, kw_only=True):
    """An HTML page, as a gateway or firewall in front of the venue sends."""

    status: int = 502


class RestTruncate(RestFault, tag="rest_truncate", frozen=True, kw_only=True):
    """Half of the body under the Content-Length of the whole, then the end of the connection."""


class RestDelay(RestFault, tag="rest_delay", frozen=True, kw_only=True):
    """The true answer, ``s`` seconds late."""

    s: float = 1.0


class Redirect(RestFault, tag="redirect", frozen=True, kw_only=True):
    """302 to another host: a client that follows it gives its key away."""

    to: str = "https://elsewhere.invalid"


class Nonsense(RestFault, tag="nonsense", frozen=True, kw_only=True):
    """What cannot be: see ``nonsense``. ``symbol`` and ``order_id`` say of whom; None: whoever comes first.

    ``rest``: the first row that fits in each of the next ``count`` answers that have one. ``stream``: one frame now, of
    the newest that fits.
    """

    kind: nonsense.Kind
    where: Literal["rest", "stream"] = "rest"
    symbol: str | None = None
    order_id: int | None = None

    def fits(self, row: Order | Fill) -> bool:
        return self.symbol in (None, row.symbol) and self.order_id in (None, row.order_id)


SpoiltAnswer = RestStatus | RestHtml | RestTruncate | RestDelay | Redirect
Fault = (
    Drop
    | Silence
    | RefuseWs
    | DropFrames
    | Duplicate
    | Reorder
    | Garbage
    | ExpireKey
    | ServerShutdown
    | ClockOffset
    | RestLag
    | RestNotFound
    | RestForgets
    | OddEndings
    | IgnoreFilters
    | Pages
    | History
    | RefuseMarket
    | Move
    | Nonsense
    | SpoiltAnswer
)


def fault_from(value: Mapping[str, object]) -> Fault:
    """One fault from its JSON object. Raises ConfigError naming the field that does not fit."""
    try:
        fault: Fault = msgspec.convert(value, Fault)
    except msgspec.ValidationError as error:
        raise ConfigError(f"The fault {dict(value)} cannot be played: {error}. Correct that field.") from None
    return fault


def read_script(path: Path) -> list[Fault]:
    """A script of faults in the order they play. Raises ConfigError when it cannot be read."""
    try:
        faults = msgspec.json.decode(path.read_bytes(), type=list[Fault])
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"The fault script {path} cannot be read: {error}. It must be a JSON list of faults."
        ) from None
    return sorted(faults, key=lambda fault: fault.at_s)


class Switches:
    """The countdowns in force: what becomes of the next frames and the next REST answers."""

    def __init__(self, seed: int) -> None:
        self.drop_frames = 0
        self.duplicate = 0
        self._reorder = 0
        self._held: list[bytes] = []
        self._spoilt: list[tuple[SpoiltAnswer, int]] = []
        self._nonsense: list[tuple[Nonsense, int]] = []
        self._rng = Random(seed)  # nosec B311

    def shuffle_next(self, n: int) -> None:
        self._reorder = n

    def frames(self, frame: bytes) -> list[bytes]:
        """What is really sent when ``frame`` should be: nothing, it, it twice, or a shuffled pack."""
        if self.drop_frames:
            self.drop_frames -= 1
            return []
        frames = [frame]
        if self.duplicate:
            self.duplicate -= 1
            frames *= 2
        if not self._reorder:
            return frames
        self._reorder -= 1
        self._held += frames
        return [] if self._reorder else self.release()

    def release(self) -> list[bytes]:
        """Everything held back, shuffled."""
        held, self._held, self._reorder = self._held, [], 0
        self._rng.shuffle(held)
        return held

    def spoil(self, fault: SpoiltAnswer) -> None:
        self._spoilt.append((fault, fault.count))

    def spoilt(self, path: str) -> SpoiltAnswer | None:
        """The fault that meets a REST call of this path, counted down; None when it is answered truly."""
        for index, (fault, count) in enumerate(self._spoilt):
            if fault.path in path:
                self._spoilt[index : index + 1] = [(fault, count - 1)] if count > 1 else []
                return fault
        return None

    def talk_nonsense(self, fault: Nonsense) -> None:
        self._nonsense.append((fault, fault.count))

    def told(self, path: str, rows: list[Order | Fill]) -> list[Order | Fill]:
        """The rows a REST call of this path is told: the true ones, but for one where a lie is due and has a victim."""
        for index, (fault, count) in enumerate(self._nonsense):
            if fault.path not in path:
                continue
            for at, row in enumerate(rows):
                if fault.fits(row) and (lie := nonsense.lie(fault.kind, row)):
                    self._nonsense[index : index + 1] = [(fault, count - 1)] if count > 1 else []
                    return [*rows[:at], lie, *rows[at + 1 :]]
        return rows


def garbage(kind: str, now_ms: int) -> list[bytes]:
    """Payloads nobody can read, for a text frame."""
    stamp = str(now_ms).encode()
    fill = b'"s":"BTCUSDT","i":288274,"S":"BUY","X":"PARTIALLY_FILLED","l":"0.01","L":"64000.00","n":"0.64"'
    payloads = {
        "not_json": b"<html>this is not JSON</html>",
        "cut_json": b'{"e":"executionReport",' + fill + b',"N":"USDT","T":1717',
        "unknown_event": b'{"e":"marginCallRehearsal","E":' + stamp + b',"why":"nobody knows"}',
        "missing_field": b'{"e":"executionReport","s":"BTCUSDT","S":"BUY","X":"FILLED","T":' + stamp + b"}",
        "nan": b'{"e":"outboundAccountPosition","u":' + stamp + b',"B":[{"a":"BTC","f":"NaN","l":"0"}]}',
        "nul": b'{"e":"outboundAccountPosition","u":' + stamp + b',"B":[{"a":"B\\u0000TC","f":"1","l":"0"}]}',
        "not_utf8": b'{"e":"executionReport",' + fill + b',"N":"\xff\xfe","T":' + stamp + b"}",
    }
    if kind == "oversize":
        return [b'{"e":"' + b"x" * FRAME_BYTES_MAX + b'"}']
    return list(payloads.values()) if kind == "all" else [payloads[kind]]
