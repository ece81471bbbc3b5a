"""The samples as values; README.md tells where each comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_LINES = (Path(__file__).parent / "samples.jsonl").read_text(encoding="utf-8").splitlines()

SAMPLES: list[dict[str, Any]] = [json.loads(line) for line in _LINES]
STREAM = [sample for sample in SAMPLES if sample["transport"] == "stream"]
REST = [sample for sample in SAMPLES if sample["transport"] == "rest"]
PAYLOADS: dict[str, Any] = {sample["id"]: sample["payload"] for sample in SAMPLES}

TEN_FIELDS: dict[str, Any] = PAYLOADS["s000"]
"""The venue's own executionReport."""


def ten_fields(**changed: object) -> dict[str, Any]:
    """The venue's own executionReport with some fields changed."""
    return TEN_FIELDS | changed


def name(sample: dict[str, Any]) -> str:
    """A sample's name in the list of tests."""
    return f"{sample['id']}-{sample['kind']}"
