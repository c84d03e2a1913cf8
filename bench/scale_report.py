"""How the figures of the scale benchmark are shown, beside their aims.

Here belongs the report. Never here: how a figure is taken (`scale`). The law: what misses its aim is shown like what
meets it.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import measure, watched

MANY, FEW = "many", "few"
LISTED_MS = 2.0
STARTS = ("start.", "start again.")
"""Pauses before the server serves; nobody waits for a call then."""
AIMS = {
    "rss.filled_mib": "below 1,024",
    "start.ready_seconds": "below 15",
    "pause": "none over 50 ms",
    "cpu.ratio_growth": "at most 1.2",
}


def report(found: dict[str, measure.Figures]) -> Iterator[str]:
    """Yield the lines of the report."""
    yield ", ".join(f"{name} {value}" for name, value in measure.machine().items())
    for name, figures in found.items():
        yield ""
        yield f"part {name}"
        for figure, value in figures.items():
            if ".pause." not in figure:
                yield f"  {figure:<40}{measure.short(value):>12}"
        yield from pauses(figures)
    yield ""
    yield from verdicts(found)


def pauses(figures: measure.Figures) -> Iterator[str]:
    """Yield the longest spans, one line for each time and kind that has one worth a line."""
    columns = ("longest_ms", "longest_cpu_ms", "over_20_ms", "count", "freed")
    yield f"  {'pauses':<40}" + "".join(f"{column:>16}" for column in columns)
    for name in figures:
        kind, _, figure = name.rpartition(".")
        if ".pause." in name and figure == "longest_ms" and figures[name] >= LISTED_MS:
            cells = (measure.short(figures[f"{kind}.{column}"]) for column in columns)
            yield f"  {kind.replace('.pause.', ': '):<40}" + "".join(
                f"{cell:>16}" for cell in cells
            )


def verdicts(found: dict[str, measure.Figures]) -> Iterator[str]:
    """Yield each aim with what was seen."""
    yield "aims"
    for name in ("rss.filled_mib", "start.ready_seconds"):
        if (seen := found.get(MANY, {}).get(name)) is not None:
            yield f"  {name:<28}{measure.short(seen):>8}   aim: {AIMS[name]}"
    for kind in (watched.LOOP, watched.STEP, watched.COLLECTION):
        yield f"  pause, {longest(found, kind)}   aim: {AIMS['pause']}"
    smallest = (found[part].get("small.cpu.ratio") for part in (FEW, MANY) if part in found)
    base = next(filter(None, smallest), None)
    for part, figures in found.items():
        for name, value in figures.items():
            if base and name.endswith(".cpu.ratio"):
                place = f"{part}: {name.removesuffix('.cpu.ratio')}"
                yield f"  processor time, {place:<20}× {value / base:.2f}   aim: {AIMS['cpu.ratio_growth']}"


def longest(found: dict[str, measure.Figures], kind: str) -> str:
    """Tell the longest span of a kind while the server served, by the wall and by its thread's processor time."""
    spans = [
        (value, f"{part}: {name.partition('.pause.')[0]}", name.rpartition(".")[2])
        for part, figures in found.items()
        for name, value in figures.items()
        if f".pause.{kind}" in name and not name.startswith(STARTS)
    ]
    words = []
    for figure in ("longest_ms", "longest_cpu_ms"):
        value, where, _ = max((span for span in spans if span[2] == figure), default=(0.0, "-", ""))
        words.append(f"{measure.short(value)} ms ({where})")
    return f"{kind.rstrip('.'):<8}{words[0]} by the wall, {words[1]} of processor time"
