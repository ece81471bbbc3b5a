"""``python -m ledger`` is the same program as ``sdx-ledger``."""

from ledger.cli import main

main()
