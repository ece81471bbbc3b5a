"""The queries of the docs find their rows by an index, as the reader runs them, on an account among others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.bench.stored import store
from tests.postgres.test_checks import acting_as, make_roles
from tests.queries import PAGE, documented

FILLS, ACCOUNTS, SYMBOLS = 48_000, 4, 10
ROWS_MAX = 1_500
"""More than a page or a month of an account has here (1,000), far fewer than its fills (12,000)."""
QUERIES = documented(account="'a1'", symbol="'S7USDT'", asset="'A3'")


@pytest.fixture
async def stored(conn: Any) -> AsyncIterator[Any]:
    """A year of four accounts, asked as the reader asks."""
    await make_roles(conn)
    await store(conn, FILLS, accounts=ACCOUNTS, symbols=SYMBOLS)
    await conn.execute("UPDATE ledger.orders SET status_rank = 1 WHERE order_id % 100 = 0; ANALYZE ledger.orders")
    async with acting_as(conn, "sdx_reader"):
        yield conn


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def rows_looked_at(node: dict[str, Any]) -> float:
    """Rows a scan came by: those it gave away and those it threw away."""
    thrown = sum(node.get(name, 0) for name in ("Rows Removed by Filter", "Rows Removed by Index Recheck"))
    return float((node["Actual Rows"] + thrown) * node["Actual Loops"])


def test_the_page_has_a_query_under_each_heading() -> None:
    assert len(QUERIES) == PAGE.read_text("utf-8").count("\n## ") == PAGE.read_text("utf-8").count("```sql")


async def waste(conn: Any, sql: str) -> tuple[list[str], float]:
    """Tables of some size that the query reads as a whole, and the most rows one of its scans looks at."""
    explained = await conn.fetchval(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}")
    scans = [node for node in nodes(json.loads(explained)[0]["Plan"]) if "Relation Name" in node]
    whole = [n["Relation Name"] for n in scans if n["Node Type"] == "Seq Scan" and rows_looked_at(n) > 100]
    return whole, max((rows_looked_at(node) for node in scans), default=0)


async def test_no_query_of_the_docs_reads_more_than_it_must(stored: Any) -> None:
    wasted = {heading: await waste(stored, sql) for heading, sql in QUERIES.items()}
    assert {heading: found for heading, found in wasted.items() if found[0] or found[1] > ROWS_MAX} == {}


async def test_a_query_that_asks_by_what_no_index_knows_is_seen_to_read_everything(stored: Any) -> None:
    by_time = "SELECT * FROM ledger_v1.fills WHERE account = 'a1' AND executed_at >= '2026-06-01 00:00+00'"
    assert (await waste(stored, by_time))[1] >= FILLS / ACCOUNTS


async def test_every_query_of_the_docs_gives_what_it_is_asked_for(stored: Any) -> None:
    rows = {heading: len(await stored.fetch(sql)) for heading, sql in QUERIES.items()}
    nothing = [heading for heading, count in rows.items() if count == 0]
    assert nothing == [
        "The fills of an order",
        "Executions that no fill tells",
        "Outages that are not caught up",
        "What an order was before it was amended",
        "What is not in the rows yet",
        "What does not fit",
    ]
    assert (rows["The last fills"], rows["What was held at a time"], rows["Open orders"]) == (100, 20, 60)


async def test_changes_are_followed_to_the_end_though_many_rows_are_of_one_seq(stored: Any) -> None:
    """What REST told in one journal row shares its seq: here more fills than a page of the answer holds."""
    await stored.execute("RESET ROLE")
    await stored.execute("UPDATE ledger.fills SET seq = 7000 WHERE account = 'a1' AND first_seq % 4 = 0")
    sql = QUERIES["What changed since"].replace("LIMIT 1000", "LIMIT 500")
    told: list[str] = []
    key = "(0, '')"
    while rows := await stored.fetch(sql.replace("(42, '42-1')", key)):
        told += [row["fill_id"] for row in rows]
        key = f"({rows[-1]['seq']}, '{rows[-1]['fill_id']}')"
    assert len(told) == len(set(told)) == FILLS / ACCOUNTS


async def test_pages_of_a_month_follow_each_other_without_a_hole_and_without_a_double(stored: Any) -> None:
    first, following = (
        QUERIES[f"The {which} page of a month"].replace("LIMIT 1000", "LIMIT 100") for which in ("first", "next")
    )
    whole = [row["fill_id"] for row in await stored.fetch(first.replace("LIMIT 100", ""))]
    rows = await stored.fetch(first)
    told = [row["fill_id"] for row in rows]
    while rows:
        last = rows[-1]
        key = f"({last['executed_ms']}, {last['first_seq']}, '{last['fill_id']}')"
        rows = await stored.fetch(following.replace("(1776000000000, 4711, '4711-1')", key))
        told += [row["fill_id"] for row in rows]
    assert told == whole
    assert 900 < len(whole) < 1_100
