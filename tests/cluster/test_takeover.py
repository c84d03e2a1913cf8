"""What a client sees when owners stop, crash, or stand still (design section 4, ADD-4, RACE-17)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lockstep import (
    NEXT_AVAILABLE_SESSION,
    DeadLetterJobStatus,
    LockstepClient,
    Message,
)
from lockstep.core.ids import partition_of
from lockstep.v1 import messaging_service_pb2 as messaging
from lockstep.v1.request_pb2 import RequestId
from tests.cluster.command import run_lockstep
from tests.cluster.local import FrontendOfCluster, LocalCluster, OwnerOfCluster, local_cluster
from tests.server import calls
from tests.server.server_process import wait_until
from tests.server.waiting import WaitingCalls

LEASE_MS = 2_000
WAIT_MS = 30_000
Q = "orders"
PLAIN = "plain"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    directory = tmp_path_factory.mktemp("takeover")
    with local_cluster(
        directory, owners=2, frontends=2, partitions=4, lease_ms=LEASE_MS
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: LocalCluster) -> Iterator[LocalCluster]:
    """The same cluster for all tests; each gets it whole and without queues."""
    for process in (*running.owners, *running.frontends):
        if not process.is_running:
            process.start()
    settle(running)
    with client_of(running) as client:
        admin = client.get_administration_client()
        admin.create_queue(Q, requires_session=True)
    yield running
    with client_of(running, 1) as client:
        admin = client.get_administration_client()
        for queue in admin.list_queues():
            admin.delete_queue(queue.name)


def client_of(cluster: LocalCluster, which: int = 0) -> LockstepClient:
    port = cluster.frontends[which].port
    return LockstepClient(f"127.0.0.1:{port}")


def settle(cluster: LocalCluster) -> None:
    """Wait until every partition is open where it is to be."""
    running = [owner.directory.name for owner in cluster.owners if owner.is_running]

    def is_settled() -> bool:
        status = cluster.status()
        owners = {claim["node"] for claim in status["partitions"]}
        return not status["without_owner"] and owners == set(running) and cluster.is_ready()

    wait_until(is_settled, "the partitions are shared out", within_ms=WAIT_MS)


def send(client: LockstepClient, session: str, *bodies: str) -> list[int]:
    sender = client.get_queue_sender(Q)
    return list(sender.send_messages([Message(body, session_id=session) for body in bodies]))


def home(cluster: LocalCluster, number: int) -> OwnerOfCluster:
    return cluster.owner_of(partition_of(number))


def other(cluster: LocalCluster, owner: OwnerOfCluster) -> OwnerOfCluster:
    return next(one for one in cluster.owners if one is not owner)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_race_17_a_holder_goes_on_when_its_owner_ends(cluster: LocalCluster, how: str) -> None:
    with client_of(cluster) as client, client_of(cluster, 1) as second:
        numbers = send(client, "s", "1", "2", "3")
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            receiver.session.set_state(b"half way")
            (first,) = receiver.receive_messages(max_message_count=1)
            gone = home(cluster, numbers[0])

            gone.kill() if how == "kill" else gone.stop()

            receiver.complete_message(first)
            assert receiver.session.get_state() == b"half way"
            rest = receiver.receive_messages(max_message_count=5)
            assert [(str(one), one.delivery_count) for one in rest] == [("2", 0), ("3", 0)]
            assert send(second, "s", "4")
            receiver.complete_messages(rest)
            assert [str(one) for one in receiver.receive_messages()] == ["4"]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_stream_goes_on_when_its_owner_ends(cluster: LocalCluster, how: str) -> None:
    with client_of(cluster) as client, client_of(cluster, 1) as second:
        numbers = send(second, "s", "1", "2")
        with client.open_stream(Q, session_id="s") as stream:
            first = stream.receive_message()
            gone = home(cluster, numbers[0])

            gone.kill() if how == "kill" else gone.stop()

            send(second, "s", "3")
            seen = [first, stream.receive_message(), stream.receive_message()]
            assert [(str(one), one.delivery_count) for one in seen if one is not None] == [
                ("1", 0),
                ("2", 0),
                ("3", 0),
            ]
            for one in seen:
                assert one is not None
                stream.complete_message(one)
        with client.get_queue_receiver(Q, session_id="s", max_wait_time=0) as receiver:
            assert receiver.receive_messages() == []


def test_a_planned_stop_is_seen_by_nobody(cluster: LocalCluster) -> None:
    """Sends and settlements while an owner leaves: each succeeds, each message comes once, in order."""
    with client_of(cluster) as client:
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            first = send(client, "s", "0")
            leaving = home(cluster, first[0])
            seen: list[str] = []
            leaving.terminate()
            for number in range(1, 60):
                send(client, "s", str(number))
                for message in receiver.receive_messages(max_message_count=10):
                    seen.append(str(message))
                    receiver.complete_message(message)
            assert leaving.wait() == 0, leaving.log()
        assert seen == [str(number) for number in range(60)]
        outcomes = {e["step"]: e["outcome"] for e in leaving.events("shutdown.step_ended")}
        assert set(outcomes.values()) == {"done"}


def test_a_zombie_can_neither_write_nor_answer(cluster: LocalCluster) -> None:
    with client_of(cluster) as client, client_of(cluster, 1) as second:
        numbers = send(client, "s", "1")
        zombie = home(cluster, numbers[0])
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            (message,) = receiver.receive_messages()

            zombie.pause()
            try:
                # Answered by its successor, once the lease is over; with the same token (RACE-17).
                receiver.complete_message(message)
                send(second, "s", "2")
                assert home(cluster, numbers[0]) is other(cluster, zombie)
            finally:
                zombie.go_on()
            assert [str(one) for one in receiver.receive_messages()] == ["2"]
        wait_until(zombie.is_ready, "the zombie takes part again", within_ms=WAIT_MS)
        lost = {event["reason"] for event in zombie.events("partition.lost")}
        assert lost <= {"PARTITION_MOVED", "FENCED", "STORE_UNAVAILABLE"}


# --- a front end that stops ------------------------------------------------------------------------


def test_a_front_end_that_stops_sends_away_who_waits(cluster: LocalCluster) -> None:
    stopping = cluster.frontends[0]
    calls.create(stopping.stubs, PLAIN)

    with WaitingCalls(stopping.stubs, sessions=Q, plain=PLAIN) as waiting:
        stopping.terminate()

        refusals = {(one.code, one.reason) for one in waiting.refusals()}
    assert refusals == {(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")}
    assert stopping.wait() == 0
    outcomes = {e["step"]: e["outcome"] for e in stopping.events("shutdown.step_ended")}
    assert set(outcomes.values()) == {"done"}
    assert "Traceback" not in stopping.log()


@pytest.mark.parametrize("kind", ["receiver", "stream", "next session"])
def test_who_waited_at_a_front_end_that_stops_waits_at_another_one(
    cluster: LocalCluster, kind: str
) -> None:
    stopping, staying = cluster.frontends
    calls.create(stopping.stubs, PLAIN)
    both = f"ipv4:127.0.0.1:{stopping.port},127.0.0.1:{staying.port}"
    begun = threading.Event()

    def wait() -> str:
        with LockstepClient(both) as client:
            if kind == "stream":
                with client.open_stream(PLAIN) as stream:
                    begun.set()
                    message = stream.receive_message(max_wait_time=30)
                    assert message is not None
                    return str(message)
            wanted = NEXT_AVAILABLE_SESSION if kind == "next session" else None
            queue = Q if kind == "next session" else PLAIN
            receiver = client.get_queue_receiver(queue, session_id=wanted, max_wait_time=30)
            client.get_administration_client().get_queue(queue)  # over the same connection
            begun.set()
            with receiver:
                return str(receiver.receive_messages(max_wait_time=30)[0])

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert begun.wait(30)
        stopping.stop()
        with client_of(cluster, 1) as second:
            second.get_queue_sender(PLAIN).send_messages([Message("found")])
            send(second, "s", "found")

        assert waiting.result(60) == "found"


def test_accept_next_finds_what_comes_anywhere(cluster: LocalCluster) -> None:
    """A receiver waits at one front end; sessions come on every partition, through another one."""
    with client_of(cluster) as client, client_of(cluster, 1) as second:
        names = {f"s{n}" for n in range(12)}
        for name in sorted(names):
            send(second, name, "x")
        found: set[str] = set()
        for _ in names:
            with client.get_queue_receiver(Q, session_id=NEXT_AVAILABLE_SESSION) as receiver:
                found.add(receiver.session.session_id)
                receiver.complete_messages(receiver.receive_messages())
        assert found == names


def test_add_12_etcd_without_its_data_loses_nothing(cluster: LocalCluster) -> None:
    with client_of(cluster) as client:
        send(client, "s", "1")

        cluster.etcd.stop()
        cluster.etcd.forget()
        cluster.etcd.start()
        dsn = cluster.dsn
        done = run_lockstep("cluster", "next-generation", "--postgres", dsn)
        assert done.returncode == 0, done.stderr
        assert "cluster.generation_raised" not in done.stdout + done.stderr

        settle(cluster)
        assert send(client, "s", "2")
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            assert [str(one) for one in receiver.receive_messages(max_message_count=5)] == [
                "1",
                "2",
            ]


def test_an_outage_of_etcd_longer_than_the_lease_is_named(cluster: LocalCluster) -> None:
    """By owners and in answers; front ends stay in service, because they know whom to ask."""
    frontend = cluster.frontends[0]
    cluster.etcd.stop()
    try:
        for owner in cluster.owners:
            wait_until(
                lambda owner=owner: "has no lease" in owner.http("health", "/readyz")[1],  # type: ignore[misc]
                "it knows",
                within_ms=WAIT_MS,
            )
        assert frontend.http("health", "/readyz")[0] == 200
        refusal = calls.refused(
            frontend.stubs.messaging.SendMessages,
            calls.send_request(Q, b"x", session="s", request_id=calls.Ids("one").next()),
        )
        reasons = {"reason": "CLUSTER_UNAVAILABLE"}
        retries = metric_of(frontend, "lockstep_frontend_routing_retries_total", reasons)
        broken = metric_of(frontend, "lockstep_etcd_errors_total", {"op": "watch"})
    finally:
        cluster.etcd.start()
    assert refusal.reason == "CLUSTER_UNAVAILABLE"
    assert "no lease at etcd" in refusal.text
    assert retries > 0
    assert broken > 0
    settle(cluster)
    with client_of(cluster) as client:
        assert send(client, "s", "2")


def metric_of(frontend: FrontendOfCluster, name: str, labels: dict[str, str]) -> float:
    """Return one series that a front end shows."""
    page = frontend.http("metrics", "/metrics")[1]
    return next(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )


def test_add_3_a_retry_through_another_front_end_gets_what_the_first_try_got(
    cluster: LocalCluster,
) -> None:
    with client_of(cluster) as client:
        for number in range(8):
            send(client, f"s{number}", "x")
    request = messaging.AcceptSessionRequest(
        entity=Q, request_id=RequestId(client_id="one", counter=1)
    )
    first, second = (frontend.stubs.messaging for frontend in cluster.frontends)
    granted = first.AcceptSession(request)

    request.request_id.attempt = 1
    again = second.AcceptSession(request)

    assert again.session == granted.session
    held = run_lockstep(
        "sessions", "list", Q, "--filter", "held", "--json",
        server=f"127.0.0.1:{cluster.frontends[0].port}",
    )  # fmt: skip
    assert granted.session.session_id in held.stdout
    assert held.stdout.count('"session_id"') == 1


def test_add_11_a_move_between_partitions_survives_its_owners(cluster: LocalCluster) -> None:
    """Dead letters of all partitions go to one queue; owners are killed on the way; each arrives once (RSB-2)."""
    sessions, each = 12, 50
    with client_of(cluster) as client:
        admin = client.get_administration_client()
        admin.create_queue("parked")
        for session in range(sessions):
            send(client, f"s{session}", *(f"{session}-{number}" for number in range(each)))
            admin.dead_letter_session(Q, f"s{session}", reason="stuck")
        wait_until(
            lambda: (
                admin.get_queue_runtime_properties(Q).dead_letter_message_count == sessions * each
            ),
            "all are dead letters",
            within_ms=WAIT_MS,
        )

        job = admin.move_dead_letters(Q, "parked", messages_per_second=600)
        for owner in cluster.owners:
            owner.kill()
            owner.start()
            settle(cluster)

        def has_ended() -> bool:
            return not admin.get_dead_letter_job(Q, job.number).is_running

        wait_until(has_ended, "the move has ended", within_ms=WAIT_MS)
        moved = admin.get_dead_letter_job(Q, job.number)
        assert (moved.status, moved.matched_message_count, moved.error) == (
            DeadLetterJobStatus.DONE,
            sessions * each,
            "",
        )
        assert admin.get_queue_runtime_properties(Q).dead_letter_message_count == 0
        with client.get_queue_receiver("parked", max_wait_time=0) as receiver:
            seen: list[str] = []
            while got := receiver.receive_messages(max_message_count=1000):
                seen += map(str, got)
                receiver.complete_messages(got)
        wanted = [f"{s}-{number}" for s in range(sessions) for number in range(each)]
        assert sorted(seen) == sorted(wanted)
        admin.delete_queue("parked")


def test_an_owner_with_another_database_ends_and_takes_nothing(cluster: LocalCluster) -> None:
    """It would serve its partitions empty, and what was acknowledged would be gone."""
    stranger = cluster._owner("stranger")
    other_database = cluster.postgres.make_database("stranger")
    stranger.set_environment({"LOCKSTEP_CLUSTER__POSTGRES_DSNS": other_database})
    with client_of(cluster) as client:
        numbers = send(client, "s", "1", "2")
        try:
            stranger.launch()
            assert stranger.wait() != 0
            assert "another cluster" in stranger.log()
        finally:
            stranger.close()
        assert home(cluster, numbers[0]).is_running
        with client.get_queue_receiver(Q, session_id="s") as receiver:
            got = receiver.receive_messages(max_message_count=5)
            assert [str(one) for one in got] == ["1", "2"]
            receiver.complete_messages(got)
