"""What a command that waits says while its server is away."""

from __future__ import annotations

import logging

import pytest

from lockstep.cli.outages import told
from lockstep.cli.output import Output

LOG = logging.getLogger("lockstep.client")


def test_an_outage_is_told_in_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    before = (LOG.level, LOG.propagate, list(LOG.handlers))

    with told(Output()):
        LOG.warning("client.server_away", extra={"server": "x"})
        LOG.info("client.something_small")
        LOG.info("client.server_back")
        LOG.warning("client.something_else")

    assert capsys.readouterr().err.splitlines() == [
        "The server is away; waiting for it to come back.",
        "The server is back.",
        "client.something_else",
    ]
    assert (LOG.level, LOG.propagate, list(LOG.handlers)) == before


def test_programs_are_told_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with told(Output(is_json=True)):
        LOG.warning("client.server_away")

    assert capsys.readouterr() == ("", "")
