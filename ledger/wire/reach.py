"""Why a connection could not be made, in the system's words: what the libraries wrap around them says nothing."""

from __future__ import annotations

import os
import ssl
from urllib.parse import parse_qs, urlsplit


def why(error: BaseException) -> str:
    """The system's own reason somewhere behind an error; the error's own words where there is none."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLError):
            return str(one)
        if isinstance(one, OSError) and one.errno and one.strerror:
            # Loops of asyncio put the address into the words, which stands in front already.
            return (os.strerror(one.errno) if one.errno > 0 else one.strerror).lower()
        inner = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [*inner, one.__cause__, one.__context__]
    return str(error) or type(error).__name__


def place(url: str) -> str:
    """Where a database is, without user, password and anything else that may be secret."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{host}{port}{parts.path}" if host else parts.path.lstrip("/") or "the default address"
