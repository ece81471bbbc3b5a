"""No secret anywhere: not in a log line at debug, not in an error, not in any column of the database."""

from __future__ import annotations

import base64
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from pydantic import SecretStr

from ledger import log
from ledger.errors import ConfigError, KeyRefused, LedgerError
from ledger.sandbox.server import Sandbox
from tests.flows.mirrors import gaps_closed, holds, mirroring, settings_for, venue

KEY = "canary/key+J7r2=Qx9"
SECRET = "canary/secret+Z5w8=Lk3"
WRONG_SECRET = "canary/wrong+M4t6=Vb1"
SIGNATURE = re.compile(rb"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that ``log.setup`` changes is put back."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    before, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in log._CHATTY}
    monkeypatch.setattr(log, "_redactor", log._Redactor())
    yield
    log.flush()
    root.handlers[:], root.level = before, level
    for name, number in levels.items():
        logging.getLogger(name).setLevel(number)
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()


def spellings(secret: str) -> set[bytes]:
    """The forms in which a secret might leave: as it is, percent-encoded, in hex, in base64 at any offset."""
    raw = secret.encode()
    forms = {
        raw,
        quote(secret, safe="").encode(),
        quote(secret).encode(),
        raw.hex().encode(),
        raw.hex().upper().encode(),
    }
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw)
        inner = whole[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
        forms |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def found_in(text: bytes, secrets: set[str]) -> list[bytes]:
    """Every spelling of a secret and every signature in the text."""
    known = [form for secret in sorted(secrets) for form in spellings(secret) if form in text]
    return [*known, *SIGNATURE.findall(text)]


async def everything_stored(conn: Any) -> dict[str, bytes]:
    """Every text, JSON and bytea column of every table of ours, all rows joined."""
    columns = await conn.fetch(
        "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c"
        " JOIN information_schema.tables t USING (table_schema, table_name)"
        " WHERE c.table_schema = 'ledger' AND t.table_type = 'BASE TABLE'"
        " AND c.data_type IN ('text', 'character varying', 'bytea', 'jsonb', 'json')"
    )
    stored = {}
    for table, column, kind in columns:
        as_bytes = f'"{column}"' if kind == "bytea" else f"convert_to(\"{column}\"::text, 'UTF8')"
        rows = await conn.fetch(f'SELECT {as_bytes} AS told FROM ledger."{table}" WHERE "{column}" IS NOT NULL')
        stored[f"{table}.{column}"] = b"\n".join(row["told"] for row in rows)
    return stored


def whole_text(error: BaseException) -> bytes:
    """The error as a traceback would print it, with all that stands behind it."""
    return "".join([*traceback.format_exception(error), repr(error), str(error.args)]).encode()


async def refusals(sandbox: Sandbox, database_url: str) -> list[LedgerError]:
    """What wrong keys are told."""
    wrong = settings_for(sandbox, api_secret=SecretStr(WRONG_SECRET), account="other")
    log.setup("debug", "json", wrong.secrets())
    errors: list[LedgerError] = []
    with pytest.raises(KeyRefused) as refused:
        async with mirroring(wrong, database_url):
            pass
    errors.append(refused.value)
    stranger = settings_for(sandbox, api_key=SecretStr(f"{KEY}x"))
    log.setup("debug", "json", stranger.secrets())
    with pytest.raises((ConfigError, KeyRefused)) as unknown:
        async with mirroring(stranger, database_url):
            pass
    errors.append(unknown.value)
    return errors


async def test_no_secret_leaves_the_program(
    database_url: str, conn: Any, capfd: pytest.CaptureFixture[str], own_logging: None
) -> None:
    listen_keys: set[str] = set()

    async with venue("full", api_key=KEY, api_secret=SECRET) as sandbox:
        await sandbox.step(40)
        settings = settings_for(sandbox, keepalive_s=1)
        log.setup("debug", "json", settings.secrets())
        async with mirroring(settings, database_url) as mirror:
            await gaps_closed(conn, 1)
            listen_keys.add(str(sandbox.rest.keys.key))
            await sandbox.step(20)
            await sandbox.fault({"do": "garbage"})
            for spoilt in (
                {"do": "redirect", "path": "/account"},
                {"do": "rest_html", "path": "/openOrders"},
                {"do": "rest_status", "status": 400, "path": "/userDataStream"},
                {"do": "rest_truncate", "path": "/allOrders"},
                {"do": "clock_offset", "ms": 30_000},
                {"do": "drop"},
            ):
                await sandbox.fault(spoilt)
            await sandbox.step(20)
            await gaps_closed(conn, 2)
            await sandbox.fault({"do": "expire_key"})
            await gaps_closed(conn, 3)
            listen_keys.add(str(sandbox.rest.keys.key))
            await sandbox.step(10)
            await holds(conn, sandbox, gaps=3)
            told = [mirror.lease, mirror.consumer, mirror.reconciler, settings]
            shown = "\n".join(repr(one) for one in told).encode()
        errors = await refusals(sandbox, database_url)

    log.flush()
    printed = "".join(capfd.readouterr()).encode()
    for event in (
        b"stream connected",
        b"key refused",
        b"the venue's Date contradicts our clock",
        b"listen key lost",
        b'"level": "debug"',
    ):
        assert event in printed, f"{event!r} is not in the log: the test shows too little"

    assert len(listen_keys) == 2
    secrets = {KEY, SECRET, WRONG_SECRET, *listen_keys}
    assert found_in(printed, secrets) == []
    assert found_in(shown, secrets) == []
    for error in errors:
        assert found_in(whole_text(error), secrets) == []
    stored = await everything_stored(conn)
    assert {"inbox.raw", "venue_state.last_error", "inbox.question", "accounts.key_fingerprint"} <= stored.keys()
    dead = re.compile(rb'\{"e":"listenKeyExpired"[^\n]*')
    assert len(dead.findall(stored["inbox.raw"])) == 1
    stored["inbox.raw"] = dead.sub(b"", stored["inbox.raw"])
    assert {column: hits for column, text in stored.items() if (hits := found_in(text, secrets))} == {}


def test_the_search_finds_what_it_is_meant_to_find() -> None:
    for form in (
        SECRET,
        quote(SECRET, safe=""),
        SECRET.encode().hex(),
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        f"signature={'0a' * 32}&",
    ):
        assert found_in(f"GET /api?x={form}".encode(), {SECRET}), form
