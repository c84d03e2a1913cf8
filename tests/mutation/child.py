"""What runs in the child process: the tests of a guard, or seeds of the simulator, on a copy of the product.

Here belongs the judgement by exit code. Never here: copying and changing (`trial`). The law: what is judged is the
copy, and a run that meets the working tree instead says so, because it would prove nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# None of them is what Python or pytest end with when they themselves fail.
PASSED, FAILED, BROKEN = 10, 11, 12

_TEST_SECONDS_MAX = 20


class OneDriver:
    """Leaves the conformance suite one driver, the one in memory, unless a test names another."""

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """See pytest."""
        items[:] = [item for item in items if item.nodeid in config.args or _is_in_memory(item)]


def _is_in_memory(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    return callspec is None or callspec.params.get("broker", "memory") == "memory"


def main(services: str, *asked: str) -> int:
    """Run tests, or seeds as `seeds=<number>`, until one fails.

    Args:
        services: Where the product must come from.
        asked: What to run.

    Returns:
        PASSED, FAILED, or BROKEN for what could not be run.
    """
    seeds = sum(int(part.removeprefix("seeds=")) for part in asked if part.startswith("seeds="))
    tests = [part for part in asked if not part.startswith("seeds=")]
    code = _run_tests(tests) if tests else PASSED
    if code == PASSED and seeds:
        code = _run_seeds(seeds)
    judged = str(sys.modules["lockstep"].__file__)
    if not Path(judged).is_relative_to(services):
        print(f"{judged} was judged, not {services}", file=sys.stderr)
        return BROKEN
    return code


def _run_tests(tests: list[str]) -> int:
    options = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
    # What a failed test leaves behind is noise, not what it noticed.
    options += ["-p", "no:unraisableexception", "-p", "no:threadexception"]
    # Without it, pytest would put the services of the working tree first.
    options += ["-o", "pythonpath=.", "-o", f"timeout={_TEST_SECONDS_MAX}"]
    code = pytest.main([*options, *tests], plugins=[OneDriver()])
    verdicts = {pytest.ExitCode.OK: PASSED, pytest.ExitCode.TESTS_FAILED: FAILED}
    return verdicts.get(pytest.ExitCode(code), BROKEN)


def _run_seeds(seeds: int) -> int:
    from tests.sim.simulation import simulate  # most guards do not need it

    for seed in range(seeds):
        verdict = simulate(seed)
        if verdict.failure is not None:
            print(f"seed {seed}: {verdict.failure}")
            return FAILED
    return PASSED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
