"""``python -m tests.bench.peak``: the program itself, which tells at its end how much memory it took at most.

A module of its own: whatever a suite imports beside it would be counted as the program's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ledger.cli import main

MARK = "peak KiB "

if __name__ == "__main__":
    try:
        main()
    finally:
        # Not getrusage: that keeps the peak of the process that was forked for this one.
        peak = re.search(r"VmHWM:\s+([0-9]+)", Path("/proc/self/status").read_text("ascii"))
        sys.stderr.write(f"{MARK}{peak[1] if peak else 'unknown'}")
