"""The connection to etcd: its calls, as the protocols in `registry` say, over all its endpoints.

Here belong the calls and their time limits; aetcd gives the messages and stubs. Its own client is not used:
that opens one plaintext channel to one endpoint. Never here: which endpoint, and who we are (`endpoints`),
what keys mean (`keys`), what to do about a change. The laws: every call has a time limit and is made again
at the other endpoints; what leaves this module as an error is ClusterUnavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from aetcd import rpc

from lockstep.cluster.endpoints import (
    ELSEWHERE,
    Endpoints,
    EtcdSettings,
    open_aio_channel,
    open_channel,
)
from lockstep.cluster.registry import (
    KeyChange,
    KeyValue,
    Listing,
    RevisionCompacted,
    WatchBatch,
)
from lockstep.core.errors import ClusterUnavailable

_Code = grpc.StatusCode


class _Link:
    """One endpoint with its channel, asyncio or blocking."""

    def __init__(self, endpoint: str, channel: Any) -> None:
        self.endpoint = endpoint
        self.channel = channel
        self.kv = rpc.KVStub(channel)
        self.auth = rpc.AuthStub(channel)
        self.lease = rpc.LeaseStub(channel)
        self.watch = rpc.WatchStub(channel)
        # As etcd sees it, a stream of one renewal; as a plain call it needs no thread for its requests.
        self.keep_alive = channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )


def _range_end(prefix: str) -> bytes:
    """Return the first key after all that begin with a prefix."""
    key = prefix.encode()
    return key[:-1] + bytes([key[-1] + 1])


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(
        key=kv.key.decode(errors="replace"),
        value=kv.value,
        lease=kv.lease,
        create_revision=kv.create_revision,
        mod_revision=kv.mod_revision,
    )


class EtcdClient:
    """A `Registry` in etcd; for one event loop."""

    def __init__(self, settings: EtcdSettings) -> None:
        """Read the files of TLS; nothing is connected yet.

        Raises:
            InvalidRequest: A setting is wrong, or a file cannot be read.
        """
        self._links = Endpoints(settings, open_aio_channel, _Link)
        self._timeout_s = settings.call_timeout_ms / 1000

    async def close(self) -> None:
        """Let go of all connections."""
        for channel in self._links.take_all():
            await channel.close()

    # --- keys ------------------------------------------------------------------------------------

    async def list_prefix(self, prefix: str) -> Listing:
        """As `Registry` says."""
        request = rpc.RangeRequest(key=prefix.encode(), range_end=_range_end(prefix))
        answer = await self._call(lambda link: link.kv.Range, request)
        return Listing(answer.header.revision, tuple(_key_value(kv) for kv in answer.kvs))

    async def lease_time(self, lease: int) -> tuple[int, int]:
        """Return how long a lease lives on without a renewal, and after one, in ms; etcd counts whole seconds.

        The first is negative when the lease is gone.
        """
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        answer = await self._call(lambda link: link.lease.LeaseTimeToLive, request)
        return answer.TTL * 1000, answer.grantedTTL * 1000

    async def create(
        self, key: str, value: bytes, *, lease: int, while_leased: str | None = None
    ) -> KeyValue | None:
        """As `Registry` says."""
        name = key.encode()
        conditions = [
            rpc.Compare(key=name, target="CREATE", result=rpc.Compare.EQUAL, create_revision=0)
        ]
        if while_leased is not None:
            conditions.append(_leased(while_leased, lease))
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=name, value=value, lease=lease))
        look = rpc.RequestOp(request_range=rpc.RangeRequest(key=name))
        answer = await self._transact(conditions, [put], [look])
        if answer is None:
            return None
        if answer.succeeded:
            revision = answer.header.revision
            return KeyValue(key, value, lease, revision, revision)
        found = answer.responses[0].response_range.kvs
        return _key_value(found[0]) if found else None

    async def replace(self, key: str, value: bytes, *, lease: int) -> bool:
        """As `Registry` says."""
        put = rpc.PutRequest(key=key.encode(), value=value, lease=lease)
        answer = await self._transact([_leased(key, lease)], [rpc.RequestOp(request_put=put)], [])
        return answer is not None and bool(answer.succeeded)

    async def delete(self, key: str, *, create_revision: int) -> bool:
        """As `Registry` says."""
        is_the_one = rpc.Compare(
            key=key.encode(),
            target="CREATE",
            result=rpc.Compare.EQUAL,
            create_revision=create_revision,
        )
        delete = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key.encode()))
        answer = await self._transact([is_the_one], [delete], [])
        return answer is not None and bool(answer.succeeded)

    async def _transact(self, conditions: list[Any], then: list[Any], other: list[Any]) -> Any:
        """Return the outcome of a transaction; None when its lease is gone."""
        request = rpc.TxnRequest(compare=conditions, success=then, failure=other)
        try:
            return await self._call(lambda link: link.kv.Txn, request)
        except _LeaseGone:
            return None

    # --- watch -----------------------------------------------------------------------------------

    async def watch(
        self, prefix: str, *, after_revision: int, for_ms: int
    ) -> AsyncGenerator[WatchBatch]:
        """As `Registry` says."""
        links = self._links
        link = links.link()
        used = links.token
        call = None
        ends_s = asyncio.get_running_loop().time() + for_ms / 1000
        try:
            await self._have_token(link)
            used = links.token
            # A member that has lost its leader ends the stream, instead of keeping silent
            # (clientv3.WithRequireLeader).
            call = link.watch.Watch(metadata=(*links.metadata, ("hasleader", "true")))
            yield await self._begin(link, call, prefix, after_revision)
            while (response := await _read_until(call, ends_s)) is not None:
                yield self._batch(link, response)
        except grpc.aio.AioRpcError as error:
            links.may_need_another_token(error, used)
            raise links.problem(link, error) from error
        finally:
            if call is not None:
                call.cancel()

    async def _begin(self, link: _Link, call: Any, prefix: str, after_revision: int) -> WatchBatch:
        try:
            async with asyncio.timeout(self._timeout_s):
                await call.write(_watch_request(prefix, after_revision))
                response = await call.read()
        except TimeoutError as error:
            self._links.turn_from(link)
            raise self._links.problem_of(
                link, _Code.DEADLINE_EXCEEDED, f"no watch in {self._timeout_s} s"
            ) from error
        if response is grpc.aio.EOF:
            raise self._links.problem_of(link, _Code.UNAVAILABLE, "the watch was closed")
        return self._batch(link, response)

    def _batch(self, link: _Link, response: Any) -> WatchBatch:
        if response.compact_revision:
            raise RevisionCompacted(
                f"etcd remembers changes from revision {response.compact_revision} on only. List the keys again."
            )
        if response.canceled:
            # A token that has run out is told of in the same way as a missing permission.
            self._links.token = None
            raise self._links.problem_of(link, _Code.PERMISSION_DENIED, response.cancel_reason)
        return WatchBatch(
            response.header.revision, tuple(_change(event) for event in response.events)
        )

    # --- calls -----------------------------------------------------------------------------------

    async def _call(self, method: Callable[[_Link], Any], request: Any) -> Any:
        """Make a call, at the next endpoints too when one does not answer."""
        links = self._links
        problem: ClusterUnavailable | None = None
        for _ in links.settings.endpoints:
            link = links.link()
            try:
                return await self._attempt(link, method(link), request)
            except grpc.aio.AioRpcError as error:
                problem = links.problem(link, error)
                if error.code() is _Code.NOT_FOUND:
                    raise _LeaseGone from error
                if error.code() not in ELSEWHERE:
                    raise problem from error
        assert problem is not None
        raise problem

    async def _attempt(self, link: _Link, call: Callable[..., Awaitable[Any]], request: Any) -> Any:
        links = self._links
        await self._have_token(link)
        used = links.token
        try:
            return await call(request, timeout=self._timeout_s, metadata=links.metadata)
        except grpc.aio.AioRpcError as error:
            if not links.may_need_another_token(error, used):
                raise
        await self._have_token(link)
        return await call(request, timeout=self._timeout_s, metadata=links.metadata)

    async def _have_token(self, link: _Link) -> None:
        links = self._links
        if links.needs_token():
            request = _authenticate_request(links.settings)
            answer = await link.auth.Authenticate(request, timeout=self._timeout_s)
            links.token = answer.token


class EtcdLeases:
    """The calls of a lease, blocking, on connections of their own; for one thread."""

    def __init__(self, settings: EtcdSettings) -> None:
        """Read the files of TLS; nothing is connected yet.

        Raises:
            InvalidRequest: A setting is wrong, or a file cannot be read.
        """
        self._links = Endpoints(settings, open_channel, _Link)

    def close(self) -> None:
        """Let go of all connections."""
        for channel in self._links.take_all():
            channel.close()

    def grant(self, ttl_ms: int, *, timeout_ms: int) -> tuple[int, int]:
        """As `LeaseCalls` says."""
        request = rpc.LeaseGrantRequest(TTL=-(-ttl_ms // 1000))
        answer = self._call(lambda link: link.lease.LeaseGrant, request, timeout_ms)
        return answer.ID, answer.TTL * 1000

    def keep_alive(self, lease: int, *, timeout_ms: int) -> int:
        """As `LeaseCalls` says."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)
        answer = self._call(lambda link: link.keep_alive, request, timeout_ms)
        return max(int(answer.TTL), 0) * 1000

    def revoke(self, lease: int, *, timeout_ms: int) -> None:
        """As `LeaseCalls` says."""
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            self._call(lambda link: link.lease.LeaseRevoke, request, timeout_ms)
        except _LeaseGone:
            return

    def _call(self, method: Callable[[_Link], Any], request: Any, timeout_ms: int) -> Any:
        """Make a call, at the next endpoints too when one does not answer."""
        links = self._links
        problem: ClusterUnavailable | None = None
        for _ in links.settings.endpoints:
            link = links.link()
            try:
                return self._attempt(link, method(link), request, timeout_ms / 1000)
            except grpc.RpcError as error:
                answer: Any = (
                    error  # what a call raises has a code, though its type does not say so
                )
                problem = links.problem(link, answer)
                if answer.code() is _Code.NOT_FOUND:
                    raise _LeaseGone from error
                if answer.code() not in ELSEWHERE:
                    raise problem from error
        assert problem is not None
        raise problem

    def _attempt(
        self, link: _Link, call: Callable[..., Any], request: Any, timeout_s: float
    ) -> Any:
        links = self._links
        self._have_token(link, timeout_s)
        used = links.token
        try:
            return call(request, timeout=timeout_s, metadata=links.metadata)
        except grpc.RpcError as error:
            if not links.may_need_another_token(error, used):
                raise
        self._have_token(link, timeout_s)
        return call(request, timeout=timeout_s, metadata=links.metadata)

    def _have_token(self, link: _Link, timeout_s: float) -> None:
        links = self._links
        if links.needs_token():
            request = _authenticate_request(links.settings)
            links.token = link.auth.Authenticate(request, timeout=timeout_s).token


class _LeaseGone(Exception):
    """etcd does not know the lease any more."""


def _authenticate_request(settings: EtcdSettings) -> Any:
    return rpc.AuthenticateRequest(name=settings.user, password=settings.password)


async def _read_until(call: Any, ends_s: float) -> Any:
    """Return the next response of a watch; None when it is closed, or its time on the loop's clock is over."""
    try:
        async with asyncio.timeout_at(ends_s):
            response = await call.read()
    except TimeoutError:
        return None
    return None if response is grpc.aio.EOF else response


def _leased(key: str, lease: int) -> Any:
    return rpc.Compare(key=key.encode(), target="LEASE", result=rpc.Compare.EQUAL, lease=lease)


def _watch_request(prefix: str, after_revision: int) -> Any:
    create = rpc.WatchCreateRequest(
        key=prefix.encode(), range_end=_range_end(prefix), start_revision=after_revision + 1
    )
    return rpc.WatchRequest(create_request=create)


def _change(event: Any) -> KeyChange:
    now = None if event.type == rpc.Event.DELETE else _key_value(event.kv)
    return KeyChange(event.kv.key.decode(errors="replace"), event.kv.mod_revision, now)
