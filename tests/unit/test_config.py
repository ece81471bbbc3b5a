"""Settings: where they come from, what is refused and in which words, and that no secret shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ledger import config
from ledger.config import Settings, load
from ledger.errors import ConfigError

SECRET = "tOpSeCrEt-0815"


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No SDX_ variable and an empty working folder."""
    for name in [name for name in os.environ if name.startswith("SDX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(**flags)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    settings = load()

    assert settings.account == "main"
    assert settings.rest_url == "https://api.spacedex.com"
    assert settings.stream_url == "wss://stream.spacedex.com"
    assert (settings.api_key, settings.database_url, settings.history_start_ms) == (None, None, None)
    assert (settings.keepalive_s, settings.listen_key_ttl_s) == (1500, 3600)
    assert (settings.connection_max_age_s, settings.silence_s, settings.sockets) == (82800, 75, 1)
    assert (settings.rest_lag_s, settings.reconcile_every_s, settings.weight_per_minute) == (10, 300, 600)
    assert (settings.http_host, settings.http_port, settings.release_key) == ("127.0.0.1", 8480, False)
    assert settings.pg_listen is None
    assert settings.data_dir.is_absolute()


def test_flag_beats_environment_beats_dotenv_beats_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdx-ledger.toml").write_text("silence_s = 11\nrest_lag_s = 11\nsockets = 2\nhttp_port = 11\n")
    (tmp_path / ".env").write_text("SDX_SILENCE_S=12\nSDX_REST_LAG_S=12\nSDX_HTTP_PORT=12\n")
    monkeypatch.setenv("SDX_SILENCE_S", "13")
    monkeypatch.setenv("SDX_REST_LAG_S", "13")

    settings = load(silence_s=14, sockets=None)

    assert (settings.silence_s, settings.rest_lag_s, settings.http_port) == (14, 13, 12)
    assert settings.sockets == 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [("127.0.0.1:5433", "127.0.0.1:5433"), ("127.0.0.2:1", "127.0.0.2:1"), ("[0:0::1]:65535", "[::1]:65535")],
)
def test_the_embedded_server_may_listen_on_loopback(given: str, kept: str) -> None:
    assert load(pg_listen=given).pg_listen == kept


@pytest.mark.parametrize(
    "given", ["0.0.0.0:5433", "[::]:5433", "192.168.1.2:5433", "[fe80::1]:5433", "[::ffff:127.0.0.1]:5433"]
)
def test_the_embedded_server_never_listens_where_other_machines_are(given: str) -> None:
    assert refusal(pg_listen=given) == (
        "SDX_PG_LISTEN: expected a loopback address, such as 127.0.0.1:5433 (other machines would need TLS, which the "
        f"embedded server has not: forward the port by ssh, or use a PostgreSQL of your own), got '{given}'"
    )


@pytest.mark.parametrize(
    "given",
    [
        "5433",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "localhost:5433",
        "*:5433",
        "::1:5433",
        "127.1:5433",
        "127.0.0.1:5433 ",
        "127.0.0.1:５４",
        5433,
    ],
)
def test_where_the_embedded_server_listens_is_an_address_and_a_port(given: object) -> None:
    assert refusal(pg_listen=given) == (
        f"SDX_PG_LISTEN: expected a loopback address and a port, such as 127.0.0.1:5433, got {given!r}"
    )


def test_where_another_server_is_used_an_address_to_listen_on_is_said_to_be_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SDX_PG_LISTEN", "127.0.0.1:5433")
    assert load().notes() == ()
    assert load(database_url="postgresql:///x").notes() == (
        "SDX_PG_LISTEN is ignored: it is for the embedded server, and SDX_DATABASE_URL is set",
    )


def test_an_empty_variable_counts_as_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdx-ledger.toml").write_text("silence_s = 11\n")
    monkeypatch.setenv("SDX_SILENCE_S", "")
    monkeypatch.setenv("SDX_DATABASE_URL", "postgresql:///x")

    assert load().silence_s == 11
    assert load(database_url="").database_url is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "SDX_SILENCE_S",
            "abc",
            "SDX_SILENCE_S: expected a whole number of seconds of at least 1, got 'abc'",
        ),
        ("SDX_REST_LAG_S", "0", "SDX_REST_LAG_S: expected a whole number of seconds of at least 1, got '0'"),
        ("SDX_SOCKETS", "3", "SDX_SOCKETS: expected 1 or 2, got '3'"),
        ("SDX_HTTP_PORT", "70000", "SDX_HTTP_PORT: expected a port from 0 to 65535, got '70000'"),
        ("SDX_RELEASE_KEY", "maybe", "SDX_RELEASE_KEY: expected 1 or 0, got 'maybe'"),
        ("SDX_LOG_LEVEL", "loud", "SDX_LOG_LEVEL: expected debug, info, warning or error, got 'loud'"),
        (
            "SDX_ACCOUNT",
            "Mine!",
            "SDX_ACCOUNT: expected 1 to 32 of a-z, 0-9, _ and -, not starting with _ or -, got 'Mine!'",
        ),
        (
            "SDX_KEEPALIVE_S",
            "3600",
            "SDX_KEEPALIVE_S: expected less than SDX_LISTEN_KEY_TTL_S (3600), got 3600",
        ),
        (
            "SDX_REST_URL",
            "http://api.spacedex.com",
            "SDX_REST_URL: expected https:// (http:// only to this machine), got 'http://api.spacedex.com'",
        ),
        ("SDX_ASSETS_OF_BTCUSDT", "BTC", "SDX_ASSETS_OF_BTCUSDT: expected BASE,QUOTE, got 'BTC'"),
        (
            "SDX_SYMBOLS",
            "BTC USDT",
            "SDX_SYMBOLS: expected a name as the venue spells it, such as BTCUSDT, of 1 to 64 characters without "
            "comma, space or control characters, got 'BTC USDT'",
        ),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    assert refusal() == sentence


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9", "ws://127.8.8.8:9", "ws://[::1]:9", "ws://localhost:9"])
def test_plain_urls_are_taken_to_this_machine(url: str) -> None:
    assert load(stream_url=url + "/").stream_url == url


@pytest.mark.parametrize("url", ["ws://127.0.0.1.example.com", "ws://10.0.0.1", "ws://[::2]", "http://127.0.0.1"])
def test_other_plain_urls_are_refused(url: str) -> None:
    assert refusal(stream_url=url).startswith("SDX_STREAM_URL: expected ")


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        ("2026-01-31", 1769817600000),
        ("2026-01-31T00:00:00", 1769817600000),
        ("2026-01-31T01:00:00.007+01:00", 1769817600007),
        ("1769817600007", 1769817600007),
        (1769817600007, 1769817600007),
    ],
)
def test_history_starts_at_an_iso_time_or_at_ms(given: object, ms: int) -> None:
    assert load(history_start=given).history_start_ms == ms


@pytest.mark.parametrize("given", ["yesterday", "1769817600", "1969-12-31", "2026-13-01"])
def test_a_doubtful_history_start_is_refused(given: str) -> None:
    assert refusal(history_start=given).startswith("SDX_HISTORY_START: expected a date such as 2026-01-31")


def test_symbols_come_as_text_or_list_without_repeats(tmp_path: Path) -> None:
    assert load(symbols=" BTCUSDT, ETHUSDT,BTCUSDT,").symbols == ("BTCUSDT", "ETHUSDT")
    (tmp_path / "sdx-ledger.toml").write_text('symbols = ["ETHBTC"]\n')
    assert load().symbols == ("ETHBTC",)


NAMES = ["币安人生USDT", "1000SATSUSDT", "beamxUSDT", "BTC/USDT", "β-ΣUSDT", "X" * 64]
"""Markets as venues list them."""


@pytest.mark.parametrize("name", NAMES)
def test_a_market_is_named_as_the_venue_spells_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDX_SYMBOLS", name)
    monkeypatch.setenv(f"SDX_ASSETS_OF_{name}", "币安人生, usdT")
    assert (load().symbols, load().assets_of) == ((name,), {name: ("币安人生", "usdT")})
    assert load().notes() == ()

    monkeypatch.delenv("SDX_SYMBOLS")
    monkeypatch.delenv(f"SDX_ASSETS_OF_{name}")
    (tmp_path / "sdx-ledger.toml").write_text(
        f'symbols = ["{name}"]\n"assets_of_{name}" = "A,B"\n[assets_of]\n"{name}2" = "C,D"\n', "utf-8"
    )
    if len(name) < 64:
        assert (load().symbols, load().assets_of) == ((name,), {name: ("A", "B"), f"{name}2": ("C", "D")})


def test_a_name_beyond_64_characters_or_with_a_control_character_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("X" * 65, "BTC\x07USDT", "BTC\u202eUSDT", "BTC\u2028USDT"):
        assert refusal(symbols=wrong).startswith("SDX_SYMBOLS: expected a name as the venue spells it, such as BTCUSDT")
    monkeypatch.setenv("SDX_ASSETS_OF_" + "X" * 65, "A,B")
    assert refusal().startswith("SDX_ASSETS_OF_" + "X" * 65 + ": expected a name as the venue spells it")


def test_names_are_read_where_the_system_says_that_text_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    """LC_ALL=C: what came as UTF-8 is half characters to Python."""
    spoken = "币安人生USDT".encode().decode("ascii", "surrogateescape")
    with_locale = {"SDX_SYMBOLS": spoken, f"SDX_ASSETS_OF_{spoken}": "X,Y"}
    monkeypatch.setattr(config.os, "fsencode", lambda text: text.encode("ascii", "surrogateescape"))
    assert config._from_environment(with_locale) == {
        "symbols": "币安人生USDT",
        "assets_of": {"币安人生USDT": "X,Y"},
        "remarks": (),
    }
    assert config.spoken_name(spoken) == "币安人生USDT"


def test_assets_are_gathered_from_every_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sdx-ledger.toml").write_text('assets_of_abcDEF = "abc,DEF"\nassets_of_XY = "X,Y"\n')
    monkeypatch.setenv("SDX_ASSETS_OF_XY", "XX,YY")

    assert load().assets_of == {"abcDEF": ("abc", "DEF"), "XY": ("XX", "YY")}


def test_unknown_keys_of_the_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "sdx-ledger.toml").write_text("silense_s = 3\nSDX_ACCOUNT = 'a'\n")

    assert refusal() == ("sdx-ledger.toml: not a setting: SDX_ACCOUNT, silense_s; keys are lower case, without SDX_")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "sdx-ledger.toml").write_text("account = \n")

    assert refusal().startswith("sdx-ledger.toml cannot be read: ")


def test_a_misspelt_variable_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDX_SILENCE", "3")
    monkeypatch.setenv("SDX_PG_BIN", "/somewhere")

    assert load().notes() == ("SDX_SILENCE is not a setting; it is ignored",)


def test_a_secret_comes_from_a_file_without_its_newline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv("SDX_API_SECRET_FILE", str(file))

    settings = load()

    assert settings.api_secret is not None
    assert settings.api_secret.get_secret_value() == SECRET
    assert settings.notes() == ()


def test_a_secret_file_every_user_may_read_is_noted_and_one_they_may_write_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    monkeypatch.setenv("SDX_API_KEY_FILE", str(file))

    file.chmod(0o644)
    assert load().notes() == (f"SDX_API_KEY_FILE: {file} may be read by every user; better: chmod 600 {file}",)
    file.chmod(0o646)
    assert refusal() == f"SDX_API_KEY_FILE: {file} may be written by every user; run: chmod 600 {file}"


def test_mounted_credentials_may_be_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "api_key"
    file.write_text(SECRET)
    file.chmod(0o444)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("SDX_API_KEY_FILE", str(file))

    assert load().notes() == ()


@pytest.mark.parametrize("content", ["", "\n"])
def test_an_empty_or_missing_secret_file_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv("SDX_API_KEY_FILE", str(file))
    assert refusal().endswith(f"got {file}: No such file or directory")

    file.write_text(content)
    assert refusal().endswith(f"got an empty file, {file}")


def test_a_secret_given_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDX_API_KEY", SECRET)
    monkeypatch.setenv("SDX_API_KEY_FILE", str(tmp_path / "secret"))

    assert refusal() == "SDX_API_KEY_FILE: given together with the secret itself; keep one of the two"


@pytest.mark.parametrize("name", sorted(config.SECRETS))
def test_no_message_shows_a_wrong_secret(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"SDX_{name.upper()}", f"mysql://u:{SECRET}@h/ d")

    message = refusal()

    assert message.startswith(f"SDX_{name.upper()}: expected ")
    assert SECRET not in message


def test_settings_show_no_secret_and_list_each_for_the_redactor() -> None:
    settings = load(
        api_key="kkkkk",
        api_secret=SECRET,
        database_url="postgresql://u:p%40ss@localhost/d?password=second",
        owner_database_url="postgresql://o:third@localhost/d",
    )

    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.all_accounts()}"
    assert not [secret for secret in settings.secrets() if secret in shown]
    assert set(settings.secrets()) >= {"kkkkk", "p%40ss", "p@ss", "second", SECRET, "third"}


def test_readers_and_migrations_use_the_database_url_unless_told_otherwise() -> None:
    settings = load(database_url="postgresql:///d", owner_database_url="postgresql://owner@/d")

    assert settings.read_database_url == settings.database_url
    assert settings.owner_database_url is not None
    assert settings.owner_database_url.get_secret_value() == "postgresql://owner@/d"


def test_settings_never_change() -> None:
    settings: Settings = load()

    with pytest.raises(ValueError, match="frozen"):
        settings.silence_s = 3


def test_several_accounts_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("key-of-desk\n")
    (tmp_path / "sdx-ledger.toml").write_text(
        '[accounts.desk]\napi_key_file = "k"\napi_secret = "s3cr3t"\nsymbols = "BTCUSDT"\nhistory_start = 2026-01-31\n'
    )

    (desk,) = load().all_accounts()

    assert (desk.name, desk.symbols, desk.history_start_ms) == ("desk", ("BTCUSDT",), 1769817600000)
    assert load().secrets() == ("key-of-desk", "s3cr3t")
    assert [one.name for one in load(api_key="another").all_accounts()] == ["desk", "main"]
    assert refusal(api_key="another", account="desk").startswith("SDX_ACCOUNT: 'desk' has keys in")


def test_a_wrong_key_of_an_account_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "sdx-ledger.toml").write_text("[accounts.desk]\nsilence_s = 3\n")
    assert refusal() == "sdx-ledger.toml: accounts.desk.silence_s: not a setting"

    (tmp_path / "sdx-ledger.toml").write_text("[accounts.desk]\nname = 'other'\n")
    assert refusal() == "sdx-ledger.toml: accounts.desk.name: not a setting"


def test_one_account_alone_needs_no_file() -> None:
    (main,) = load(symbols="BTCUSDT", history_start="2026-01-31").all_accounts()

    assert (main.name, main.symbols, main.history_start_ms) == ("main", ("BTCUSDT",), 1769817600000)
