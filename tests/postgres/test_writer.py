"""Work handed to a writer is done once the database lets it, whatever a lost session makes the driver say."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ledger.wire.postgres import UNSENT_BYTES, Writer

ROUNDS = 20


async def test_a_session_the_server_ends_between_two_statements_is_work_done_again(
    database_url: str, conn: Any
) -> None:
    """The driver may already know of the end and not yet of the closed socket; it has an error of its own for that."""
    writer = Writer(database_url, application="tests writer")
    ended: list[int] = []

    async def work(session: Any) -> int:
        pid = session.get_server_pid()
        if len(ended) <= done:
            ended.append(pid)
            ending = asyncio.create_task(conn.execute("SELECT pg_terminate_backend($1)", pid))
            try:
                for _ in range(1000):
                    await session.execute("SELECT 1")
            finally:
                await ending
        return int(pid)

    try:
        for done in range(ROUNDS):
            assert await writer.run(work) != ended[done]
    finally:
        await writer.close()


async def test_an_error_of_the_drivers_own_costs_the_session_and_not_the_work(database_url: str) -> None:
    writer = Writer(database_url, application="tests writer")
    sessions: list[int] = []

    async def work(session: Any) -> int:
        sessions.append(session.get_server_pid())
        if len(sessions) == 1:
            raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")
        return sessions[-1]

    try:
        assert await writer.run(work) == sessions[1] != sessions[0]
    finally:
        await writer.close()


def test_a_large_call_leaves_at_once_where_the_server_is_reached_by_a_file(conn: Any) -> None:
    stream = conn._transport.get_extra_info("socket")
    if stream.family != socket.AF_UNIX:
        pytest.skip("the server is reached over TCP, which holds what the line needs")
    allowed_bytes = int(Path("/proc/sys/net/core/wmem_max").read_text())
    assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= min(UNSENT_BYTES, allowed_bytes)
