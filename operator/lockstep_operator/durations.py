"""Durations as custom resources write them: ISO 8601 without years and months.

Here belongs the way between their text and a timedelta. Never here: which durations a setting allows; the broker
says.
"""

from __future__ import annotations

import re
from datetime import timedelta

_FORM = re.compile(
    r"P(?:(?P<days>\d{1,8})D)?(?:T(?:(?P<hours>\d{1,8})H)?(?:(?P<minutes>\d{1,8})M)?"
    r"(?:(?P<seconds>\d{1,10}(?:\.\d{1,7})?)S)?)?"
)
# What Azure Resource Manager writes for "for ever".
_FOR_EVER = timedelta(days=10675199)


class InvalidDuration(ValueError):
    """The text is no duration of this form."""


def parse_duration(text: str) -> timedelta | None:
    """Return a duration; None = for ever, as Azure Resource Manager writes it.

    Raises:
        InvalidDuration: It is none of this form, or none at all (`P`, `PT`).
    """
    found = _FORM.fullmatch(text)
    parts = {} if found is None else {k: v for k, v in found.groupdict().items() if v is not None}
    if not parts or text.endswith("T"):
        raise InvalidDuration(
            f"'{text}' is no ISO 8601 duration of days, hours, minutes and seconds; PT5M is five minutes, P1DT12H a day"
            " and a half."
        )
    try:
        value = timedelta(**{name: float(number) for name, number in parts.items()})
    except OverflowError:
        return None
    return None if value >= _FOR_EVER else value


def duration_text(value: timedelta) -> str:
    """Return a duration as custom resources write it, in the fewest parts."""
    rest, microseconds = divmod(value // timedelta(microseconds=1), 1_000_000)
    days, rest = divmod(rest, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
    if seconds or microseconds:
        part = f"{seconds}.{microseconds:06}".rstrip("0").rstrip(".")
        time += f"{part}S"
    text = "P" + (f"{days}D" if days else "") + (f"T{time}" if time else "")
    return text if text != "P" else "PT0S"
