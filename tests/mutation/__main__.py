"""Take guards out one at a time, and see who notices: `make mutants`, or `make mutants ARGS='--only session-*'`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase

from tests.mutation.guard import Guard, load_guards
from tests.mutation.trial import Outcome, Verdict, try_with_all, try_without

_BAR = 40
_LINE_EVERY = 10  # guards, where no bar can be drawn


def main() -> int:
    """Run what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="ID", help="only these; * stands for any text"
    )
    parser.add_argument("--list", action="store_true", help="show the guards and run nothing")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    arguments = parser.parse_args()
    try:
        guards = chosen(load_guards(), arguments.only)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.list:
        _show_list(guards)
        return 0
    failed = try_with_all(guards)
    if failed:
        print(f"With all guards in place there must be no failure:\n{failed}", file=sys.stderr)
        return 1
    verdicts = _try_all(guards, arguments.jobs)
    _show_table(verdicts)
    return 0 if all(verdict.is_good for verdict in verdicts) else 1


def chosen(guards: Sequence[Guard], patterns: Sequence[str] | None) -> list[Guard]:
    """Return the guards that one of the patterns names; without patterns, all.

    Raises:
        LookupError: A pattern names none.
    """
    named = {p: [g.id for g in guards if fnmatchcase(g.id, p)] for p in patterns or ("*",)}
    unknown = [pattern for pattern, ids in named.items() if not ids]
    if unknown:
        raise LookupError(f"There is no guard {' nor '.join(unknown)}; --list shows all.")
    wanted = {one for ids in named.values() for one in ids}
    return [guard for guard in guards if guard.id in wanted]


def _try_all(guards: Sequence[Guard], jobs: int) -> list[Verdict]:
    verdicts: dict[str, Verdict] = {}
    with ThreadPoolExecutor(jobs) as threads:
        trials = [threads.submit(try_without, guard) for guard in guards]
        for trial in as_completed(trials):
            verdict = trial.result()
            verdicts[verdict.guard.id] = verdict
            _show_progress(list(verdicts.values()), len(guards))
    print()
    return [verdicts[guard.id] for guard in guards]


def _show_progress(verdicts: Sequence[Verdict], total: int) -> None:
    done = len(verdicts)
    bad = sum(not verdict.is_good for verdict in verdicts)
    text = f"{done}/{total} guards, {bad} to look at"
    if sys.stdout.isatty():
        full = _BAR * done // total
        print(f"\r[{'#' * full}{'.' * (_BAR - full)}] {text}", end="", flush=True)
    elif done % _LINE_EVERY == 0:
        print(text, flush=True)


def _show_list(guards: Sequence[Guard]) -> None:
    width = max(len(guard.id) for guard in guards)
    for guard in guards:
        kept_by = f"{len(guard.tests)} tests" + (f", {guard.seeds} seeds" if guard.seeds else "")
        mark = "  equivalent" if guard.equivalent else ""
        print(f"{guard.id:<{width}}  {guard.file:<24} {kept_by:<18} {', '.join(guard.rules)}{mark}")


def _show_table(verdicts: Sequence[Verdict]) -> None:
    width = max(len(verdict.guard.id) for verdict in verdicts)
    for verdict in verdicts:
        first, *rest = verdict.why.splitlines() or [""]
        print(f"{verdict.outcome:<10}  {verdict.guard.id:<{width}}  {first}")
        if verdict.outcome is Outcome.BROKEN:
            print(*(f"    {line}" for line in rest), sep="\n")
    counts = Counter(verdict.outcome for verdict in verdicts)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome))


if __name__ == "__main__":
    sys.exit(main())
