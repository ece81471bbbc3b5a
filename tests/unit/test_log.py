"""Logs: no secret in any spelling, one line per event, and never in the program's way."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from ledger import log
from tests.patience import stretched

SECRET = "k3y/with+odd chars=ü&äöß-0815"
ROOT = Path(log.__file__).parents[1]


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that ``setup`` changes is put back."""
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    before, level = list(root.handlers), root.level
    monkeypatch.setattr(log, "_redactor", log._Redactor())
    yield
    log.flush()
    root.handlers[:], root.level = before, level
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    log.flush()
    captured = capsys.readouterr()
    assert captured.out == "", "standard output is for data"
    return captured.err


def run(program: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", program], cwd=ROOT, text=True, stdout=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        re.sub("%..", lambda escape: escape[0].lower(), quote(SECRET, safe="")),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        json.dumps(SECRET)[1:-1],
        repr(SECRET.encode())[2:-1] if SECRET.isascii() else ascii(SECRET)[1:-1],
    ],
)
def test_a_secret_is_masked_in_every_spelling(spelling: str) -> None:
    log.hide(SECRET)

    assert log.redact(f"before {spelling} after") == "before *** after"


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_inside_base64_is_masked_wherever_it_begins(before: str, encode: object) -> None:
    log.hide(SECRET)
    text = encode(f"{before}{SECRET}:and more".encode()).decode()  # type: ignore[operator]

    cleaned = log.redact(text)

    left = cleaned.replace("***", "")
    assert "***" in cleaned
    assert len(left) <= len(text) - len(SECRET.encode()) * 4 // 3 + 2


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("GET /api/v3/order?symbol=X&signature=abcdef0123&a=1", "GET /api/v3/order?symbol=X&signature=***&a=1"),
        ("PUT /userDataStream?listenKey=pqia91ma", "PUT /userDataStream?listenKey=***"),
        ('{"listenKey": "pqia91ma"}', '{"listenKey": "***"}'),
        (r'{"raw": "{\"listenKey\":\"pqia91ma\"}"}', r'{"raw": "{\"listenKey\":\"***\"}"}'),
        ("wss://stream.spacedex.com/ws/pqia91ma closed", "wss://stream.spacedex.com/ws/*** closed"),
        ("/stream?streams=pqia91ma&x=1", "/stream?streams=***&x=1"),
        ("headers {'X-SDX-APIKEY': 'vmPUZE6mv9SD'}", "headers {'X-SDX-APIKEY': '***'}"),
        ("signature%3Dabcdef0123", "signature%3D***"),
        ("the event listenKeyExpired came", "the event listenKeyExpired came"),
        ('File "/app/ledger/stream/consumer.py", line 3', 'File "/app/ledger/stream/consumer.py", line 3'),
    ],
)
def test_signatures_and_listen_keys_are_masked_though_never_registered(text: str, cleaned: str) -> None:
    assert log.redact(text) == cleaned


def test_only_the_newest_run_time_secrets_are_kept() -> None:
    log.hide("the-first-key")
    for number in range(64):
        log.hide(f"key-number-{number:02}")

    assert log.redact("the-first-key key-number-00 key-number-63") == "the-first-key *** ***"


def test_json_lines_carry_level_logger_time_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json", [SECRET])

    structlog.get_logger("ledger.x").info("gap closed", fills_found=3, raw=f"<{SECRET}>", listenKey="pqia")

    line = json.loads(shown(capsys))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "gap closed",
        "level": "info",
        "logger": "ledger.x",
        "fills_found": 3,
        "raw": "<***>",
        "listenKey": "***",
    }


@pytest.mark.parametrize("style", ["json", "console"])
def test_tracebacks_tell_the_cause_but_no_secret_and_no_locals(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("debug", style, [SECRET])
    local_only = "never-registered-local"
    try:
        try:
            raise ValueError(f"url https://h/?k={quote(SECRET)} {len(local_only)}")
        except ValueError as cause:
            raise RuntimeError("outer") from cause
    except RuntimeError:
        structlog.get_logger("ledger").exception("failed")
        logging.getLogger("asyncpg").exception("failed with %s", SECRET)

    text = shown(capsys)
    assert text.count("RuntimeError: outer") == 2
    assert text.count("https://h/?k=***") == 2
    assert SECRET not in text
    assert quote(SECRET) not in text
    assert local_only not in text


def test_libraries_speak_through_the_same_lines_and_softly(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")
    logging.getLogger("httpx").info("HTTP Request: GET https://h")
    logging.getLogger("websockets.client").info("< TEXT")
    logging.getLogger("anyio").info("Running %s", "0001")
    logging.getLogger("asyncpg").warning("slow")

    lines = [json.loads(line) for line in shown(capsys).splitlines()]
    assert [(line["logger"], line["event"]) for line in lines] == [
        ("anyio", "Running 0001"),
        ("asyncpg", "slow"),
    ]

    log.setup("debug", "json")
    logging.getLogger("websockets.client").debug("> GET /ws/%s HTTP/1.1", "pqia91ma")
    assert json.loads(shown(capsys))["event"] == "> GET /ws/*** HTTP/1.1"


def test_a_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json", [SECRET])
    log.setup("warning", "console")
    structlog.get_logger("ledger").info("quiet")
    structlog.get_logger("ledger").warning("once", value=SECRET)

    text = shown(capsys)
    assert text.count("once") == 1
    assert "quiet" not in text
    assert SECRET not in text


def test_the_venue_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "console")
    structlog.get_logger("ledger").info("order\x1b[2J", client_order_id="\x1b]0;gotcha\x07\x9b")

    text = shown(capsys)
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert r"\x1b[2J" in text


def test_a_line_that_cannot_be_formatted_costs_only_itself() -> None:
    program = "import logging; from ledger import log; log.setup(); logging.warning('%d', 'not a number'); print(1)"

    assert run(program, stderr=subprocess.PIPE).communicate(timeout=stretched(30)) == (
        "1\n",
        "a log line of root could not be written: TypeError\n",
    )


def test_an_uncaught_error_is_a_log_line_without_the_secret() -> None:
    program = f"from ledger import log; log.setup('info', 'json', [{SECRET!r}]); raise RuntimeError({SECRET!r})"
    _, text = run(program, stderr=subprocess.PIPE).communicate(timeout=stretched(30))

    assert json.loads(text)["event"] == "the program failed"
    assert "RuntimeError: ***" in json.loads(text)["exception"]


SPEAK = """
import structlog
from ledger import log
log.setup("info", "json")
for number in range(20_000):
    structlog.get_logger("ledger").info("a line that fills the pipe", number=number)
print("done", flush=True)
"""


def test_a_blocked_stderr_does_not_block_the_program() -> None:
    with run(SPEAK, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "done\n", "nobody reads its stderr meanwhile"
        assert process.wait(30) == 0


def test_a_closed_stderr_does_not_end_the_program() -> None:
    with run(SPEAK, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
        assert process.wait(30) == 0


def test_a_program_without_stderr_works() -> None:
    with run("import os; os.close(2)\n" + SPEAK) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "done\n"
        assert process.wait(30) == 0


def test_an_instant_stands_beside_its_milliseconds_as_people_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("info", "json")
    structlog.get_logger("x").info("gap opened", from_ms=1_795_974_529_333, until_ms=None, wait_ms=250)
    log.flush()

    said = json.loads(capsys.readouterr().err)
    assert (said["from_ms"], said["from"]) == (1_795_974_529_333, "2026-11-29T17:48:49Z")
    assert "until" not in said
    assert "wait" not in said
