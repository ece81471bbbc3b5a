"""Settings: everything a user may set, read once at start and never changed.

Always holds: a value comes from the first of flag, environment, ``.env`` in the working folder,
``sdx-ledger.toml`` there, default; an empty value counts as not set. Every name is ``SDX_`` plus the upper
case key. A secret may be given as NAME_FILE too: a path whose content, less its newline, is the secret.
No secret is ever part of a message, a ``repr`` or a dump. A wrong setting is a ConfigError of one sentence.

Files (``.env``, the TOML file, secrets): one that another user owns or may write is refused (they could swap the key or
the venue's address). One with secrets that every user may read is used and mentioned in ``notes()``, except where the
platform mounts secrets (/run/secrets, systemd).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ledger import private_files, urls
from ledger.errors import ConfigError

PREFIX = "SDX_"
TOML = "sdx-ledger.toml"
SECRETS = frozenset({"api_key", "api_secret", "database_url", "read_database_url", "owner_database_url"})
# Names with our prefix that are read elsewhere or by the tests.
_OTHER_NAMES = re.compile(r"SDX_(PG_BIN|TEST_\w+)")
_ASSETS_OF = "assets_of_"
NAME_MAX = 64
"""Characters of a market or an asset."""
_YEAR_S = 31_536_000
_SETTINGS_FILE_MAX_BYTES = 1024 * 1024
_SHOWN_MAX = 32
"""Characters of a wrong value that a message shows: keys and secrets, put into the wrong variable, are longer."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _account_name(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", value):
        raise ValueError(f"expected 1 to 32 of a-z, 0-9, _ and -, not starting with _ or -, got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """A wrong value for a message; of a long one, which may be a secret in the wrong place, the length."""
    text = str(value)
    return repr(value) if len(text) <= _SHOWN_MAX else f"{len(text)} characters (not shown)"


def market_name(text: str) -> str:
    """The name of a market or an asset as the venue spells it: any script, its case kept.

    Raises ValueError in words for an empty one, one beyond 64 characters, and one with a comma, a space or a character
    that cannot be printed in it.
    """
    name = text.strip()
    if not 0 < len(name) <= NAME_MAX or "," in name or not name.isprintable() or any(map(str.isspace, name)):
        raise ValueError(
            f"expected a name as the venue spells it, such as BTCUSDT, of 1 to {NAME_MAX} characters without comma, "
            f"space or control characters, got {name[: NAME_MAX + 1]!r}"
        )
    return name


def _names(value: object) -> object:
    """Comma-separated text (or a TOML list) as names without repeats, in the order given."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"expected comma-separated names, got {_shown(value)}")
    return tuple(dict.fromkeys(market_name(part) for part in parts if part.strip()))


def _pair(value: object) -> object:
    names = _names(value)
    if not isinstance(names, tuple) or len(names) != 2:
        raise ValueError(f"expected BASE,QUOTE, got {_shown(value)}")
    return names


def _instant_ms(value: object) -> object:
    """An ISO date or date-time (UTC where it names no zone), or ms since 1970 of 13 digits, as ms UTC."""
    wrong = ValueError(f"expected a date such as 2026-01-31, a date-time, or ms of 13 digits, got {_shown(value)}")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[0-9]{13}", text):
            return int(text)
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            raise wrong from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(value, datetime):
        raise wrong
    moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    if moment < _EPOCH:
        raise wrong
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def instant_ms(text: str) -> int:
    """A date, a date-time (UTC where it names no zone) or 13 digits of ms, as ms UTC. Raises ValueError in words."""
    moment = _instant_ms(text)
    assert isinstance(moment, int)
    return moment


def _venue_url(secure: str, plain: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        # Nothing of the value is shown but a scheme and a host that were read: it may be a secret in the wrong place.
        wrong = ValueError(f"expected a URL such as {secure}://host, got something else (not shown)")
        try:
            parts = urlsplit(value if isinstance(value, str) else "")
            host, _port = parts.hostname, parts.port
        except ValueError:
            raise wrong from None
        if parts.username is not None:
            raise ValueError("expected a URL without a user name or password in it")
        if parts.scheme not in (secure, plain) or not host:
            raise wrong
        if parts.query or parts.fragment:
            raise ValueError(f"expected a URL such as {secure}://host, got one with a ? or # in it (not shown)")
        if parts.path.strip("/"):
            raise ValueError(f"expected a URL without a path, such as {parts.scheme}://{host}, got {_shown(value)}")
        if parts.scheme == plain and not urls.is_local(host):
            place = host if len(host) <= _SHOWN_MAX else "…"
            raise ValueError(f"expected {secure}:// ({plain}:// only to this machine), got '{plain}://{place}'")
        return str(value).rstrip("/")

    return check


def _database_url(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return urls.database_url(text if isinstance(text, str) else "").text


def _listen(value: object) -> object:
    try:
        host, port = urls.loopback(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"{error}, got {_shown(value)}") from None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _key(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("expected printable ASCII without spaces, got something else (not shown)")
    return text


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"expected a number, got {str(value).lower()}")
    return value


def _data_dir() -> Path:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/sdx-ledger")
    folder = platformdirs.user_data_path("sdx-ledger", appauthor=False)
    if not folder.is_absolute():
        raise ConfigError("SDX_DATA_DIR: this user has no home folder; set SDX_DATA_DIR to a folder of its own")
    return folder


def _folder(value: object) -> object:
    try:
        return Path(value).expanduser().absolute()  # type: ignore[arg-type]
    except (TypeError, RuntimeError):
        raise ValueError(f"expected a folder, got {_shown(value)}") from None


Whole = Annotated[int, BeforeValidator(_not_bool)]
Seconds = Annotated[Whole, Field(ge=1, le=_YEAR_S, description="a whole number of seconds of at least 1")]
Key = Annotated[SecretStr, BeforeValidator(_key)]
DatabaseUrl = Annotated[SecretStr, BeforeValidator(_database_url)]
Listen = Annotated[str, BeforeValidator(_listen)]
Symbols = Annotated[tuple[str, ...], BeforeValidator(_names)]
Instant = Annotated[int, BeforeValidator(_instant_ms)]


class AccountSettings(BaseModel):
    """One account to mirror: the top-level settings, or one ``[accounts.NAME]`` of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_by_name=True)

    name: Annotated[str, BeforeValidator(_account_name)]
    api_key: Key | None = None
    api_secret: Key | None = None
    symbols: Symbols = ()
    history_start_ms: Instant | None = Field(default=None, alias="history_start")


class Settings(BaseSettings):
    """All settings. ``load`` makes them; the flag names are the field names, ``history_start`` for its ms."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    account: Annotated[str, BeforeValidator(_account_name)] = "main"
    """Immutable: it is the first column of every key in the database."""
    api_key: Key | None = None
    api_secret: Key | None = None
    rest_url: Annotated[str, BeforeValidator(_venue_url("https", "http"))] = "https://api.spacedex.com"
    """Without a trailing slash; plain http only to loopback."""
    stream_url: Annotated[str, BeforeValidator(_venue_url("wss", "ws"))] = "wss://stream.spacedex.com"
    database_url: DatabaseUrl | None = None
    """None: the embedded PostgreSQL under ``data_dir``."""
    read_database_url: DatabaseUrl | None = None
    """A replica for readers; ``database_url`` where not set."""
    owner_database_url: DatabaseUrl | None = None
    """For migrations only; ``database_url`` where not set."""
    database_tls: Annotated[Literal["verify-full", "off"], BeforeValidator(_lower)] = Field(
        default="verify-full", description="verify-full or off"
    )
    """What a database that is not on this machine must offer; off: whatever its URL says goes."""
    pg_listen: Listen | None = None
    """Loopback address and port on which the embedded server of ``run`` takes readers over TCP; None: it does not."""
    data_dir: Annotated[Path, BeforeValidator(_folder)] = Field(default_factory=_data_dir)
    symbols: Symbols = ()
    """Symbols to walk besides those discovered."""
    history_start_ms: Instant | None = Field(default=None, alias="history_start")
    """How far back the first reconcile goes, ms UTC; None: to the account's first order found."""
    assets_of: Mapping[str, Annotated[tuple[str, str], BeforeValidator(_pair)]] = Field(default_factory=dict)
    """Symbol to (base, quote), where they cannot be learnt."""
    accounts: tuple[AccountSettings, ...] = ()
    """The ``[accounts.NAME]`` of the TOML file. Use ``all_accounts()``."""
    keepalive_s: Seconds = 1500
    listen_key_ttl_s: Seconds = 3600
    connection_max_age_s: Seconds = 82_800
    sockets: Whole = Field(default=1, ge=1, le=2, description="1 or 2")
    silence_s: Seconds = 75
    release_key: bool = Field(default=False, description="1 or 0")
    rest_lag_s: Seconds = 10
    reconcile_every_s: Seconds = 300
    weight_per_minute: Whole = Field(default=600, ge=1, description="a whole number of at least 1")
    http_host: str = Field(default="127.0.0.1", min_length=1, description="an address to listen on")
    http_port: Whole = Field(default=8480, ge=0, le=65_535, description="a port from 0 to 65535")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        default="info", description="debug, info, warning or error"
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = Field(
        default="auto", description="auto, console or json"
    )
    remarks: tuple[str, ...] = Field(default=(), repr=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _follow_database_url(cls, given: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in given.items() if value != ""}
        if "database_url" in given:
            for name in ("read_database_url", "owner_database_url"):
                given.setdefault(name, given["database_url"])
        return given

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.keepalive_s >= self.listen_key_ttl_s:
            raise ValueError(
                f"SDX_KEEPALIVE_S: expected less than SDX_LISTEN_KEY_TTL_S ({self.listen_key_ttl_s}), "
                f"got {self.keepalive_s}"
            )
        if self.api_key and any(one.name == self.account for one in self.accounts):
            raise ValueError(
                f"SDX_ACCOUNT: {self.account!r} has keys in the environment and in {TOML}; keep one of them"
            )
        for name, url in self._databases().items():
            for option in urls.FILE_OPTIONS:
                # The driver tells of a missing one without its name, as if the database were away.
                file = url.options.get(option, "")
                if file not in ("", "system") and not os.access(file, os.R_OK):
                    raise ValueError(f"{name}: {option}: expected a file that can be read, got {file}")
        if self.database_tls != "off" and (names := self.unchecked_databases()):
            raise ValueError(
                f"{names[0]}: expected sslmode=verify-full for a database that is not on this machine, so that its "
                "password goes to nobody else; add ?sslmode=verify-full&sslrootcert=FILE (the certificate of who "
                "signed the server's), or set SDX_DATABASE_TLS=off to do without"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        layers = (_from_toml(Path(TOML)), _dotenv(Path(".env")), _from_environment(os.environ))
        return init_settings, _Merged(settings_cls, layers)

    def all_accounts(self) -> tuple[AccountSettings, ...]:
        """Every account to mirror: the TOML file's, and the top-level one if it has a key or is alone."""
        if self.accounts and self.api_key is None:
            return self.accounts
        own = AccountSettings(
            name=self.account,
            api_key=self.api_key,
            api_secret=self.api_secret,
            symbols=self.symbols,
            history_start=self.history_start_ms,
        )
        return (*self.accounts, own)

    def secrets(self) -> tuple[str, ...]:
        """Every secret text in use, database URLs and passwords, for ``log.setup`` to mask."""
        keys = (key for one in self.all_accounts() for key in (one.api_key, one.api_secret))
        found = {key.get_secret_value() for key in keys if key is not None}
        for url in (self.database_url, self.read_database_url, self.owner_database_url):
            if url is not None:
                found |= urls.passwords(url.get_secret_value())
        return tuple(sorted(found - {""}))

    def unchecked_databases(self) -> tuple[str, ...]:
        """The settings whose database is elsewhere and need not prove which server it is."""
        return tuple(name for name, url in self._databases().items() if not url.is_checked)

    def _databases(self) -> dict[str, urls.DatabaseUrl]:
        """Every database URL by the setting that gave it."""
        given: dict[str, urls.DatabaseUrl] = {}
        for name in ("database_url", "read_database_url", "owner_database_url"):
            url = getattr(self, name)
            if url is not None and (name == "database_url" or url != self.database_url):
                given[PREFIX + name.upper()] = urls.database_url(url.get_secret_value())
        return given

    def notes(self) -> tuple[str, ...]:
        """Sentences worth a warning at start: lax secret files, names that look like ours but are not."""
        if self.pg_listen is None or self.database_url is None:
            return self.remarks
        return (*self.remarks, "SDX_PG_LISTEN is ignored: it is for the embedded server, and SDX_DATABASE_URL is set")


def load(**flags: object) -> Settings:
    """The settings, ``flags`` winning over all else: None counts as not given, "" means the default.

    Raises ConfigError: one sentence naming the setting, what was expected and, never for a secret, what came.
    """
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def looked_at() -> str:
    """Where settings were looked for besides the environment, in words."""
    found = [name for name in (".env", TOML) if Path(name).is_file()]
    if not found:
        return f"there is no .env and no {TOML} in {Path.cwd()}"
    return f"{' and '.join(found)} in {Path.cwd()} {'was' if len(found) == 1 else 'were'} read"


class _Merged(PydanticBaseSettingsSource):
    """The layers already read, the last one winning."""

    def __init__(self, settings_cls: type[BaseSettings], layers: Iterable[dict[str, Any]]) -> None:
        super().__init__(settings_cls)
        self._values: dict[str, Any] = {}
        for layer in layers:
            remarks = self._values.get("remarks", ()) + layer.get("remarks", ())
            assets_of = self._values.get("assets_of", {}) | layer.get("assets_of", {})
            self._values |= {**layer, "remarks": remarks, "assets_of": assets_of}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field.alias or field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


def _keys() -> frozenset[str]:
    """What a user may set, as lower-case keys."""
    fields = Settings.model_fields.items()
    hidden = {"remarks", "accounts", "assets_of"}
    return frozenset(field.alias or name for name, field in fields if name not in hidden)


def _dotenv(path: Path) -> dict[str, Any]:
    text, is_open = _settings_file(path)
    given = _from_environment(dotenv_values(stream=StringIO(text), interpolate=False))
    return _remarked(path, is_open and not SECRETS.isdisjoint(given), given)


def _settings_file(path: Path) -> tuple[str, bool]:
    """The text of a file of settings in the working folder, and whether every user may read it; empty without one."""
    try:
        return private_files.read_own(path, str(path), at_most=_SETTINGS_FILE_MAX_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        return "", False
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} in the working folder cannot be read: {why}") from None


def _remarked(path: Path, is_lax: bool, given: dict[str, Any]) -> dict[str, Any]:
    if not is_lax:
        return given
    remark = f"{path} holds secrets and may be read by every user; better: chmod 600 {path}"
    return {**given, "remarks": (*given["remarks"], remark)}


def _from_environment(variables: Mapping[str, str | None]) -> dict[str, Any]:
    given = {}
    for name, value in ((_utf8(name), value) for name, value in variables.items() if value):
        if name.startswith(PREFIX + _ASSETS_OF.upper()):
            # The rest is the venue's name of a market: its case is its own.
            given[_ASSETS_OF + name.removeprefix(PREFIX + _ASSETS_OF.upper())] = _utf8(value)
        elif name.startswith(PREFIX) and name.isupper() and not _OTHER_NAMES.fullmatch(name):
            given[name.removeprefix(PREFIX).lower()] = _utf8(value)
    remarks: list[str] = []
    values = _resolve(given, PREFIX, remarks)
    for key in sorted(values.keys() - _keys() - {"assets_of"}):
        del values[key]
        remarks.append(f"{PREFIX}{key.upper()} is not a setting; it is ignored")
    return {**values, "remarks": tuple(remarks)}


def _utf8(text: str) -> str:
    """Text of the environment or the command line, where the system's own encoding could not read its UTF-8."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def spoken_name(text: str) -> str:
    """A market named on the command line, as ``market_name``. Raises ValueError in words."""
    return market_name(_utf8(text))


def _from_toml(path: Path) -> dict[str, Any]:
    text, is_open = _settings_file(path)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    remarks: list[str] = []
    has_secrets = _has_secrets(given)
    tables = given.pop("accounts", {})
    values = _resolve(given, "", remarks)
    unknown = sorted(values.keys() - _keys() - {"assets_of"})
    if unknown:
        raise ConfigError(f"{path}: not a setting: {', '.join(unknown)}; keys are lower case, without SDX_")
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(f"{path}: accounts: expected tables such as [accounts.main]")
    values["accounts"] = tuple(_account(path, name, table, remarks) for name, table in tables.items())
    return _remarked(path, is_open and has_secrets, {**values, "remarks": tuple(remarks)})


def _has_secrets(given: Mapping[str, Any]) -> bool:
    return any(key in SECRETS or (isinstance(value, dict) and _has_secrets(value)) for key, value in given.items())


def _account(path: Path, name: str, table: dict[str, Any], remarks: list[str]) -> AccountSettings:
    where = f"accounts.{name}."
    try:
        return AccountSettings(name=name, **_resolve(table, where, remarks))
    except (ValidationError, TypeError) as error:
        why = _sentence(error, where) if isinstance(error, ValidationError) else f"{where}name: not a setting"
        raise ConfigError(f"{path}: {why}") from None


def _resolve(given: Mapping[str, Any], prefix: str, remarks: list[str]) -> dict[str, Any]:
    """Replace each ``NAME_file`` of a secret by the file's content and gather ``assets_of_SYMBOL``."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        name = key.removesuffix("_file")
        spoken = prefix + (key.upper() if prefix == PREFIX else key)
        if prefix == PREFIX and key.startswith(_ASSETS_OF):
            spoken = prefix + _ASSETS_OF.upper() + key.removeprefix(_ASSETS_OF)
        if name != key and name in SECRETS:
            if given.get(name):
                raise ConfigError(f"{spoken}: given together with the secret itself; keep one of the two")
            values[name] = _read_secret(spoken, Path(str(value)), remarks)
        elif key.startswith(_ASSETS_OF):
            values.setdefault("assets_of", {})[_market_of(spoken, key.removeprefix(_ASSETS_OF))] = value
        elif key == "assets_of" and isinstance(value, dict):
            # A table of the TOML file: its keys may be quoted, so that a name of any script can be one.
            pairs = {_market_of(f"{spoken}.{name}", name): pair for name, pair in value.items()}
            values.setdefault("assets_of", {}).update(pairs)
        else:
            values[key] = value
    return values


def _market_of(spoken: str, text: str) -> str:
    try:
        return market_name(text)
    except ValueError as error:
        raise ConfigError(f"{spoken}: {error}") from None


def _read_secret(spoken: str, path: Path, remarks: list[str]) -> str:
    try:
        text, is_open = private_files.read_own(path, spoken, at_most=private_files.SECRET_FILE_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{spoken}: expected a readable file with the secret, got {path}: {why}") from None
    if is_open and not _is_mounted_secret(path):
        remarks.append(f"{spoken}: {path} may be read by every user; better: chmod 600 {path}")
    secret = text.removesuffix("\n")
    if not secret:
        raise ConfigError(f"{spoken}: expected a file with the secret, got an empty file, {path}")
    return secret


def _is_mounted_secret(path: Path) -> bool:
    mounts = ["/run/secrets", os.environ.get("CREDENTIALS_DIRECTORY", "")]
    return any(mount and path.absolute().is_relative_to(mount) for mount in mounts)


def _sentence(error: ValidationError, prefix: str = PREFIX) -> str:
    """The first problem as one sentence. Inputs of secrets are never shown."""
    problem = error.errors(include_url=False, include_context=True)[0]
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    key = str(problem["loc"][0])
    spoken = prefix + (key.upper() if prefix == PREFIX else key)
    if key == "assets_of" and len(problem["loc"]) > 1:
        spoken = f"{PREFIX}ASSETS_OF_{problem['loc'][1]}"
    if problem["type"] == "extra_forbidden":
        return f"{spoken}: not a setting"
    if problem["type"] == "value_error":
        return f"{spoken}: {problem['msg'].removeprefix('Value error, ')}"
    got = "something else (not shown)" if key in SECRETS else _shown(problem["input"])
    return f"{spoken}: expected {_expected(key, dict(problem))}, got {got}"


def _expected(key: str, problem: dict[str, Any]) -> str:
    limit = problem.get("ctx", {}).get("le")
    field = Settings.model_fields.get(key)
    if limit == _YEAR_S:
        return f"at most {limit} seconds (a year)"
    return (field.description if field else None) or problem["msg"]
