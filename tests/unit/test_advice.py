"""Every kind of discrepancy has a sentence and a next step."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from ledger import advice, config
from ledger.cli import cli
from ledger.db import explain
from ledger.output import spoken_times
from ledger.reconcile import course, holes
from ledger.venue import stream_events

LEDGER = Path(config.__file__).parent


def kinds() -> set[str]:
    """Every kind the program opens: those of the SQL, and those of the Python."""
    sql = "\n".join(path.read_text() for path in LEDGER.rglob("*.sql"))
    python = "\n".join(path.read_text() for path in LEDGER.rglob("*.py"))
    written = re.findall(r"ledger\.doubt\(\s*p_account, '(\w+)'", sql) + re.findall(r'\bDoubt\(\s*"(\w+)"', python)
    named = set(re.findall(r"\bDoubt\(\s*([A-Z_]+)\b", python))
    values = {name: getattr(room, name) for room in (explain, course, holes, stream_events) for name in dir(room)}
    return set(written) | {values[name] for name in named}


def test_every_kind_that_is_opened_has_a_sentence_and_a_next_step_and_no_other() -> None:
    assert {"order_shrank", "unexplained_balance", "quarantined", "history_unreachable"} <= kinds()
    assert set(advice.KINDS) == kinds()


def test_sentences_are_sentences_and_commands_are_commands_of_this_program() -> None:
    for kind in advice.KINDS:
        row = {"kind": kind, "discrepancy_id": 3, "account": "main", "symbol": "BTCUSDT"}
        meaning, next_step = advice.about(row)
        assert meaning.endswith(".")
        assert "{" not in next_step
        for words in re.findall(r"sdx-ledger ([a-z]+(?: (?:list|retry|resolve))?)", next_step):
            assert CliRunner().invoke(cli, [*words.split(), "--help"]).exit_code == 0


def test_an_unexplained_balance_is_settled_by_saying_what_it_was() -> None:
    row = {"kind": "unexplained_balance", "discrepancy_id": 3, "account": "main", "symbol": None}

    assert advice.about(row) == (
        "The balance moved by this much and no fill, fee or transfer explains it.",
        "say what it was: sdx-ledger discrepancy resolve 3 --account main --as "
        "deposit|withdrawal|airdrop|fee|other --note '…'",
    )


def test_instants_are_spoken_and_numbers_stay() -> None:
    assert spoken_times("0.00000000 at 1795974795021") == "0.00000000 at 2026-11-29 17:53:15.021 UTC"
    assert spoken_times("1795974795021.5 of order 1795974795021") == "1795974795021.5 of order 1795974795021"
