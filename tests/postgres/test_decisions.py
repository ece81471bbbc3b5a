"""A person's decision: one journal row that tells everything, the transfer it means, and the settled discrepancy."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from ledger.db import decisions, explain
from ledger.db.decisions import Decision, Meaning
from ledger.facts.types import Doubt, Exact, Resolution, Transfer
from tests.histories import ACCOUNT, T_MS, Session, head_seq, held, known, rest, rows
from tests.postgres.test_explain import FAR_MS, begun

DEPOSIT = Decision(7, decisions.UNEXPLAINED, "BTC", "deposit", Exact("2.50"), T_MS, 'from my "other" wallet ☂', "ada")


async def decide(conn: Any, number: int, meaning: Meaning, account: str = ACCOUNT) -> Decision:
    return await explain.decide(conn, account, number, meaning, note="seen on chain", user="ada", now_ms=T_MS)


async def doubted(conn: Any, kind: str = decisions.UNEXPLAINED, residual: str | None = "2.5") -> None:
    amount = None if residual is None else Exact(residual)
    await rest().tell(conn, Doubt(kind, "BTC", "1", "3.5", amount, T_MS if amount else None))


def test_a_decision_is_read_back_as_it_was_made() -> None:
    assert decisions.decode(decisions.encode(DEPOSIT)) == DEPOSIT
    assert decisions.facts(DEPOSIT) == (
        Transfer("BTC", Exact("2.50"), "deposit", T_MS),
        Resolution(7, 'deposit, says ada: from my "other" wallet ☂'),
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        decisions.encode(DEPOSIT).replace(b'"deposit"', b'"gift"'),
        decisions.encode(DEPOSIT).replace(b"2.50", b"NaN"),
    ],
)
def test_other_bytes_are_no_decision(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting"):
        decisions.decode(raw)


async def test_a_deposit_is_booked_and_the_evidence_stays(conn: Any) -> None:
    await known(conn)
    await doubted(conn)
    await decide(conn, 1, "deposit")
    assert await rows(conn, "SELECT asset, amount, kind, at_ms, source, seq FROM ledger_v1.transfers") == [
        ("BTC", Decimal("2.5"), "deposit", T_MS, "operator", 2)
    ]
    settled = "SELECT resolution, residual, evidence_seq, seq FROM ledger_v1.discrepancies"
    assert await rows(conn, settled) == [("deposit, says ada: seen on chain", Decimal("2.5"), 1, 2)]
    ((raw, source, kind),) = await rows(conn, "SELECT raw, source, kind FROM ledger_v1.journal WHERE seq = 2")
    assert (source, kind) == ("operator", "resolve")
    assert decisions.decode(raw).note == "seen on chain"


async def test_after_the_decision_the_balance_is_explained(conn: Any) -> None:
    judge = await begun(conn, held("BTC", "1"))
    await Session().tell(conn, held("BTC", "3.5", at_ms=7))
    assert await judge.settle() == [("BTC", Decimal("2.5"))]
    await decide(conn, 1, "deposit")
    assert await judge.look(FAR_MS + 1) == []
    assert await rows(conn, "SELECT residual, through_ms - $1 FROM ledger.explained", T_MS) == [(0, FAR_MS + 1)]


@pytest.mark.parametrize(
    ("residual", "meaning", "said"),
    [
        ("-2.5", "deposit", "fell by 2.5, which is no deposit; choose --as fee or other or withdrawal"),
        ("-2.5", "airdrop", "which is no airdrop"),
        ("2.5", "withdrawal", "rose by 2.5, which is no withdrawal; choose --as airdrop or deposit or other"),
        ("2.5", "fee", "which is no fee"),
    ],
)
async def test_a_sign_that_contradicts_the_kind_is_refused(
    conn: Any, residual: str, meaning: Meaning, said: str
) -> None:
    await known(conn)
    await doubted(conn, residual=residual)
    before = await head_seq(conn)
    with pytest.raises(ValueError, match=said):
        await decide(conn, 1, meaning)
    assert await head_seq(conn) == before
    assert await rows(conn, "SELECT * FROM ledger_v1.transfers") == []


@pytest.mark.parametrize("meaning", ["withdrawal", "fee", "other"])
async def test_a_debit_is_booked_with_its_sign(conn: Any, meaning: Meaning) -> None:
    await known(conn)
    await doubted(conn, residual="-2.5")
    await decide(conn, 1, meaning)
    assert await rows(conn, "SELECT amount, kind FROM ledger_v1.transfers") == [(Decimal("-2.5"), meaning)]


async def test_what_is_settled_is_not_settled_again(conn: Any) -> None:
    await known(conn)
    await doubted(conn)
    await decide(conn, 1, "deposit")
    with pytest.raises(ValueError, match=r"discrepancy 1 was settled on .* UTC: deposit, says ada"):
        await decide(conn, 1, "other")
    assert await rows(conn, "SELECT count(*) FROM ledger_v1.transfers") == [(1,)]


async def test_what_does_not_exist_is_said(conn: Any) -> None:
    await known(conn)
    with pytest.raises(ValueError, match="account 'main' has no discrepancy 3"):
        await decide(conn, 3, "deposit")


async def test_what_is_missing_may_be_accepted_and_what_is_money_may_not(conn: Any) -> None:
    await known(conn)
    await doubted(conn, "rest_row", None)
    await decide(conn, 1, "accepted")
    assert await rows(conn, "SELECT resolution FROM ledger_v1.discrepancies") == [
        ("accepted, says ada: seen on chain",)
    ]
    await doubted(conn, "unexplained_balance", "5")
    with pytest.raises(ValueError, match="about money, which must be booked"):
        await decide(conn, 2, "accepted")


async def test_a_discrepancy_that_is_no_movement_is_settled_without_a_transfer(conn: Any) -> None:
    await known(conn)
    await doubted(conn, "order_conflict", None)
    with pytest.raises(ValueError, match="only --as other or --as accepted settles it"):
        await decide(conn, 1, "deposit")
    await decide(conn, 1, "other")
    assert await rows(conn, "SELECT count(*) FROM ledger_v1.transfers") == [(0,)]
    assert await rows(conn, "SELECT resolution FROM ledger_v1.discrepancies") == [("other, says ada: seen on chain",)]
