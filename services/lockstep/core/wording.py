"""Words for people.

Here belongs how counts are written in sentences, and how texts of others become some. Never here: what is counted or
said. The law: one of something is no plural.
"""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Write how many there are of something: `1 message`, `2,000 messages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def are(count: int) -> str:
    """Return the verb for so many: `is`, or `are`."""
    return "is" if count == 1 else "are"


def have(count: int) -> str:
    """Return the verb for so many: `has`, or `have`."""
    return "has" if count == 1 else "have"


def sentence(text: str) -> str:
    """Return a text that others wrote with an end, so that another sentence can follow it."""
    text = text.rstrip()
    return text if not text or text[-1] in ".!?…" else f"{text}."
