"""Small JSON calls to a server on this machine: how the demo talks to its sandbox venues."""

from __future__ import annotations

from typing import Any

import httpx

TIMEOUT_S = 10.0


async def get(url: str, *, timeout_s: float = TIMEOUT_S) -> Any:
    """The JSON at ``url``. Raises httpx.HTTPError."""
    async with httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
        answer = await client.get(url)
        return answer.raise_for_status().json()


async def post(url: str, body: dict[str, Any]) -> Any:
    """Send ``body`` as JSON and return the JSON answer. Raises httpx.HTTPError."""
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as client:
        answer = await client.post(url, json=body)
        return answer.raise_for_status().json()
