"""Settling and renewing messages wherever they were delivered.

Here belongs the way of messages that are in hand back to their partitions. Never here: rules. The law: a message is
settled where its sequence number says that it lies.
"""

from __future__ import annotations

from dataclasses import replace

from lockstep.core.commands import RenewMessages, Settle
from lockstep.core.replies import NotSettled, Renewed, Settled
from lockstep.frontend.router import Router
from lockstep.frontend.splitting import settles_by_partition, tokens_by_partition
from lockstep.runtime.tasks import together


async def settle(router: Router, command: Settle) -> tuple[NotSettled, ...]:
    """Have messages settled by the partitions that delivered them, and return the failures."""
    if command.session is not None:
        answer = await router.call_home(command, command.entity, command.session.session_id)
        answers = [answer]
    else:
        parts = settles_by_partition(command, len(router.partitions))
        if parts:
            answers = await together([router.call(p, part) for p, part in parts.items()])
        else:
            answers = [await router.call_home(command, command.entity)]
    return tuple(f for one in answers if isinstance(one.reply, Settled) for f in one.reply.failures)


async def renew(router: Router, command: RenewMessages) -> Renewed:
    """Have the locks of single messages moved by the partitions that delivered them."""
    parts = tokens_by_partition(command.tokens, len(router.partitions))
    calls = [router.call(p, replace(command, tokens=tokens)) for p, tokens in parts.items()]
    answers = await together(calls or [router.call_home(command, command.entity)])
    replies = [one.reply for one in answers if isinstance(one.reply, Renewed)]
    failures = tuple(failure for reply in replies for failure in reply.failures)
    return Renewed(min(reply.locked_until_ms for reply in replies), failures)
