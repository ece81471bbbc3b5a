"""Every error the program raises on purpose, drawn as a tree.

LedgerError
├── UsageError               an argument cannot be used as it is given, exit 2
├── ConfigError              a setting or credential is wrong: stop at start, exit 3
├── CannotWrite              standard output or a file takes no more (a full device), exit 3
├── ReaderGone               whoever read standard output went away: leave without a word, exit 141
├── VenueError               the venue did not do what was asked, exit 4
│   ├── UnreadableFrame      a payload could not be understood: keep it, count it, go on
│   ├── VenueBusy            429, 418, 5xx, time-outs, HTML, cut bodies: wait ``retry_after_s``, ask again
│   │   ├── VenueUnreachable nothing answers at the venue's address
│   │   └── VenueSilenced    429, 418, or asked within a silence: nothing may be asked for ``retry_after_s``
│   ├── VenueRefused         the venue answered with an error code of its own (-2013, -1121 …): the caller decides
│   ├── Unanswered           one question gets no answer while the venue answers others: asked again later
│   │   └── UnreadableAnswer an answer stays unreadable as a whole: kept, asked again later, everything else goes on
│   └── KeyRefused           -2014, -2015, 401 to what every key may ask: a person must look; exit 3
├── DatabaseError            PostgreSQL is missing, too old, of another schema, or away; exit 5
│   └── NoLedger             there is no schema of ours yet: nothing was ever mirrored here
└── Fenced                   another process leads this account now: stop writing, stand by

A message says what happened, got against expected, and what to do.
"""

from __future__ import annotations


class LedgerError(Exception):
    """Base of every error raised on purpose. ``exit_code`` is what the command line exits with."""

    exit_code = 1


class UsageError(LedgerError):
    """An argument cannot be used as it is given: a file that cannot be written, a port that is taken."""

    exit_code = 2


class ConfigError(LedgerError):
    """A setting or credential is wrong; the message is one sentence naming the setting."""

    exit_code = 3


class CannotWrite(LedgerError):
    """Where the output goes takes no more: the device is full."""

    exit_code = 3


class ReaderGone(LedgerError):
    """Whoever read standard output went away, as ``head`` does: the end, without a word, as of any filter."""

    exit_code = 141  # 128 + SIGPIPE


class VenueError(LedgerError):
    """The venue is unreachable, refused, or said something that cannot be read."""

    exit_code = 4


class UnreadableFrame(VenueError):
    """A payload could not be understood. The message names the field, what came and what was expected."""


class VenueBusy(VenueError):
    """The venue could not answer now; ask again after ``retry_after_s`` seconds (None: the caller backs off)."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class VenueUnreachable(VenueBusy):
    """Nothing answers at the venue's address. The message names the address and the setting it came from."""


class VenueSilenced(VenueBusy):
    """The venue wants no question at all for ``retry_after_s`` seconds: too many requests, a ban, or a silence that an
    earlier answer asked for."""


class VenueRefused(VenueError):
    """The venue answered with an error of its own: HTTP ``status``, numeric ``code`` (None when it gave none)."""

    def __init__(self, message: str, *, status: int, code: int | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Unanswered(VenueRefused):
    """One question gets no answer, however often it is asked, while the venue answers others (HTTP ``status`` 0, no
    code). It says nothing of others."""

    def __init__(self, message: str, *, status: int = 0, code: int | None = None) -> None:
        super().__init__(message, status=status, code=code)


class UnreadableAnswer(Unanswered):
    """The answer to one question stays unreadable as a whole, however often it is asked. It says nothing of others."""


class KeyRefused(VenueRefused):
    """The API key is wrong, disabled or not allowed from here: -2014, -2015 or HTTP 401 to a call that every key may
    make (``capabilities.proves_key``). Asking again at once cannot help."""

    exit_code = 3


class DatabaseError(LedgerError):
    """PostgreSQL is missing, too old, of another schema version, or away."""

    exit_code = 5


class NoLedger(DatabaseError):
    """There is no schema of ours: nothing was ever mirrored here."""


class Fenced(LedgerError):
    """Another process leads this account now: what this one still wanted to write was refused, all of it."""

    exit_code = 5


class WentBack(LedgerError):
    """The database is not the one that was meant any more: it lost rows that it had confirmed."""
