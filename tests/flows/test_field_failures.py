"""Inputs that failed in the field, one a line of a file, played through the real program: right answers now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.field.cases import CASES
from tests.field.play import Case, outcome, play_of, samples


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_failed_in_the_field_is_right_now(case: Case, database_url: str, tmp_path: Path) -> None:
    async with play_of(samples()[case.name], database_url, tmp_path) as play:
        assert await outcome(case, play) == case.want


def test_every_line_of_the_file_is_played_and_once() -> None:
    assert sorted(case.name for case in CASES) == sorted(samples())
