"""One release for all tests, which use it one after the other as a user would."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.kubernetes.lab import Lab, lab_on_this_cluster, why_not

Tell = Callable[[str], None]
_lab = pytest.StashKey[Lab]()


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Tell:
    """Says what was seen, whatever is captured."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")

    def say(what: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"  {what}")

    return say


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    reason = why_not()
    if reason:
        pytest.exit(f"make test-kube needs a Kubernetes cluster: {reason}", returncode=2)
    with lab_on_this_cluster() as lab:
        request.config.stash[_lab] = lab
        yield lab


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    report: Any = yield
    lab = item.config.stash.get(_lab, None)
    if report.failed and report.when == "call" and lab is not None:
        report.sections.append(("the release", lab.what_happened()))
    return report
