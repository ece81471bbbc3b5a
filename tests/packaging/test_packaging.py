"""The wheel and the source distribution, built and installed into an environment that has nothing of the repository."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

import ledger
from ledger import __main__ as entry
from ledger import config
from ledger.db.code import NEWEST
from tests.patience import stretched

ROOT = Path(config.__file__).parents[1]
BUILD_S = 60.0


def run(*words: object, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder of its own, with no setting of whoever runs the tests."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(cwd), "TMPDIR": "/tmp", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=stretched(BUILD_S),
    )


def built(target: str, source: Path, folder: Path) -> Path:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As an installer makes it: from the source distribution alone."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return built("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin`` of an environment with the wheel in it, installed by the words of the Containerfile. What it needs is
    lent by the environment of the tests, whose own link to the repository is not followed from there."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder).returncode == 0
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"))
    pip = outer_pip()
    done = run(*pip, "--python", python, *container_install(wheel), cwd=folder)
    assert done.returncode == 0, done.stderr
    return python.parent


def outer_pip() -> list[str]:
    """A pip that can install into another environment; the one of the tests may have none."""
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, str(base), "/usr/bin/python3"):
        pip = [python, "-m", "pip"]
        if (
            Path(python).exists()
            and not subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode
        ):
            return pip
    pytest.skip("no pip is installed that could install the wheel")


def container_runs() -> list[list[str]]:
    """The words of each RUN of the Containerfile."""
    text = (ROOT / "deploy" / "Containerfile").read_text().replace("\\\n", " ")
    return [shlex.split(line.removeprefix("RUN ")) for line in text.splitlines() if line.startswith("RUN ")]


def container_install(wheel: Path) -> list[str]:
    (words,) = [words for words in container_runs() if "--no-index" in words]
    assert words[0] == "pip"
    return [str(wheel) if word.endswith(".whl") else word for word in words[1:]]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_the_wheel_has_one_package_at_its_top_with_all_that_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())

    assert {name.split("/")[0] for name in names} == {"ledger", f"sdx_ledger-{ledger.__version__}.dist-info"}
    assert {"ledger/py.typed", "ledger/deploy/sdx-ledger.service", "ledger/deploy/env.example"} <= names
    rooms = (("ledger", "*.sql", ""), ("migrations", "*.py", "ledger/"), ("migrations", "*.sql", "ledger/"))
    for room, ending, inside in rooms:
        wanted = {f"{inside}{path.relative_to(ROOT).as_posix()}" for path in (ROOT / room).rglob(ending)}
        assert wanted
        assert wanted <= names


def test_what_a_package_index_shows_is_true_and_leads_nowhere_dead(wheel: Path) -> None:
    told = metadata(wheel)
    text = str(told.get_payload())

    assert told["Version"] == ledger.__version__
    assert "Operating System :: POSIX" in (told.get_all("Classifier") or [])
    assert told["Requires-Python"] == ">=3.11"
    assert text.startswith("# sdx-ledger\n")
    assert "```mermaid" not in text
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []


def test_the_source_distribution_holds_what_an_operator_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"README.md", "LICENSE", "CHANGELOG.md", ".env.example", "requirements.lock"} <= names
    assert {"deploy/sdx-ledger.service", "deploy/Containerfile", "deploy/compose.yaml", "docs/queries.md"} <= names


async def test_it_runs_in_a_folder_that_has_packages_of_the_same_names(
    installed: Path, tmp_path: Path, conn: Any, database_url: str
) -> None:
    await conn.execute("DROP SCHEMA ledger, ledger_v1 CASCADE")
    for name in ("ledger", "migrations"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('another project')")
    where = run(installed / "python", "-P", "-c", "import ledger; print(ledger.__file__)", cwd=tmp_path).stdout
    assert Path(where).is_relative_to(installed.parent)
    ours = f"sdx-ledger {ledger.__version__}\n"

    assert run(installed / "sdx-ledger", "--version", cwd=tmp_path).stdout == ours
    assert run(installed / "python", "-P", "-m", "ledger", "--version", cwd=tmp_path).stdout == ours
    upgraded = run(installed / "sdx-ledger", "db", "upgrade", cwd=tmp_path, SDX_DATABASE_URL=database_url)
    assert (upgraded.stdout, upgraded.stderr) == (f"schema is at {NEWEST}\n", "")
    checked = run(installed / "sdx-ledger", "status", "--check", cwd=tmp_path, SDX_DATABASE_URL=database_url)
    assert (checked.returncode, checked.stdout) == (1, "no account is mirrored here yet\n")


def test_it_prints_the_unit_and_the_settings_of_the_repository(installed: Path, tmp_path: Path) -> None:
    unit = run(installed / "sdx-ledger", "deploy", "unit", cwd=tmp_path)
    account = run(installed / "sdx-ledger", "deploy", "sysusers", cwd=tmp_path)
    env = run(installed / "sdx-ledger", "deploy", "env", cwd=tmp_path)

    assert (unit.returncode, unit.stdout) == (0, (ROOT / "deploy" / "sdx-ledger.service").read_text())
    assert (account.returncode, account.stdout) == (0, (ROOT / "deploy" / "sdx-ledger.sysusers").read_text())
    assert (env.returncode, env.stdout) == (0, (ROOT / ".env.example").read_text())


def test_the_container_installs_by_the_words_of_the_set_up_and_runs_commands_that_exist() -> None:
    (locked,) = [words for words in container_runs() if "--require-hashes" in words]
    bootstrap = (ROOT / "scripts" / "bootstrap").read_text()
    text = (ROOT / "deploy" / "Containerfile").read_text()

    assert '--require-hashes --no-deps -r "$lock"' in bootstrap
    assert " ".join(locked[-4:]).startswith("--require-hashes --no-deps -r ")
    assert 'CMD ["sdx-ledger", "status", "--check"]' in text
    assert 'ENTRYPOINT ["sdx-ledger"]\nCMD ["run"]\n' in text


def test_on_windows_it_says_where_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "name", "nt")

    with pytest.raises(SystemExit) as left:
        entry.main()

    monkeypatch.undo()
    assert left.value.code == 3
    assert capsys.readouterr().err == "sdx-ledger runs on Linux and macOS; on Windows run it inside WSL\n"
