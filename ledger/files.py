"""Files that go with the program: beside the package in the repository, inside it where it is installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_REPOSITORY = _PACKAGE.parent


def _either(inside: str, beside: str) -> Path:
    installed = _PACKAGE / inside
    return installed if installed.exists() else _REPOSITORY / beside


def migrations() -> Path:
    """The folder of the migrations."""
    return _either("migrations", "migrations")


DEPLOYED = {
    "unit": ("deploy/sdx-ledger.service", "deploy/sdx-ledger.service"),
    "sysusers": ("deploy/sdx-ledger.sysusers", "deploy/sdx-ledger.sysusers"),
    "env": ("deploy/env.example", ".env.example"),
}


def deployed(name: str) -> str:
    """The text of the systemd unit or of the example settings."""
    return _either(*DEPLOYED[name]).read_text("utf-8")
