"""TLS as both clients of the venue use it: certificates and host names are checked, whatever the environment says."""

from __future__ import annotations

import ssl
from functools import cache

import httpx


@cache
def context() -> ssl.SSLContext:
    """TLS 1.2 or newer, the certificate authorities that come with the HTTP library, no key log file."""
    made = httpx.create_ssl_context(trust_env=False)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python takes SSLKEYLOGFILE from the environment; whoever reads that file reads the API key.
    made.keylog_filename = None  # type: ignore[assignment]  # the stubs know no way to switch it off
    return made
