"""The same commands on three stores give the same decisions, and the same partition after each restart.

The histories, and the model that they are held against, are those of the other two tests.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.properties.test_plain_queue import PlainQueueMachine
from tests.properties.test_session_queue import SessionQueueMachine
from tests.properties.triplet import TripletRig

pytestmark = pytest.mark.usefixtures("triplet_database")


class TripletSessionQueueMachine(SessionQueueMachine):
    """Session queues in memory, in SQLite and in PostgreSQL."""

    rig_class = TripletRig


class TripletPlainQueueMachine(PlainQueueMachine):
    """Plain queues in memory, in SQLite and in PostgreSQL."""

    rig_class = TripletRig


# Files and servers cost more than memory, so there are fewer histories.
TripletSessionQueueMachine.TestCase.settings = settings(
    max_examples=max(1, settings().max_examples // 5)
)
TripletPlainQueueMachine.TestCase.settings = TripletSessionQueueMachine.TestCase.settings
TestIdenticalSessionQueues = TripletSessionQueueMachine.TestCase
TestIdenticalPlainQueues = TripletPlainQueueMachine.TestCase
