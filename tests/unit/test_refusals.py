"""What an error of the database is about, by what it names."""

from __future__ import annotations

import pytest

from ledger.db import refusals, tables


def test_the_rules_of_the_content_tables_are_all_named() -> None:
    """A check or key that is added to one of these tables belongs into the list: it refuses content."""
    found = set()
    for table in tables.metadata.sorted_tables:
        if table.name in refusals.CONTENT_TABLES:
            found |= {str(rule.name) for rule in table.constraints}
            found |= {str(index.name) for index in table.indexes if index.unique}
    assert found == refusals.CONTENT_CONSTRAINTS


@pytest.mark.parametrize(
    ("sqlstate", "table", "column", "constraint", "is_content"),
    [
        ("22021", None, None, None, True),
        ("23514", "fills", None, "fills_amounts_are_real", True),
        ("23514", "fills", None, "added_by_somebody", False),
        ("23514", "inbox", None, "inbox_numbers_are_positive", False),
        ("23502", "fills", "price", None, True),
        ("23502", "leases", "host", None, False),
        ("23505", None, None, None, False),
        ("SDX01", None, None, None, False),
        (None, None, None, None, False),
    ],
)
def test_content(sqlstate: str | None, table: str, column: str, constraint: str, is_content: bool) -> None:
    assert refusals.is_content(sqlstate, table and "ledger", table, column, constraint) is is_content
    assert not refusals.is_content(sqlstate, "other", table, column, constraint) or table is None


@pytest.mark.parametrize(
    ("sqlstate", "word"),
    [("42501", "rights"), ("42883", "db upgrade"), ("53100", "disk"), ("XX001", "server's log"), (None, "log")],
)
def test_advice_names_what_to_do_and_that_nothing_is_lost(sqlstate: str | None, word: str) -> None:
    assert word in refusals.advice(sqlstate)
    assert "nothing is dropped" in refusals.advice(sqlstate)
