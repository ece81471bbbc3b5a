"""The house is in order: what every committed file must be, whoever wrote it."""

from __future__ import annotations

import ast
import gzip
import os
import re
import subprocess
from pathlib import Path

import pytest

from ledger import config

ROOT = Path(config.__file__).parents[1]
MODULES = sorted((ROOT / "ledger").rglob("*.py"))
WORLD = {"time", "httpx", "websockets", "asyncpg", "socket"}
MAY_TOUCH_THE_WORLD = {
    "ledger/sandbox": {"time", "websockets"},
    "ledger/wire": WORLD,
}
NEAR_MONEY = ("facts", "venue", "db", "books", "export", "reconcile", "proof.py")
SPECIAL_SETTINGS = {"SDX_PG_BIN", "SDX_TEST_SERVER_URL", "SDX_TEST_PG_BIN", "SDX_ASSETS_OF_BTCUSDT"}
"""Names of our prefix that are no field of Settings: read by the embedded server, by the tests, or one per symbol."""
IN_TEXT_ONLY = {"SDX_NAME"}
"""How prose speaks of any of them."""


def committed() -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git repository: no list of committed files")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """What a reader of the file would read: of a packed one what is in it, not the noise around."""
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8", "replace")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """The top-level packages a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_first_what_it_is(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""

    assert len(said) >= 20
    assert said.splitlines()[0].endswith((".", ":", "?", ",")) or len(said.splitlines()) > 1


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_edge_touches_network_driver_and_time(path: Path) -> None:
    allowed = next((rooms for room, rooms in MAY_TOUCH_THE_WORLD.items() if name_of(path).startswith(room)), set())

    assert imported(path) & WORLD <= allowed


MAY_PRINT = {"ledger/output.py", "ledger/log.py", "ledger/__main__.py", "ledger/sandbox/server.py"}
"""The one way to a person, the logs, which go by the same rule, where nothing is loaded yet, and the other side."""
MAY_DRAW = {"ledger/screen.py"}
"""Makes tables of its own, and prints none."""
PRINTS = {"print", "echo", "secho", "echo_via_pager", "pprint", "confirm", "prompt"}


def prints(source: str) -> list[str]:
    """Where a module says something to a person by itself: rich, a print, a stream written to."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] == "rich"]
        elif isinstance(node, ast.Call):
            said = ast.unparse(node.func)
            to_stream = re.search(r"\b__?std(?:out|err)__|\bstd(?:out|err)\.(?:buffer\.)?write", said)
            if said.rpartition(".")[2] in PRINTS or to_stream:
                found.append(f"{node.lineno}: {said}")
    return found


@pytest.mark.parametrize("path", [one for one in MODULES if name_of(one) not in MAY_PRINT], ids=name_of)
def test_whatever_is_said_to_a_person_goes_through_output(path: Path) -> None:
    found = prints(path.read_text("utf-8"))

    assert [one for one in found if not (name_of(path) in MAY_DRAW and "imports rich" in one)] == []


@pytest.mark.parametrize(
    "planted",
    [
        "print(row['symbol'])",
        "typer.echo(text)",
        "import rich.table",
        "from rich.console import Console",
        "sys.stdout.write(text)",
        "sys.stderr.buffer.write(text)",
        "console.print(text)",
    ],
)
def test_another_way_to_a_person_is_found(planted: str) -> None:
    assert prints(planted) != []


@pytest.mark.parametrize(
    "path", [one for one in MODULES if name_of(one).split("/")[1].startswith(NEAR_MONEY)], ids=name_of
)
def test_no_float_comes_near_money(path: Path) -> None:
    calls = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float"
    ]

    assert calls == []


def test_the_sql_knows_no_float_either() -> None:
    found = [
        (name_of(path), word)
        for path in committed()
        if path.suffix == ".sql"
        for word in re.findall(r"\b(?:real|double precision|float\d?|money)\b", _code(text_of(path)), re.IGNORECASE)
    ]

    assert found == []


def _code(sql: str) -> str:
    """SQL without comments and without literals."""
    return re.sub(r"--[^\n]*|'(?:[^']|'')*'", "", sql)


# In pieces, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of the machine it was written on": r"(?<![\w.-])/" + r"wo" + r"rk/(?:main|shared|\.)",
    "a home folder": r"/(?:ho" + r"me|Us" + r"ers)/[a-z]\w*/",
    "the host of a package index": r"py" + r"pi\.(?:org|python)|files\.python" + "hosted",
    "a private mirror": r"arti" + r"factory|dev" + r"pi\b|ne" + r"xus/repository",
    "how it was written": r"\b(?:cl" + r"aude|an" + r"thropic|chat" + r"gpt|l" + r"lm)\b",
    "a private key": r"BEGIN [A-Z ]*PRIV" + r"ATE KEY",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_committed_file_holds(what: str) -> None:
    wrong = re.compile(FORBIDDEN[what], re.IGNORECASE)

    found = [f"{name_of(path)}: {hit[0]}" for path in committed() for hit in wrong.finditer(text_of(path))]

    assert found == []


def test_the_words_looked_for_are_found_where_they_are() -> None:
    written = {
        "a path of the machine it was written on": "see /wo" + "rk/main/x",
        "a home folder": "/ho" + "me/me/x",
        "the host of a package index": "https://py" + "pi.org/simple",
        "a private mirror": "https://arti" + "factory.example",
        "how it was written": "by Cl" + "aude",
        "a private key": "-----BEGIN RSA PRIV" + "ATE KEY-----",
    }

    assert {what for what, text in written.items() if re.search(FORBIDDEN[what], text, re.IGNORECASE)} == set(FORBIDDEN)


def test_text_files_are_utf8_and_end_in_one_newline() -> None:
    suffixes = {".py", ".md", ".sql", ".toml", ".ini", ".service", ".txt", ".sh", ".jsonl", ".lock"}
    wrong = []
    for path in committed():
        content = path.read_bytes()
        if path.suffix in suffixes and content:
            content.decode("utf-8")
            if not content.endswith(b"\n") or content.endswith(b"\n\n") or b"\r" in content:
                wrong.append(name_of(path))

    assert wrong == []


def test_what_begins_as_a_script_can_be_executed_and_nothing_else() -> None:
    scripts = {name_of(path) for path in committed() if path.read_bytes().startswith(b"#!")}
    executable = {name_of(path) for path in committed() if os.access(path, os.X_OK) and path.stat().st_mode & 0o111}

    assert {"scripts/bootstrap", "scripts/check", "scripts/demo", "scripts/test", ".ci/run"} <= scripts
    assert scripts == executable


# Settings: one list, told in several places.


def settings() -> set[str]:
    """Every variable the program reads as a setting, secrets as files included."""
    names = {f"SDX_{key.upper()}" for key in config._keys()}
    return names | {f"SDX_{key.upper()}_FILE" for key in config.SECRETS}


def named_in(path: Path) -> set[str]:
    """The variables a file names; ``SDX_X…`` and ``SDX_X_<Y>`` are a manner of speaking of several."""
    return set(re.findall(r"\bSDX_[A-Z]+(?:_[A-Z]+)*\b(?![<…])", text_of(path)))


def test_the_example_file_lists_every_setting_and_nothing_else() -> None:
    listed = set(re.findall(r"^#?(SDX_\w+)=", text_of(ROOT / ".env.example"), re.MULTILINE))
    fileless = {f"SDX_{key.upper()}" for key in config._keys()}

    assert fileless <= listed
    assert listed <= settings() | SPECIAL_SETTINGS


def told_files() -> list[Path]:
    told = [path for path in committed() if path.suffix in {".md", ".service", ".sql"} or "deploy" in path.parts]
    scripts = [path for path in committed() if path.parent.name in {"scripts", ".ci"}]
    return sorted({*told, *scripts, *MODULES})


def test_every_setting_named_anywhere_exists() -> None:
    known = settings() | SPECIAL_SETTINGS | IN_TEXT_ONLY
    unknown = {name_of(path): names for path in told_files() if (names := named_in(path) - known)}

    assert unknown == {}


def test_the_readme_tells_the_settings_one_needs_first() -> None:
    named = named_in(ROOT / "README.md")

    assert {"SDX_API_KEY", "SDX_API_SECRET", "SDX_DATABASE_URL", "SDX_DATA_DIR", "SDX_ACCOUNT"} <= named
