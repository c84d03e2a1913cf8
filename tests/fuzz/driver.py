"""Carries out steps against a broker and judges every answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message

from tests.fuzz.api import METHODS
from tests.fuzz.broker import CALL_S, Fuzzed, Problem
from tests.fuzz.judge import is_given_up, judge_refusal, judge_response
from tests.fuzz.steps import Advance, Call, Calls, GiveUp, Journal, Restart, Step
from tests.server.calls import refusal_of

_WAITING_MAX = 6
_DAY_MS = 86_400_000
_WAIT_S = 600.0  # of real time; in its own time the broker ends every wait
_SHORT_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: a response, or (None) a refusal or nothing."""

    call: Call
    response: Message | None


class Failure(Exception):
    """A step that went wrong, and how."""

    def __init__(self, text: str, call: Call | None) -> None:
        super().__init__(text)
        self.text = text
        self.call = call


class Driver:
    """Takes one step after the other.

    Attributes:
        seen: How often each method ended how.
        calls: How many calls were made.
    """

    def __init__(self, broker: Fuzzed, journal: Journal | None = None) -> None:
        """Drive a broker.

        Args:
            broker: It is open.
            journal: Where the steps are written down; None = nowhere.
        """
        self.broker = broker
        self._journal = journal
        self.seen: Counter[str] = Counter()
        self.calls = 0
        self._waiting: list[tuple[Call, Any]] = []
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        """The fingerprint of every call and how it ended."""
        return self._trace.hexdigest()[:16]

    async def take(self, step: Step) -> list[Outcome]:
        """Carry out a step and return what came of its calls, and of earlier ones that waited.

        Raises:
            Failure: Something happened that must never happen.
        """
        if self._journal is not None:
            self._journal.note(step)
        calls = step.calls if isinstance(step, Calls) else ()
        try:
            outcomes = await self._carry_out(step)
        except Problem as problem:
            why = f"\n{problem.__cause__!r}" if problem.__cause__ is not None else ""
            raise Failure(f"{problem}{why}", calls[0] if calls else None) from problem
        is_idle = len(outcomes) == len(calls) and not any(o.response is not None for o in outcomes)
        if self._journal is not None and calls and is_idle:
            self._journal.note_idle()
        return outcomes

    async def _carry_out(self, step: Step) -> list[Outcome]:
        match step:
            case Calls(calls):
                return await self._call(calls)
            case Advance(span_ms):
                await self.broker.advance(span_ms)
                return await self._settled()
            case GiveUp():
                return await self._give_up()
            case Restart():
                outcomes = await self.end_waits()
                await self.broker.restart()
                return outcomes

    async def check(self) -> None:
        """Look at the broker as a whole.

        Raises:
            Failure: It is not well.
        """
        try:
            self.broker.check()
        except Problem as problem:
            raise Failure(str(problem), None) from problem

    async def end_waits(self) -> list[Outcome]:
        """Let time go on until no call waits any more."""
        if not self._waiting:
            return []
        await self.broker.advance(_DAY_MS + 1)
        outcomes = await self._settled()
        if self._waiting:
            raise Problem(f"{self._waiting[0][0].path} waits for longer than a day")
        return outcomes

    async def _call(self, calls: tuple[Call, ...]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while len(self._waiting) + len(calls) > _WAITING_MAX and self._waiting:
            outcomes += await self._give_up()
        made = await self.broker.together([partial(self._send, call) for call in calls])
        sent = list(zip(calls, made, strict=True))
        self._waiting += [(c, rpc) for c, rpc in sent if METHODS[c.path].may_wait]
        for call, rpc in sent:
            if not METHODS[call.path].may_wait:
                outcomes.append(await self._outcome(call, rpc))
        return outcomes + await self._settled()

    def _send(self, call: Call) -> Any:
        self.calls += 1
        patience_s = CALL_S
        if METHODS[call.path].may_wait:
            patience_s = _SHORT_WAIT_S if self.broker.waits_are_ended else _WAIT_S
        rpc: Any = self.broker.channel.unary_unary(call.path)
        return rpc(call.payload, timeout=patience_s)

    async def _settled(self) -> list[Outcome]:
        """Return what came of the waiting calls that were answered."""
        if self._waiting or not self.broker.waits_are_ended:
            await self.broker.until_waiting([rpc for _, rpc in self._waiting])
        done = [(call, rpc) for call, rpc in self._waiting if rpc.done()]
        self._waiting = [(call, rpc) for call, rpc in self._waiting if not rpc.done()]
        return [await self._outcome(call, rpc) for call, rpc in done]

    async def _give_up(self) -> list[Outcome]:
        if self._waiting:
            call, rpc = self._waiting.pop(0)
            rpc.cancel()
            self._count(call, "given up")
        return await self._settled()

    async def _outcome(self, call: Call, rpc: Any) -> Outcome:
        try:
            response: Any = judge_response(call, await rpc)
        except grpc.RpcError as error:
            self._refused(call, error)
            return Outcome(call, None)
        except Problem as problem:
            raise Failure(str(problem), call) from problem
        fields = response.DESCRIPTOR.fields_by_name
        is_empty = "messages" in fields and not response.messages
        has_failures = "failures" in fields and response.failures
        more = " without messages" if is_empty else " with failures" if has_failures else ""
        self._count(call, f"OK{more}")
        return Outcome(call, response)

    def _refused(self, call: Call, error: grpc.RpcError) -> None:
        refusal = refusal_of(error)
        may_give_up = self.broker.waits_are_ended and METHODS[call.path].may_wait
        if not refusal.reason and may_give_up and is_given_up(refusal.code):
            self._count(call, "given up")
            return
        self._count(call, refusal.reason or refusal.code.name)
        try:
            judge_refusal(call, refusal)
        except Problem as problem:
            raise Failure(str(problem), call) from problem

    def _count(self, call: Call, ending: str) -> None:
        self.seen[f"{call.path.rpartition('/')[2]} {ending}"] += 1
        self._trace.update(f"{call.path} {call.payload.hex()} {ending}\n".encode())
