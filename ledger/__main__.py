"""``python -m ledger`` is the same program as ``sdx-ledger``; the installed command begins here too.

In a folder that holds a package named ``ledger`` of its own, write ``python -P -m ledger``.
"""

from __future__ import annotations

import os
import sys

NOT_HERE = "sdx-ledger runs on Linux and macOS; on Windows run it inside WSL"


def main() -> None:
    """Run the program where it can run; elsewhere say so, before anything is imported that is not there."""
    if os.name != "posix":
        print(NOT_HERE, file=sys.stderr)  # noqa: T201 - nothing else is loaded yet
        sys.exit(3)
    try:
        from ledger.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
