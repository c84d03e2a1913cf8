"""An owner for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.owner.owner_rig import Owner, running_owner


@pytest.fixture
async def owner() -> AsyncIterator[Owner]:
    """A running owner without queues."""
    async with running_owner() as owner:
        yield owner
