from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.complaints import Logs


def line(level: str, event: str) -> str:
    return json.dumps({"level": level, "event": event}) + "\n"


@pytest.mark.parametrize(
    "written",
    [line("error", "partition.stopped"), "E1121 12:00 transport: too_many_pings\n", "Traceback\n"],
)
def test_a_process_that_complains_is_reported_once_for_each_kind(
    tmp_path: Path, written: str
) -> None:
    log = tmp_path / "owner-1" / "server.log"
    log.parent.mkdir()
    log.write_text(written)
    logs = Logs([log])
    assert logs.complaints() == []

    with log.open("a") as stream:
        stream.write(written * 2)

    assert [violation.rule for violation in logs.complaints()] == ["complaint"]


def test_what_may_be_said_is_no_complaint(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    logs = Logs([log])

    log.write_text(line("warning", "partition.lost") + line("error", "mirror.went_back") + "{half")

    assert logs.complaints() == []
