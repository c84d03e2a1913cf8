"""What becomes of received messages after they were printed.

Here belong the outcomes, which options go together, and the settling. Never here: receiving, or the texts of options
(`commands.receive`). The law: what cannot be settled as asked is refused before the first message is received.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, assert_never

import typer

from lockstep import QueueReceiver, ReceivedMessage, SettlementFailure
from lockstep.cli.options import wrong_usage
from lockstep.cli.values import format_duration
from lockstep.core.limits import ABANDON_DELAY_MS_MAX, REASON_CHARS_MAX

if TYPE_CHECKING:
    from lockstep import PropertyValue

_DELAY_MAX = timedelta(milliseconds=ABANDON_DELAY_MS_MAX)


class Outcome(Enum):
    """What happens to a message after it was printed."""

    COMPLETE = "completed: removed from the queue"
    ABANDON = "abandoned: given back, delivery count one higher"
    RELEASE = "given back: in place again, delivery count unchanged"
    DEFER = "deferred: received by their numbers only, delivery count one higher"
    DEAD_LETTER = "dead-lettered: moved to the dead-letter queue, delivery count unchanged"
    NOTHING = "removed from the queue as they came"


_AMENDING = (Outcome.ABANDON, Outcome.DEFER, Outcome.DEAD_LETTER)
# After these no receiver is given the message again, so they need not wait for the end of the command.
_TAKING_AWAY = (Outcome.COMPLETE, Outcome.DEAD_LETTER, Outcome.NOTHING)


@dataclass(frozen=True, slots=True)
class Settling:
    """An outcome, and what goes with it.

    Attributes:
        outcome: What happens to the messages.
        delay: After which time abandoned messages may be delivered again; None = at once (ADD-6).
        reason: Why messages are dead-lettered (DLQ-7).
        description: The same in more words.
        properties: Application properties to set on the messages (MSG-8).
    """

    outcome: Outcome
    delay: timedelta | None = None
    reason: str | None = None
    description: str | None = None
    properties: Mapping[str, PropertyValue] = field(default_factory=dict)

    @property
    def takes_away(self) -> bool:
        """Whether messages do not come back to this command, so that they are settled as they come."""
        return self.outcome in _TAKING_AWAY

    @property
    def told(self) -> str:
        """What happened to the messages, in words for people."""
        if self.delay:
            return f"{self.outcome.value}; delivered again after {format_duration(self.delay)}"
        return self.outcome.value


def check(ctx: typer.Context, settling: Settling, *, dead_letter: bool, follow: bool) -> None:
    """Refuse what cannot be done, or means nothing.

    Args:
        ctx: The command.
        settling: What is asked for.
        dead_letter: Whether the messages come from the dead-letter queue.
        follow: Whether the command goes on with whatever comes.

    Raises:
        CommandFailed: With what to write instead.
    """
    complaint = _complaint(settling, dead_letter=dead_letter, follow=follow)
    if complaint is not None:
        raise wrong_usage(ctx, complaint)


def _complaint(settling: Settling, *, dead_letter: bool, follow: bool) -> str | None:
    outcome, delay = settling.outcome, settling.delay
    if outcome is Outcome.DEAD_LETTER and dead_letter:
        return (
            "Dead letters cannot be dead-lettered again (DLQ-3); complete or abandon them, or move them with"
            " `lockstep dlq move`."
        )
    if outcome is Outcome.DEAD_LETTER and not settling.reason:
        return (
            "--dead-letter moves messages to the dead-letter queue and needs --reason; to receive from that"
            " queue, write --dead-letter-queue."
        )
    if outcome is not Outcome.DEAD_LETTER and (
        settling.reason is not None or settling.description is not None
    ):
        return "--reason and --description say why messages are dead-lettered; add --dead-letter."
    if delay is not None and outcome is not Outcome.ABANDON:
        return "--delay says when abandoned messages are delivered again; add --abandon."
    if delay is not None and delay > _DELAY_MAX:
        return f"--delay is at most {format_duration(_DELAY_MAX)}; defer messages for longer with --defer."
    if settling.properties and outcome not in _AMENDING:
        return (
            "--set goes with --abandon, --defer or --dead-letter; other messages stay as they are."
        )
    if follow and outcome not in (Outcome.COMPLETE, Outcome.NOTHING):
        return "--follow completes what it prints: what is given back would come again and again."
    return _too_long(settling)


def _too_long(settling: Settling) -> str | None:
    for name, text in (("--reason", settling.reason), ("--description", settling.description)):
        if text is not None and len(text) > REASON_CHARS_MAX:
            return f"{name} is limited to {REASON_CHARS_MAX} characters; this one has {len(text)}. Shorten it."
    return None


def settle(
    receiver: QueueReceiver, messages: Sequence[ReceivedMessage], settling: Settling
) -> None:
    """Do with printed messages what was asked for.

    Raises:
        LockstepError: A message could not be settled; it will come again.
    """
    if failures := _settle(receiver, messages, settling):
        raise failures[0].error


def _settle(
    receiver: QueueReceiver, messages: Sequence[ReceivedMessage], settling: Settling
) -> list[SettlementFailure]:
    properties = settling.properties or None
    match settling.outcome:
        case Outcome.NOTHING:
            return []
        case Outcome.COMPLETE:
            return receiver.complete_messages(messages)
        case Outcome.RELEASE:
            return receiver.release_messages(messages)
        case Outcome.ABANDON:
            return receiver.abandon_messages(messages, properties=properties, delay=settling.delay)
        case Outcome.DEFER:
            return receiver.defer_messages(messages, properties=properties)
        case Outcome.DEAD_LETTER:
            return receiver.dead_letter_messages(
                messages,
                reason=settling.reason,
                error_description=settling.description,
                properties=properties,
            )
        case _:
            assert_never(settling.outcome)
