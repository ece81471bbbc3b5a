"""The queries of docs/queries.md, by their headings: what the docs promise is what is tested and measured."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "queries.md"


def documented(*, account: str, symbol: str, asset: str) -> dict[str, str]:
    """Each query with these in the place of 'main', 'BTCUSDT' and 'BTC', written as SQL."""
    sections = PAGE.read_text("utf-8").split("\n## ")[1:]
    found = {section.partition("\n")[0]: section.split("```sql\n")[1].split("```")[0] for section in sections}
    named = {"'main'": account, "'BTCUSDT'": symbol, "'BTC'": asset}
    return {heading: re.sub("|".join(named), lambda name: named[name[0]], sql) for heading, sql in found.items()}
