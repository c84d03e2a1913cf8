"""Words for people.

Here belongs how counts are written in sentences. Never here: what is counted. The law: one of something is no plural.
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
