"""The venue's REST API: questions out, answers or errors in words back.

Always holds: what is signed is what is sent, at the moment it is sent; redirects are never followed; nothing is
asked while the venue wants silence, the weight of any sliding minute stays within the budget, and but for the
listen key's no more than 20 calls leave in any second; only a whole
JSON answer with status 200 is an answer, whatever else comes is an error, never "empty". No message and no log
line holds a query string, a key, a signature or a listen key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from ledger.errors import ConfigError, KeyRefused, VenueBusy, VenueError, VenueRefused, VenueSilenced, VenueUnreachable
from ledger.venue import capabilities, rest_pages
from ledger.venue.reading import LAST_MS
from ledger.venue.requests import Request, Security, server_time
from ledger.venue.signing import query_string
from ledger.wire import tls
from ledger.wire.budget import Budget, backoff_s, told_wait_s, used_weight
from ledger.wire.clock import Clock
from ledger.wire.offset import Reading, Source
from ledger.wire.reach import why

log = structlog.get_logger(__name__)

KEY_HEADER = "X-SDX-APIKEY"
BODY_MAX_BYTES = 64 * 1024 * 1024
INFLATED_AT_ONCE = 1024 * 1024
"""Bytes of a compressed answer that are undone in one step."""
STEP_TIMEOUT_S = 10.0
"""For connecting, and for each read and write."""
CALL_TIMEOUT_S = 30.0
"""For one call as a whole: a body that drips in must end too."""

KEY_SPARE = 20
"""Weight per minute that only listen-key calls may use; a tenth of a smaller budget."""

DATE_ERROR_MS = 500
"""By as much the middle of a Date header's second may be wrong."""

MEASURE_WITHIN_S = 5.0
"""How long an answer that contradicts our clock waits for that to be measured."""
MEASURE_EVERY_S = 5.0
"""How often at most an answer that contradicts our clock makes it be measured."""

CLOCK_OFF = -1021
_TOO_MANY = -1003
_BAD_SIGNATURE = -1022
_VENUE_BUSY = frozenset({-1001, -1006, -1007, -1008, -1016})
"""Internal error, outcome unknown (twice), overloaded, shutting down: the question was fine."""
_NOT_THERE = frozenset({404, 405, 410})

# httpx logs every URL with its query at INFO; ours carry signatures and listen keys.
logging.getLogger("httpx").addFilter(lambda _: False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``headers`` have lower-case names; times are the venue's clock, ms, before and after."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    asked_ms: int
    answered_ms: int


class VenueHttp:
    """A client of one account at one venue. Safe to share: calls wait for their turn in the order they come,
    but those for the listen key, which never wait behind others.

    ``on_blocked`` is told the end of a new silence in ms of this machine's clock, to be kept over a restart; it
    is awaited, so it must not wait long. ``on_accepted`` is awaited once for signed calls and once for those with the
    key alone, before anybody is given the first answer to one that proves the key; what it raises the call raises, and
    the next one tries it again. ``budget`` is shared by all clients of one address, if given. ``transport``
    None: the network.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        api_secret: str,
        clock: Clock,
        *,
        weight_per_minute: int = 600,
        budget: Budget | None = None,
        on_blocked: Callable[[int], Awaitable[None]] | None = None,
        rng: random.Random | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not re.fullmatch(r"[\x21-\x7e]*", api_key):
            raise ConfigError("SDX_API_KEY: expected letters, digits and signs, got spaces or others; copy it again")
        self.on_blocked = on_blocked
        self.on_accepted: Callable[[Security], Awaitable[None]] | None = None
        self.requests = 0
        """Calls sent so far."""
        self.answers = 0
        """Good answers so far, those about the listen key left out."""
        self.last_error: str | None = None
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._api_secret = api_secret
        self._clock = clock
        self._budget = budget or Budget(weight_per_minute)
        self._rng = rng or random.SystemRandom()
        self._turn = asyncio.Lock()
        self._measuring = asyncio.Lock()
        self._date_ahead_ms = 0
        self._measure_due_s = 0.0
        self._key_refused: dict[Security, KeyRefused] = {}
        """What the venue said of the key, to signed calls and to those for the listen key: one may work without the
        other, and the stream must not end with a question."""
        self._accepted: set[Security] = set()
        self._answered = asyncio.Event()
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            http2=False,
            verify=tls.context(),
            transport=transport,
            timeout=httpx.Timeout(STEP_TIMEOUT_S),
            # A compressed answer could be a thousand times larger than what was counted on its way in.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "sdx-ledger"},
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def send(self, request: Request) -> Answer:
        """Ask once, or twice when the venue finds our clock off: then its clock is measured in between.

        Waits for the weight budget. Raises VenueBusy (also at once while the venue wants silence), VenueRefused,
        or KeyRefused; the latter again, without asking, until ``retry_key``, for every call of the same security.
        """
        try:
            try:
                answer = await self._ask(request)
                await self._measure_if_doubted()
                return answer
            except VenueRefused as refused:
                if refused.code != CLOCK_OFF:
                    raise
            await self.measure_offset(refused=True)
            return await self._ask(request)
        except VenueError as error:
            self.last_error = str(error)
            raise

    async def send_patiently(self, request: Request, *, attempts: int = 6, deadline_s: float | None = None) -> Answer:
        """``send``, again after VenueBusy: as late as the venue asks and our back-off wants.

        Raises what the last attempt raised; no further one starts after ``deadline_s`` (monotonic; None: no
        limit but ``attempts``).
        """
        attempt = 1
        while True:
            try:
                return await self.send(request)
            except VenueBusy as busy:
                wait_s = max(busy.retry_after_s or 0.0, backoff_s(attempt, self._rng))
                too_late = deadline_s is not None and self._clock.monotonic_s() + wait_s > deadline_s
                if attempt >= attempts or too_late:
                    raise
                log.warning("venue does not answer now, trying again", error=str(busy), wait_s=round(wait_s))
            await self._clock.sleep(wait_s)
            attempt += 1

    async def measure_offset(self, *, refused: bool = False) -> int:
        """Measure the venue's clock against ours, tell the clock and return the offset in ms, be it believed or not.

        By its time endpoint, else by the Date header of any answer (whole seconds: up to half a second wrong);
        the venue's moment is taken to be the middle of the round trip. ``refused``: the venue refused our time, which
        speaks for what it tells now. Raises VenueBusy when neither is there.
        """
        async with self._measuring:
            # The first call may have had to connect, which makes its middle a bad guess; the shorter of two counts.
            readings = [await self._measure_once() for _ in range(2)]
            self._measure_due_s = self._clock.monotonic_s() + MEASURE_EVERY_S
            for reading in sorted(readings, key=lambda one: -one.error_ms):
                self._clock.hear(reading, refused=refused)
        if self._clock.is_doubted:
            log.error(
                "the venue's clock is far from what it was and from ours; it is not believed until that lasts",
                told_offset_ms=reading.offset_ms,
                believed_offset_ms=self._clock.offset_ms,
            )
        else:
            log.info("venue clock measured", offset_ms=self._clock.offset_ms, error_ms=self._clock.error_ms)
        return reading.offset_ms

    async def _measure_if_doubted(self) -> None:
        """An answer whose Date contradicts our clock decides nothing: its time is asked for, at once and briefly."""
        if not self._clock.is_doubted or self._clock.monotonic_s() < self._measure_due_s:
            return
        self._measure_due_s = self._clock.monotonic_s() + MEASURE_EVERY_S
        try:
            async with asyncio.timeout(MEASURE_WITHIN_S):
                await self.measure_offset()
        except (VenueError, TimeoutError) as error:
            log.info("the venue's clock could not be measured now", error=str(error) or "no answer")

    def block_until(self, until_ms: int) -> None:
        """Ask nothing before ``until_ms`` (this machine's clock): a silence that outlived a restart."""
        self._budget.block(self._clock.monotonic_s() + (until_ms - self._clock.now_ms()) / 1000)

    def blocked_for_s(self) -> float:
        """Seconds of silence left, 0 for none."""
        return self._budget.blocked_for_s(self._clock.monotonic_s())

    async def wait_for_silence(self, longest_s: float) -> bool:
        """Wait until the silence that the venue wants is over. False at once where it is longer than that."""
        if self.blocked_for_s() > longest_s:
            return False
        while (left_s := self.blocked_for_s()) > 0:
            await self._clock.sleep(left_s)
        return True

    def retry_key(self, security: Security | None = None) -> None:
        """Let a refused key be tried again, for calls of this security or (None) for all: enough time has passed."""
        if security is None:
            self._key_refused.clear()
        else:
            self._key_refused.pop(security, None)

    async def until_answered(self, after: int) -> None:
        """Wait until there are more good ``answers`` than ``after``: the venue is there."""
        while self.answers <= after:
            await self._answered.wait()

    def weight_used(self) -> int:
        """Weight spent in the last minute, as far as we and the venue know."""
        return self._budget.used(self._clock.monotonic_s())

    @property
    def weight_limit(self) -> int:
        """Weight that may be spent in any minute."""
        return self._budget.limit

    async def _measure_once(self) -> Reading:
        answer = await self._exchange(server_time())
        venue_ms = _told_time_ms(answer)
        if venue_ms is None:
            raise VenueBusy("the venue told no time, neither in its answer nor as Date")
        date_ms = _date_ms(answer)
        self._date_ahead_ms = 0 if date_ms is None else date_ms - venue_ms
        return self._reading(answer, venue_ms, "date" if venue_ms == date_ms else "time")

    def _reading(self, answer: Answer, venue_ms: int, source: Source) -> Reading:
        """What an answer tells of the venue's clock; the answer's times already hold the offset believed so far."""
        offset_ms = self._clock.offset_ms + venue_ms - (answer.asked_ms + answer.answered_ms) // 2
        error_ms = (answer.answered_ms - answer.asked_ms + 1) // 2 + (DATE_ERROR_MS if source == "date" else 0)
        return Reading(offset_ms, error_ms, self._clock.monotonic_s(), source)

    async def _ask(self, request: Request) -> Answer:
        """One exchange, judged."""
        if (again := self._key_refused.get(request.security)) is not None:
            raise KeyRefused(str(again), status=again.status, code=again.code)
        answer = await self._exchange(request)
        error = _judge(request, answer, self._clean(request))
        if isinstance(error, KeyRefused):
            self._key_refused[request.security] = error
            log.error("key refused, asking nothing more of this kind with it", error=str(error))
        if error is not None:
            raise error
        if (
            self.on_accepted is not None
            and request.security not in self._accepted
            and capabilities.proves_key(request)
            and _is_object_or_list(answer.body)
        ):
            await self.on_accepted(request.security)
            self._accepted.add(request.security)
        if request.security != "key":
            self.answers += 1
            self._answered.set()
            self._answered = asyncio.Event()
        return answer

    async def _exchange(self, request: Request) -> Answer:
        """One call on the wire. Raises VenueBusy when no whole answer came, or one that asks for silence."""
        if request.security != "public" and not self._api_key:
            raise ConfigError("SDX_API_KEY: not set; set it, or SDX_API_KEY_FILE, to a read-only key of the venue")
        if request.security == "key" or request.kind == server_time().kind:
            # The stream hangs on the listen key: its calls never queue behind a walk through history, nor does the
            # question for the time that may come with them.
            await self._wait_for_budget(request, spare=0, paced=False)
        else:
            async with self._turn:
                await self._wait_for_budget(request, spare=min(KEY_SPARE, self._budget.limit // 10), paced=True)
        try:
            answer = await self._call(request)
        finally:
            self._budget.settle(request.weight, self._clock.monotonic_s())
        answer = self._dated(answer)
        await self._obey(request, answer)
        return answer

    def _dated(self, answer: Answer) -> Answer:
        """The answer, after its Date was taken note of; its times are right also where that moved our clock.

        So the very first answer, that which brings the listen key, keeps a clock that is ahead from dating coverage.
        """
        date_ms = _date_ms(answer)
        if date_ms is None or "age" in answer.headers:
            return answer
        before_ms, was_doubted = self._clock.offset_ms, self._clock.is_doubted
        self._clock.hear(self._reading(answer, date_ms - self._date_ahead_ms, "date"), passing=True)
        moved_ms = self._clock.offset_ms - before_ms
        if self._clock.is_doubted and not was_doubted:
            log.warning("the venue's Date contradicts our clock", date_ms=date_ms, ours_ms=self._clock.venue_now_ms())
        return replace(answer, asked_ms=answer.asked_ms + moved_ms, answered_ms=answer.answered_ms + moved_ms)

    async def _wait_for_budget(self, request: Request, *, spare: int, paced: bool) -> None:
        """Wait for room in the budget, at most a window or so; a silence is not waited for but told."""
        while True:
            now_s = self._clock.monotonic_s()
            if (blocked_s := self._budget.blocked_for_s(now_s)) > 0:
                raise VenueSilenced(
                    f"{_name(request)}: not asked, the venue wants {blocked_s:.0f} s more of silence", blocked_s
                )
            wait_s = self._budget.reserve(request.weight, now_s, spare=spare, paced=paced)
            if wait_s == 0:
                return
            await self._clock.sleep(wait_s)

    async def _call(self, request: Request) -> Answer:
        started_s = self._clock.monotonic_s()
        signing_ms = self._clock.signing_offset_ms
        query = query_string(request, secret=self._api_secret, timestamp_ms=self._clock.signing_now_ms())
        url = f"{self._base_url}{request.path}{'?' if query else ''}{query}"
        headers = {} if request.security == "public" else {KEY_HEADER: self._api_key}
        self.requests += 1
        problem = ""
        try:
            async with (
                asyncio.timeout(CALL_TIMEOUT_S),
                self._client.stream(request.method, url, headers=headers) as response,
            ):
                body = await _read(response)
        except TimeoutError:
            problem = f"no whole answer within {CALL_TIMEOUT_S:.0f} s"
        except httpx.ConnectError as error:
            where = f"cannot reach {self._base_url} (SDX_REST_URL)"
            raise VenueUnreachable(f"{where}: {why(error)}") from None
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            # Their texts may hold the URL or a header.
            problem = f"no whole answer ({type(error).__name__})"
        except _TooLarge:
            problem = f"the answer is larger than {BODY_MAX_BYTES} bytes"
        except _Garbled as error:
            problem = str(error)
        if problem:
            raise VenueBusy(f"{_name(request)}: {problem}")
        # Another answer may have set the clock right meanwhile: both times are told by the clock of now.
        answered_ms = self._clock.venue_now_ms()
        elapsed_ms = round((self._clock.monotonic_s() - started_s) * 1000)
        told = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(response.status_code, body, told, answered_ms - elapsed_ms, answered_ms)
        if _told_error(answer)[0] == CLOCK_OFF:
            self._clock.refuse(signing_ms)
        return answer

    async def _obey(self, request: Request, answer: Answer) -> None:
        """Take note of the weight the venue counts, and of a silence it wants; raises VenueBusy for that."""
        now_s = self._clock.monotonic_s()
        if (used := used_weight(answer.headers)) is not None:
            self._budget.correct(used, now_s)
        code, text = _told_error(answer)
        if code is None and answer.status < 400:
            return
        status = 429 if code == _TOO_MANY and answer.status != 418 else answer.status
        wait_s = told_wait_s(status, answer.headers, text, self._clock.venue_now_ms())
        if wait_s is None:
            return
        until_ms = self._clock.now_ms() + round(wait_s * 1000)
        if self._budget.block(now_s + wait_s):
            log.error("venue wants silence", wait_s=round(wait_s), status=answer.status, code=code)
            if self.on_blocked is not None:
                await self.on_blocked(until_ms)
        if status in (418, 429):
            why = "we are banned" if status == 418 else "too many requests"
            raise VenueSilenced(f"{_name(request)}: the venue says {why}; waiting {wait_s:.0f} s", wait_s)

    def _clean(self, request: Request) -> Callable[[str], str]:
        """A function that takes what nobody may read out of the venue's words."""
        secrets = [self._api_key, self._api_secret, *(v for n, v in request.params if n == "listenKey")]

        def clean(text: str) -> str:
            for secret in filter(None, secrets):
                text = text.replace(secret, "***")
            # A signature is 64 hex digits; what follows a question mark may be the query sent back.
            return re.sub(r"(?<=\?)\S+|\b[0-9a-fA-F]{64}\b|(?<=signature=)\w+", "***", text)

        return clean


class _TooLarge(Exception):
    """The body is larger than anything this venue has to say."""


class _Garbled(Exception):
    """The body is compressed in a way that cannot be undone."""


class _Plain:
    """The body as it comes. ``feed`` gives the pieces of what a chunk says, each of a bounded size."""

    is_whole = True

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk


class _Inflated:
    """The body undone, gzip or deflate; never more than INFLATED_AT_ONCE of it at a time."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._undo = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        self._is_new = True

    @property
    def is_whole(self) -> bool:
        return self._undo.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        try:
            if self._is_new and chunk:
                self._is_new = False
                # Some send deflate without the header that belongs to it: the low half of its first byte tells.
                if self._coding == "deflate" and chunk[0] & 15 != 8:
                    self._undo = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
            while chunk and not self._undo.eof:
                yield self._undo.decompress(chunk, INFLATED_AT_ONCE)
                chunk = self._undo.unconsumed_tail
        except zlib.error as error:
            raise _Garbled(f"the answer says that it is compressed ({self._coding}) and is not: {error}") from None


def _undoing(coding: str) -> _Plain | _Inflated:
    """What undoes a Content-Encoding. Raises _Garbled for one that we cannot."""
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return _Plain()
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Inflated(coding)
    shown = re.sub(r"[^\w,. -]", "", coding)[:40]
    raise _Garbled(f"the answer is compressed ({shown}), though it was asked for as it is (Accept-Encoding: identity)")


async def _read(response: httpx.Response) -> bytes:
    """The body, undone where it came compressed though that was not asked for; bounded before and after."""
    body, came, undo = bytearray(), 0, _undoing(response.headers.get("content-encoding", ""))
    async for chunk in response.aiter_raw():
        came += len(chunk)
        for piece in undo.feed(chunk):
            body += piece
            if len(body) > BODY_MAX_BYTES:
                raise _TooLarge
        if came > BODY_MAX_BYTES:
            raise _TooLarge
    if came and not undo.is_whole:
        raise _Garbled("the answer is compressed and ends too early")
    return bytes(body)


def _name(request: Request) -> str:
    """The question for messages: no parameters but the symbol."""
    return f"{request.method} {request.path}{f' {request.symbol}' if request.symbol else ''}"


def _told_error(answer: Answer) -> tuple[int | None, str]:
    """The error in an answer: (None, '') for a good one, also for one of status 200 that carries none."""
    if answer.status != 200:
        return rest_pages.error(answer.status, answer.body)
    # An error is a short object; pages of rows are not read twice for it.
    if len(answer.body) > 4096 or not answer.body.lstrip().startswith(b"{"):
        return None, ""
    code, text = rest_pages.error(answer.status, answer.body)
    return (code, text) if code is not None and code < 0 else (None, "")


def _judge(request: Request, answer: Answer, clean: Callable[[str], str]) -> VenueError | None:
    """The error this answer is, None for a good one. Silence and bans were dealt with before."""
    code, text = _told_error(answer)
    status = answer.status
    name = _name(request)
    said = f"{name}: the venue says {clean(text)!r} (HTTP {status}{'' if code is None else f', code {code}'})"
    if code == CLOCK_OFF:
        return VenueRefused(f"{said}; check this machine's clock", status=status, code=code)
    if code == _BAD_SIGNATURE or capabilities.is_denied(status, code):
        return _denied(request, said, status, code)
    if 300 <= status < 400:
        where = _place(answer.headers.get("location", ""))
        return VenueRefused(
            f"{name}: redirected to {clean(where)} (HTTP {status}), not followed; check SDX_REST_URL",
            status=status,
            code=code,
        )
    if status >= 500 or status == 408 or code in _VENUE_BUSY:
        return VenueBusy(f"{said}", told_wait_s(status, answer.headers, "", answer.answered_ms))
    if code is not None or status in _NOT_THERE:
        return VenueRefused(said, status=status, code=code)
    # To a question any JSON is an answer, which its reader judges: an odd one concerns that question alone.
    if status == 200 and _is_json(answer.body) and (request.method == "GET" or _is_object_or_list(answer.body)):
        return None
    kind = re.sub(r"[^\w/+.-]", "", answer.headers.get("content-type", "unnamed content"))[:60]
    got = "null" if answer.body.strip() == b"null" else f"{len(answer.body)} bytes of {kind}"
    return VenueBusy(f"{name}: expected HTTP 200 with JSON, got HTTP {status} with {got}")


def _denied(request: Request, said: str, status: int, code: int | None) -> VenueRefused:
    """The venue would not have this key. That is about the key only where every key is let in."""
    if not capabilities.proves_key(request):
        return VenueRefused(f"{said}; this key is not offered it", status=status, code=code)
    hint = "check SDX_API_KEY, that it is enabled and allowed from this address"
    if code == _BAD_SIGNATURE:
        hint = "check that SDX_API_SECRET belongs to SDX_API_KEY"
    return KeyRefused(f"{said}; {hint}", status=status, code=code)


def _is_object_or_list(body: bytes) -> bool:
    return body.lstrip()[:1] in (b"{", b"[")


def _is_json(body: bytes) -> bool:
    """Whether this is one whole JSON value."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError:
        # Half a surrogate pair is JSON too, but not to the fast decoder.
        return b"\\u" in body and _is_json_in_full(body)
    except RecursionError:
        return False
    return True


def _is_json_in_full(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _told_time_ms(answer: Answer) -> int | None:
    """The venue's time in an answer, None where it tells none."""
    try:
        told = json.loads(answer.body) if answer.status == 200 else None
    except (ValueError, RecursionError):
        told = None
    venue_ms = told.get("serverTime") if isinstance(told, dict) else None
    if type(venue_ms) is int and 1 <= venue_ms <= LAST_MS:
        return venue_ms
    return _date_ms(answer)


def _date_ms(answer: Answer) -> int | None:
    """When the answer was made by its Date header, None where it has none."""
    try:
        # A Date of whole seconds was cut off: the middle of the second is the best guess.
        return round(parsedate_to_datetime(answer.headers.get("date", "")).timestamp() * 1000) + 500
    except (ValueError, OverflowError):
        return None


def _place(location: str) -> str:
    """Scheme, host and path of an address, without what may be secret in it."""
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else parts.path or "nowhere"
    except ValueError:
        return "an unreadable address"
