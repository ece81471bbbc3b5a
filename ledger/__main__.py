"""``python -m ledger`` is the same program as ``sdx-ledger``; the installed command begins here too.

In a folder that holds a package named ``ledger`` of its own, write ``python -P -m ledger``.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

NOT_HERE = "sdx-ledger runs on Linux and macOS; on Windows run it inside WSL"
INTERRUPTED = 130


def main() -> None:
    """Run the program where it can run; elsewhere say so, before anything is imported that is not there.

    A SIGTERM that comes while the modules are loaded, which takes a second or more, ends it as a later one does.
    """
    if os.name != "posix":
        print(NOT_HERE, file=sys.stderr)  # noqa: T201 - nothing else is loaded yet
        sys.exit(3)
    signal.signal(signal.SIGTERM, _leave)
    try:
        from ledger.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    # Nothing was begun. What runs until it is stopped has done all it was asked for; other commands have not.
    sys.exit(0 if {"run", "sandbox"}.intersection(sys.argv[1:2]) else INTERRUPTED)


if __name__ == "__main__":
    main()
