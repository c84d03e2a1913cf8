"""A plain queue and its dead-letter store, held against the model."""

from __future__ import annotations

from tests.properties.clients import ClientMachine


class PlainQueueMachine(ClientMachine):
    """Messages are locked one by one."""


TestPlainQueue = PlainQueueMachine.TestCase
