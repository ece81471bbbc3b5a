"""Logs: structured, on stderr, without a secret.

Always holds: every line, tracebacks of our own and of libraries included, passes ``redact`` as finished text just
before it is written; a line is never worth the program (a blocked or closed stderr loses lines, nothing else);
standard output stays free for data. Console style on a terminal, one JSON object a line otherwise.

A leaf that every room may import: ``structlog.get_logger(__name__)`` to speak, ``hide`` for secrets that come to be
while the program runs.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ledger.escapes import escaped

MASK = "***"
_SHORTEST = 4  # masking every "a" would leave nothing to read; no real secret is this short
_RUNTIME_SECRETS_MAX = 64
_LINES_MAX = 10_000
_FLUSH_WAIT_S = 2.0
# At info these tell every request, every frame, every look at the schema.
_CHATTY = ("httpx", "httpcore", "websockets", "asyncio", "alembic")

# What is a secret wherever it stands: the value of such a name (in a URL, a header, a dict, JSON), a key in a path.
_NAMED = re.compile(
    r"""\b(signature|listen_?key|x-[a-z]+-api-?key)(\\?["']?\s*(?:[=:]|%3d)\s*(?:b?\\?["'])?)[^\s"'&,;)\]}\\]+""",
    re.IGNORECASE,
)
_IN_PATH = re.compile(r"(/ws/|[?&]streams=)[^\s\"'&?#/\\]+")
_SECRET_NAMES = frozenset({"signature", "listenkey", "listen_key", "api_key", "api_secret", "password", "secret"})
_INSTANTS_MS = (1_000_000_000_000, 10_000_000_000_000)
"""From 2001 to 2286; what is shorter is a duration."""


class _Redactor:
    """The secrets known, and every spelling of them, longest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lasting: set[str] = set()
        self._recent: dict[str, None] = {}
        self._known: tuple[str, ...] = ()

    def learn(self, secrets: Iterable[str]) -> None:
        with self._lock:
            self._lasting |= set(secrets)
            self._spell()

    def learn_recent(self, secret: str) -> None:
        with self._lock:
            if secret in self._recent:
                return
            self._recent[secret] = None
            if len(self._recent) > _RUNTIME_SECRETS_MAX:
                del self._recent[next(iter(self._recent))]
            self._spell()

    def _spell(self) -> None:
        known = {form for secret in (*self._lasting, *self._recent) for form in _forms(secret)}
        self._known = tuple(sorted(known, key=len, reverse=True))

    def clean(self, text: str) -> str:
        for form in self._known:
            if form in text:
                text = text.replace(form, MASK)
        text = _NAMED.sub(rf"\1\2{MASK}", text)
        return _IN_PATH.sub(rf"\1{MASK}", text)


@functools.lru_cache(2 * _RUNTIME_SECRETS_MAX)
def _forms(secret: str) -> frozenset[str]:
    """The spellings a secret may take in a line: as it is, escaped, percent-encoded, in hex, in base64."""
    if len(secret) < _SHORTEST:
        return frozenset()
    raw = secret.encode()
    escaped = {json.dumps(secret)[1:-1], repr(secret)[1:-1], ascii(secret)[1:-1]}
    encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    lower = {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in encoded}
    return frozenset((secret, raw.hex(), raw.hex().upper(), *escaped, *encoded, *lower, *_base64_forms(raw)))


def _base64_forms(raw: bytes) -> set[str]:
    """The part of its base64 that holds wherever in a longer text the secret begins (as in ``user:password``)."""
    forms = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode()
        # The first characters mix with what stands before, the last with what follows.
        first = -(-before * 8 // 6)
        last = (before + len(raw)) * 8 // 6
        forms.add(whole[first:last])
    return {form for plain in forms if len(plain) >= _SHORTEST for form in (plain, plain.translate(_URL_SAFE))}


_URL_SAFE = str.maketrans("+/", "-_")
_redactor = _Redactor()


def hide(secret: str) -> None:
    """Mask this text in every line from now on (a listen key); the last 64 such are remembered."""
    _redactor.learn_recent(secret)


def redact(text: str) -> str:
    """The text with every known secret, signature and listen key replaced by ``***``."""
    return _redactor.clean(text)


def setup(level: str = "info", format: str = "auto", secrets: Iterable[str] = ()) -> None:
    """Send all logs, ours and the libraries', to stderr. ``level``: debug, info, warning or error; ``format``: auto,
    console or json. May be called again: the new choice replaces the old one, secrets add up.
    """
    _redactor.learn(secrets)
    number = logging.getLevelNamesMapping()[level.upper()]
    console = format == "console" or (format == "auto" and _is_terminal(sys.stderr))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _times_in_words,
        _mask_by_name,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *shared],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_render(console)],
    )
    _replace_handler(formatter)
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(number if number <= logging.DEBUG else max(number, logging.WARNING))
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def flush() -> None:
    """Wait, at most two seconds, until the lines so far are written."""
    _writer.flush()


def _render(console: bool) -> list[Processor]:
    # Plain tracebacks: the pretty ones print local variables, keys among them.
    if not console:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    colors = _is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return [structlog.processors.format_exc_info, _show, renderer]


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _mask_by_name(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # Colours stand between name and value on a terminal, so the text alone would not tell.
    for name in event:
        if name.lower() in _SECRET_NAMES:
            event[name] = MASK
    return event


def _times_in_words(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Beside each instant in ms since 1970 the same one as people read it, in UTC."""
    for name, value in list(event.items()):
        if name.endswith("_ms") and isinstance(value, int) and _INSTANTS_MS[0] <= value < _INSTANTS_MS[1]:
            event.setdefault(name.removesuffix("_ms"), f"{datetime.fromtimestamp(value // 1000, UTC):%FT%T}Z")
    return event


def _show(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Text of the venue must neither steer the terminal nor begin a line: those of a traceback are indented."""
    for name, value in event.items():
        if name in ("exception", "stack"):
            event[name] = "\n".join(f"  {escaped(line)}" for line in str(value).split("\n"))
        elif isinstance(value, str):
            event[name] = escaped(value)
    return event


class _Writer:
    """A thread of its own that writes lines to stderr, so that a full pipe blocks nothing else."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[str | threading.Event] = queue.Queue(_LINES_MAX)
        self._lost = 0
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        if sys.is_finalizing():  # a thread started now would never run, and its start would never return
            self._write(f"{line}\n")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
            self._thread.start()
            atexit.register(self.flush)
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def flush(self) -> None:
        if self._thread is None:
            return
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._waiting.put(written, timeout=_FLUSH_WAIT_S / 2)
            written.wait(_FLUSH_WAIT_S / 2)

    def _run(self) -> None:
        while True:
            item = self._waiting.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            lost, self._lost = self._lost, 0
            self._write(f"{item}\n" if not lost else f"(log lines lost, stderr was blocked: {lost})\n{item}\n")

    def _write(self, text: str) -> None:
        stream, real = sys.stderr, sys.__stderr__
        try:
            if stream is None:
                return
            if real is not None and stream is real:
                # Not through Python's buffer: a write that blocks would hold its lock when the program wants to end.
                rest = text.encode("utf-8", "backslashreplace")
                while rest:
                    rest = rest[os.write(real.fileno(), rest) :]
            else:
                stream.write(text)
                stream.flush()
        except (OSError, ValueError):  # full and not blocking, closed, or nobody reads
            self._lost += 1


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = redact(self.format(record))
        except Exception as error:  # a line is never worth the program, and its content is not known to be clean
            line = f"a log line of {record.name} could not be written: {type(error).__name__}"
        _writer.put(line)


_writer = _Writer()


def _replace_handler(formatter: logging.Formatter) -> None:
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler()
    handler.setFormatter(formatter)
    root.addHandler(handler)


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("ledger").critical("the program failed", exc_info=(kind, error, trace))
    flush()


def _log_uncaught_in_thread(failure: threading.ExceptHookArgs) -> Any:
    if failure.exc_value is not None:
        _log_uncaught(failure.exc_type, failure.exc_value, failure.exc_traceback)
