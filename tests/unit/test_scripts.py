"""The set-up of the project itself: locks, scripts and the example file say what the program says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ledger import config

ROOT = Path(config.__file__).parents[1]
LOCKS = ["requirements.lock", "requirements-dev.lock"]
NAMES = ("bootstrap", "check", "demo", "install-service", "lock", "test")
SCRIPTS = [*(f"scripts/{name}" for name in NAMES), ".ci/run"]


def locked(name: str) -> dict[str, str]:
    """Package to version."""
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_hashes_every_package_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"^(?=[^ \n])", text, flags=re.MULTILINE)[1:]

    assert len(entries) == len(locked(name)) > 30
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|^-| @ |\.whl|\.tar", text, re.MULTILINE)


def test_both_locks_agree_on_what_runs() -> None:
    run, test = (locked(name) for name in LOCKS)

    assert run.items() <= test.items()


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run, test = (locked(name) for name in LOCKS)

    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[A-Za-z0-9._-]+", one)[0].lower() for one in requirements}  # type: ignore[index]

    assert names(project["project"]["dependencies"] + project["build-system"]["requires"]) <= run.keys()
    assert names(project["dependency-groups"]["dev"]) <= test.keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_can_be_executed_and_stops_at_errors(name: str) -> None:
    path = ROOT / name
    text = path.read_text()

    assert path.stat().st_mode & 0o111
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def test_without_pip_the_set_up_says_so_in_one_sentence(tmp_path: Path) -> None:
    for name in ("pip.py", "ensurepip.py"):
        (tmp_path / name).write_text("raise ImportError")
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/bootstrap", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())

    shown = subprocess.run(
        ["bash", tmp_path / "scripts" / "bootstrap"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert shown.returncode == 3
    assert shown.stderr.splitlines()[-1].endswith(
        "has no pip; install it (Debian: apt-get install python3-pip) and try again"
    )


def test_the_example_file_names_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.removeprefix("#").split("=", 1) for line in lines if line.startswith("#SDX_"))
    settings = config.Settings.model_construct()

    assert {f"SDX_{key.upper()}" for key in config._keys()} <= example.keys()
    for key in ("account", "rest_url", "stream_url", "silence_s", "keepalive_s", "weight_per_minute", "http_port"):
        assert example[f"SDX_{key.upper()}"] == str(getattr(settings, key)), key
