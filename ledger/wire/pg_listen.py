"""The embedded server over TCP, for SQL clients that cannot use a Unix socket: who gets in, and with what.

Always holds: only an address of this machine's loopback is listened on; only the reader's role gets in, with a password
(SCRAM). The password is made here, kept in one file that the owner of the data folder alone may read, and reaches the
server as a verifier, from which it cannot be computed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import socket
from pathlib import Path
from urllib.parse import quote

import structlog

from ledger import private_files, urls
from ledger.errors import ConfigError
from ledger.wire.reach import why

log = structlog.get_logger(__name__)

PASSWORD_FILE = "reader.password"  # noqa: S105 # nosec B105 - its name
PASSWORD_MIN = 16
"""Characters of a password that somebody else than this program wrote into the file."""
_PASSWORD_MAX = 256
_AGAIN = "without the file the next start of the service makes a new one"
_RANDOM_BYTES = 24
_ROUNDS = 4096  # PostgreSQL's own default (scram_iterations)


def kept_password(data_dir: Path) -> str:
    """The reader's password, for the server: the one in the file, made now where there is no file. Raises ConfigError
    for a file that another user owns or may write, and for one without a password."""
    file = data_dir / PASSWORD_FILE
    try:
        text, is_open = private_files.read_own(file, PASSWORD_FILE, at_most=_PASSWORD_MAX + 1)
    except FileNotFoundError:
        made = secrets.token_urlsafe(_RANDOM_BYTES)
        private_files.replace_text(file, f"{made}\n")
        return made
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the reader's password cannot be read: {_reason(error)}; {_AGAIN}") from None
    if is_open:
        log.warning(f"{file} may be read by every user; better: chmod 600 {file}")
    return _password_in(text, file)


def url(listen: str, database: str, role: str, data_dir: Path) -> str:
    """The URL for clients, with the password in it, for whoever may read its file. Raises ConfigError."""
    file = data_dir / PASSWORD_FILE
    try:
        password = _password_in(file.read_text("utf-8"), file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the reader's password cannot be read: {_reason(error)}; {_AGAIN}") from None
    return f"postgresql://{role}:{quote(password, safe='')}@{listen}/{database}"


def _reason(error: Exception) -> str:
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else why(error)


def _password_in(text: str, file: Path) -> str:
    password = text.removesuffix("\n")
    if not re.fullmatch(rf"[!-~]{{{PASSWORD_MIN},{_PASSWORD_MAX}}}", password):
        raise ConfigError(
            f"{file}: expected a password of {PASSWORD_MIN} to {_PASSWORD_MAX} characters of printable ASCII without "
            f"spaces, got something else (not shown); {_AGAIN}"
        )
    return password


def verifier(password: str) -> str:
    """What PostgreSQL keeps of a password (RFC 5803); any other program makes another one of the same."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${_ROUNDS}:{salt_text}${stored_text}:{server_text}"


def rule(listen: str, database: str, role: str) -> str:
    """The line of pg_hba.conf that lets this role in over TCP; whoever no line names is refused."""
    loopback = "::1/128" if listen.startswith("[") else "127.0.0.0/8"
    return f"host {database} {role} {loopback} scram-sha-256\n"


def refuse_taken(listen: str) -> None:
    """Raise ConfigError where the address cannot be listened on. PostgreSQL would say so too, in its log alone."""
    host, port = urls.loopback(listen)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself
        try:
            trial.bind((host, port))
            trial.listen(1)
        except OSError as error:
            raise ConfigError(
                f"SDX_PG_LISTEN: {listen} cannot be listened on: {why(error)}; choose another port"
            ) from None
