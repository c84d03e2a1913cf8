"""The pages of docs/: their programs print what is shown, their links lead somewhere, the index names them all."""

from __future__ import annotations

import re

import pytest

from tests.examples.conftest import ROOT, Server
from tests.examples.steps import Step, steps

PAGES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))
# Their programs are run where the in-process broker is tested, and where times are masked; those of the operator's page
# need a cluster.
ELSEWHERE = frozenset({"docs/operator.md", "docs/testing.md", "docs/troubleshooting.md"})
PROGRAMS = [
    pytest.param(step, id=f"{page}-{number}")
    for page in PAGES
    if page not in ELSEWHERE
    for number, step in enumerate(steps((ROOT / page).read_text(encoding="utf-8")), start=1)
]
WITH_PROGRAMS = (
    "coming-from-azure",
    "dead-letters",
    "delivery-counts",
    "partitions",
    "processors",
    "sessions",
    "state",
    "time",
)
_LINK = re.compile(r"\]\(([^):]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LABEL_PUNCTUATION = re.compile(r"[^\w\- ]")


def anchors(document: str) -> set[str]:
    """The names of a document's headings in links, as forges make them."""
    return {
        _LABEL_PUNCTUATION.sub("", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(document)
    }


def test_the_pages_that_explain_by_programs_have_some() -> None:
    found = {str(one.id).removeprefix("docs/").partition(".")[0] for one in PROGRAMS}

    assert found == set(WITH_PROGRAMS)


@pytest.mark.parametrize("step", PROGRAMS)
def test_a_program_of_a_page_prints_what_is_shown(server: Server, step: Step) -> None:
    ran = server.run(*step.words)

    assert ran.output == step.shown
    assert ran.code == 0


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_what_is_linked_to_is_there(document: str) -> None:
    page = ROOT / document
    missing = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (
            anchor and anchor not in anchors(target.read_text(encoding="utf-8"))
        ):
            missing.append(link)

    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/README.md"])
def test_the_index_names_every_page(page: str) -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    assert f"]({page.removeprefix('docs/')})" in index


def test_the_readme_names_every_example() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    examples = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*.py")]

    assert len(examples) > 5
    assert [name for name in examples if f"({name})" not in readme] == []
