"""Files that others may have written: refused, never followed, never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger import config, private_files
from ledger.errors import ConfigError
from ledger.wire import heads
from ledger.wire.embedded import Embedded

DAEMON = 1
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="only root can give a file to another user")
SECRET = "tOpSeCrEt-0815"
SETTINGS_FILES = {".env": f"SDX_API_SECRET={SECRET}\n", "sdx-ledger.toml": f'[accounts.a]\napi_secret = "{SECRET}"\n'}


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No SDX_ variable and an empty working folder."""
    for name in [name for name in os.environ if name.startswith("SDX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal() -> str:
    with pytest.raises(ConfigError) as caught:
        config.load()
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=[*SETTINGS_FILES, "a key file"])
def believed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that settings or a secret are read from, as its owner should keep it."""
    path = tmp_path / (request.param if request.param in SETTINGS_FILES else "key")
    path.write_text(SETTINGS_FILES.get(request.param, SECRET))
    path.chmod(0o600)
    if request.param not in SETTINGS_FILES:
        monkeypatch.setenv("SDX_API_SECRET_FILE", str(path))
    return path


def test_one_that_its_owner_alone_may_read_is_used_without_a_word(believed: Path) -> None:
    assert config.load().notes() == ()
    assert SECRET in config.load().secrets()


def test_one_that_others_may_read_is_a_remark(believed: Path) -> None:
    believed.chmod(0o644)

    (remark,) = config.load().notes()

    assert remark.endswith(
        f"may be read by every user; better: chmod 600 {believed if believed.name == 'key' else believed.name}"
    )


def test_one_that_others_may_write_is_refused(believed: Path) -> None:
    believed.chmod(0o606)
    assert "may be written by every user; run: chmod 600 " in refusal()


@needs_root
def test_one_that_a_shared_group_may_write_is_refused_and_one_of_a_private_group_is_not(believed: Path) -> None:
    believed.chmod(0o660)
    os.chown(believed, 0, 100)
    assert "may be written by group 100; run: chmod 600 " in refusal()

    os.chown(believed, 0, 0)
    assert SECRET in config.load().secrets()


@needs_root
def test_one_of_another_user_is_refused(believed: Path) -> None:
    os.chown(believed, DAEMON, DAEMON)

    assert f"belongs to user id {DAEMON}, expected 0 (this program's) or root" in refusal()


@needs_root
def test_a_link_of_another_user_is_refused_whatever_it_leads_to(believed: Path) -> None:
    own = believed.rename(believed.with_name("elsewhere"))
    believed.symlink_to(own)
    assert SECRET in config.load().secrets()

    os.chown(believed, DAEMON, DAEMON, follow_symlinks=False)
    assert f"is a link made by user id {DAEMON}; name the file itself" in refusal()


def test_a_pipe_is_refused_at_once(believed: Path) -> None:
    believed.unlink()
    os.mkfifo(believed, 0o600)

    assert "expected a regular file, got " in refusal()


def test_a_device_is_refused_as_a_key_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDX_API_KEY_FILE", "/dev/zero")

    assert refusal() == "SDX_API_KEY_FILE: expected a regular file, got /dev/zero, which is none"


def test_a_key_file_holds_at_most_64_kib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setenv("SDX_API_KEY_FILE", str(file))
    file.write_text("k" * 65_537)
    file.chmod(0o600)

    assert refusal() == f"SDX_API_KEY_FILE: expected a file of at most 65536 bytes, got {file}, which is larger"


def test_a_folder_that_is_called_env_is_no_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert config.load().notes() == ()


# What the program writes.


@pytest.mark.parametrize("mode", [0o707, 0o702])
async def test_a_data_folder_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)

    with pytest.raises(ConfigError, match=f"SDX_DATA_DIR: {data} may be written by every user; run: chmod 700 {data}"):
        await Embedded(data).start()

    assert os.listdir(data) == []


def test_a_link_in_the_way_of_a_new_file_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    for name in ("x.new", "x.json"):
        (tmp_path / name).symlink_to(target)

    private_files.replace_text(tmp_path / "x.json", "ours")

    assert target.read_text() == "precious"
    assert ((tmp_path / "x.json").read_text(), (tmp_path / "x.json").is_symlink()) == ("ours", False)
    assert not (tmp_path / "x.new").exists()


@pytest.mark.parametrize("folder", ["", "heads"])
def test_the_end_of_the_journal_is_not_kept_where_others_may_write(folder: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "heads").mkdir(parents=True)
    (data / folder).chmod(0o777)

    with pytest.raises(ConfigError, match="may be written by every user"):
        heads._write(data / "heads" / "a.json", heads.Head("a", 1, "00", 1))

    assert os.listdir(data / "heads") == []
