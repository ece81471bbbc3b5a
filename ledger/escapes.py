r"""What the venue says, on its way to a person: whatever does not show itself is shown as an escape.

Always holds: ``escaped`` text is one line, steers no terminal and hides nothing; text of visible characters and spaces
stays as it is. The one list of such characters: tables, lines, logs, ``--json`` and CSV files all go by it.

Control characters, C1 among them, line and paragraph separators, marks of direction, every blank but the space, and
what has no shape: ESC becomes ``\x1b``, RIGHT-TO-LEFT OVERRIDE ``\u202e``. Two spellings may become one: it is for
reading. Pure; a leaf that every room may import.
"""

from __future__ import annotations

import re

# Written out, not asked of unicodedata: the same file must have the same bytes under every Python.
UNSEEN: tuple[tuple[int, int], ...] = (
    (0x00, 0x1F),  # controls
    (0x7F, 0xA0),  # delete, C1, no-break space
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x600, 0x605),
    (0x61C, 0x61C),  # Arabic letter mark
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x115F, 0x1160),  # fillers
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2000, 0x200F),  # blanks, zero widths, marks of direction
    (0x2028, 0x202F),  # separators, embeddings and overrides
    (0x205F, 0x206F),  # isolates
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),  # halves of a pair
    (0xFE00, 0xFE0F),  # variants
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1345F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),  # tags, more variants
)
"""First and last of each run of characters that are shown as escapes."""

_UNSEEN = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSEEN) + "]")


def escaped(text: str) -> str:
    """The text as one line in which everything shows."""
    return _UNSEEN.sub(_escape, text)


def escaped_json(written: str) -> str:
    """The same of finished JSON: what is read back is what was written."""
    return _UNSEEN.sub(_json_escape, written)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _json_escape(found: re.Match[str]) -> str:
    pair = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{pair[at : at + 2].hex()}" for at in range(0, len(pair), 2))
