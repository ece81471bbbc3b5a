"""Database URLs: parsed once, strictly, before the driver or psql sees them.

Always holds: what the driver, psql and this module could read in different ways is refused, so that all agree where
the password ends; no message holds any part of a URL, since any part of a mistyped one may be the password.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

ENCODE = "write what is special in a password percent-encoded (# as %23, / as %2F, ? as %3F, @ as %40, : as %3A)"
CHECKED = "verify-full"
"""The only sslmode that proves to whom the password goes."""
FILE_OPTIONS = ("sslrootcert", "sslcert", "sslkey")
_LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
_SECRET_OPTIONS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True, repr=False)
class DatabaseUrl:
    """A URL that was read. ``hosts``: as the driver would try them; none: the system's default place."""

    text: str
    hosts: tuple[str, ...]
    options: Mapping[str, str]

    @property
    def is_checked(self) -> bool:
        """Whether the connection stays on this machine, or proves which server it reached."""
        sslmode = self.options.get("sslmode") or os.environ.get("PGSSLMODE")
        return sslmode == CHECKED or all(map(is_local, self.hosts))

    def without_secrets(self) -> tuple[str, dict[str, str]]:
        """The URL less its passwords, and the variables that give them to psql."""
        parts = urlsplit(self.text)
        login, at, place = parts.netloc.rpartition("@")
        user, _, written = login.partition(":")
        password = self.options.get("password") if not written else unquote(written)
        query = urlencode(
            {name: value for name, value in self.options.items() if name not in _SECRET_OPTIONS}, quote_via=quote
        )
        # Not urlunsplit alone: it drops the empty authority before a host of the query.
        bare = f"{parts.scheme}://" + urlunsplit(("", "", f"{user}{at}{place}{parts.path}", query, ""))
        return bare, {"PGPASSWORD": password} if password else {}


def is_local(host: str) -> bool:
    """Whether a host, as URLs name it, is this machine: a folder of sockets, localhost, a loopback address."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def database_url(text: str) -> DatabaseUrl:
    """Read a database's URL. Raises ValueError in words that hold nothing of it."""
    if not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("expected a URL that starts with postgresql://, got something else (not shown)")
    if not re.fullmatch(r"[!-~]+", text) or re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _unreadable("a space, a character outside ASCII or a lone %")
    if "#" in text:
        raise _unreadable("a #")
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, strict_parsing=True, keep_blank_values=True) if parts.query else ())
    except ValueError:
        raise _unreadable("a [ without ], or a query that is no name=value") from None
    login, _, places = parts.netloc.rpartition("@")
    if "@" in login + parts.path + parts.query or ":" in login.partition(":")[2]:
        raise _unreadable("more than one @, or more than one : before it")
    if "service" in options:
        raise ValueError("expected a URL that names its host, got one with service=")
    named = [_host(place) for place in places.split(",")] if places else []
    if any(not port.isdigit() or not 0 < int(port) < 65_536 for port in _given(options.get("port"))):
        raise _unreadable("a port that is no number from 1 to 65535")
    hosts = named or _given(options.get("host")) or _given(os.environ.get("PGHOST"))
    return DatabaseUrl(text, tuple(unquote(host) for host in hosts), options)


def loopback(text: str) -> tuple[str, int]:
    """Address and port of ``127.0.0.1:5433`` or ``[::1]:5433``. Raises ValueError in words for any that other machines
    could reach, and for what is no address with a port."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else "")
    except ValueError:
        found = None
    if found is None or not 0 < int(found[3]) < 65_536:
        raise ValueError("expected a loopback address and a port, such as 127.0.0.1:5433")
    if address not in _LOOPBACK and address != ipaddress.ip_address("::1"):
        raise ValueError(
            "expected a loopback address, such as 127.0.0.1:5433 (other machines would need TLS, which the embedded "
            "server has not: forward the port by ssh, or use a PostgreSQL of your own)"
        )
    return str(address), int(found[3])


def passwords(text: str) -> set[str]:
    """Whatever of a URL may be a password, in every way it can be cut, also where it cannot be read."""
    after = text.partition("://")[2]
    login = after.rpartition("@")[0]
    found = {text, login.partition(":")[2]}
    for name in _SECRET_OPTIONS:
        found |= set(re.findall(rf"[?&]{name}=([^&#]*)", after))
    return found | {unquote(one) for one in found}


def _given(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _host(place: str) -> str:
    """Host of ``host``, ``host:port`` or ``[address]:port``."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]*)(?::([0-9]{1,5}))?", place)
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65_536):
        raise _unreadable("a port that is no number from 1 to 65535")
    return found[1]


def _unreadable(what: str) -> ValueError:
    return ValueError(
        f"expected a URL such as postgresql://user:password@host:5432/database, got one that cannot be read: it holds "
        f"{what} (not shown); {ENCODE}"
    )
