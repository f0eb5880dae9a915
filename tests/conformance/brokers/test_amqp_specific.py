"""What the RabbitMQ driver promises beyond the contract: quorum queues, dead-letter exchanges, confirms, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid

import pytest
import uvloop

from celery import Celery, exceptions
from celery.brokers.amqp import Receiver, Sender, frames, messages
from celery.brokers.amqp.address import read
from celery.brokers.amqp.blocking import Link
from celery.brokers.base import Publish, ResultWrite, Settlement, Verdict
from celery.brokers.topology import Exchange, Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("rabbitmq")

QUORUM = {"x-queue-type": "quorum"}


def message(name="id", **properties):
    return Envelope({"task": "w.add", "id": name}, b"[[], {}, {}]", properties={"delivery_mode": 2} | properties)


@pytest.fixture
def sender(rabbitmq_url):
    with contextlib.closing(Sender(rabbitmq_url, {})) as sender:
        yield sender


@pytest.fixture
def queue(sender):
    queue = Queue(f"q-{uuid.uuid4()}")
    sender.declare([queue])
    return queue


def send(sender, queue, *names, confirm=True, **properties):
    sender.publish([Publish(message(name, **properties), "", queue.name) for name in names], confirm=confirm)


@contextlib.asynccontextmanager
async def receiver_of(url, *queues, prefetch=None, **options):
    receiver = Receiver(url, options, node="w1@host")
    await receiver.open()
    try:
        if prefetch is not None:
            await receiver.prefetch(prefetch)
        for queue in queues:
            await receiver.consume(queue)
        yield receiver
    finally:
        await receiver.close()


async def take(receiver, count, within=10):
    taken = []
    async with asyncio.timeout(within):
        while len(taken) < count:
            taken += await receiver.receive(count - len(taken))
    return taken


async def settle(receiver, deliveries, verdict=Verdict.ACK, **fields):
    return await receiver.settle([Settlement(one, verdict, **fields) for one in deliveries])


def ids(deliveries):
    return [one.envelope.headers["id"] for one in deliveries]


# -- consuming ---------------------------------------------------------------------------------------------------------


async def test_prefetch_bounds_what_is_in_our_hands_and_can_grow(rabbitmq_url, sender, queue):
    send(sender, queue, *"abcd")
    async with receiver_of(rabbitmq_url, queue, prefetch=2) as receiver:
        held = await take(receiver, 2)
        with pytest.raises(TimeoutError):
            await take(receiver, 1, within=0.2)
        await receiver.prefetch(3)
        held += await take(receiver, 1)
        await settle(receiver, held[1:2])
        assert ids(await take(receiver, 1)) == ["d"]
        assert ids(held) == ["a", "b", "c"]


async def test_what_is_acknowledged_behind_a_running_task_does_not_wait_for_its_end(rabbitmq_url, sender, queue):
    send(sender, queue, *(str(number) for number in range(65)))
    async with receiver_of(rabbitmq_url, queue, prefetch=64) as receiver:
        held = await take(receiver, 64)
        await settle(receiver, held[1:3])
        assert len(await settle(receiver, held[1:3])) == 2
        assert ids(await take(receiver, 1)) == ["64"]


def test_a_receiver_runs_on_uvloop_too(rabbitmq_url, sender, queue):
    send(sender, queue, "a")

    async def scenario():
        async with receiver_of(rabbitmq_url, queue) as receiver:
            await settle(receiver, await take(receiver, 1), Verdict.REQUEUE)
            (again,) = await take(receiver, 1)
            assert ids([again]) == ["a"]
            assert await settle(receiver, [again]) == []

    uvloop.run(scenario())
    assert sender.length(queue.name) == 0


async def test_acknowledging_around_a_running_task_keeps_it(rabbitmq_url, sender, queue):
    send(sender, queue, *"abcdef")
    async with receiver_of(rabbitmq_url, queue) as receiver:
        taken = await take(receiver, 6)
        await settle(receiver, [taken[0], taken[1], taken[3], taken[5]])
        await settle(receiver, [taken[4]])
    async with receiver_of(rabbitmq_url, queue) as receiver:
        (again,) = await take(receiver, 1)
        assert (ids([again]), again.redelivered) == (["c"], True)


async def test_many_are_taken_from_one_queue_and_few_of_two(rabbitmq_url, sender, queue):
    """Many are the consumer's own limit, few and those of several queues are shared."""
    second = Queue(f"q-{uuid.uuid4()}")
    sender.declare([second])
    send(sender, queue, *map(str, range(700)))
    async with receiver_of(rabbitmq_url, queue, prefetch=1) as receiver:

        async def hands_are_full():
            with pytest.raises(TimeoutError):
                await take(receiver, 1, within=0.3)

        held = await take(receiver, 1)
        await receiver.prefetch(256)
        held += await take(receiver, 256)
        await hands_are_full()
        await settle(receiver, held)
        held = await take(receiver, 256)
        await hands_are_full()
        await receiver.prefetch(10)
        await settle(receiver, held[5:])
        held = held[:5] + await take(receiver, 5)
        await hands_are_full()
        await receiver.prefetch(256)
        await receiver.consume(second)
        send(sender, second, *map(str, range(400)))
        held += await take(receiver, 246)
        await hands_are_full()
        await settle(receiver, held)
        assert len(await take(receiver, 256)) == 256
        await hands_are_full()


async def test_a_queue_that_goes_with_its_last_consumer_outlives_a_new_limit(rabbitmq_url, sender):
    queue = Queue(f"q-{uuid.uuid4()}", auto_delete=True)
    sender.declare([queue])
    send(sender, queue, "a")
    async with receiver_of(rabbitmq_url, queue, prefetch=1) as receiver:
        await receiver.prefetch(512)
        assert ids(await take(receiver, 1)) == ["a"]


async def test_quorum_queues_limit_each_consumer_and_count_what_is_lost(rabbitmq_url, sender):
    queue = Queue(f"q-{uuid.uuid4()}", queue_arguments=QUORUM)
    classic = Queue(f"q-{uuid.uuid4()}")
    sender.declare([queue, classic])
    send(sender, queue, *"abc")
    send(sender, classic, *"xyz")
    async with receiver_of(rabbitmq_url, queue, classic, prefetch=1) as receiver:
        held = await take(receiver, 2)
        assert sorted(ids(held)) == ["a", "x"]
        await receiver.prefetch(2)
        await settle(receiver, held)
        assert sorted(ids(await take(receiver, 4))) == ["b", "c", "y", "z"]
    async with receiver_of(rabbitmq_url, queue) as receiver:
        first, second = await take(receiver, 2)
        failures = first.failures
        await settle(receiver, [first], Verdict.LOST)
        (again,) = await take(receiver, 1)
        assert (ids([again]), again.failures) == (ids([first]), failures + 1)
        await settle(receiver, [again, second])


async def test_a_new_limit_leaves_ended_what_ends_meanwhile(rabbitmq_url, sender):
    """Quorum queues are consumed anew for a limit, which is changed by a worker that may just be told to stop."""
    first, second = (Queue(f"q-{uuid.uuid4()}", queue_arguments=QUORUM) for _ in range(2))
    async with receiver_of(rabbitmq_url, first, second) as receiver:
        async with asyncio.timeout(10):
            await asyncio.gather(
                receiver.prefetch(2), receiver.cancel(first.name), receiver.cancel(second.name), receiver.prefetch(3)
            )
        send(sender, first, "a")
        send(sender, second, "b")
        assert (sender.length(first.name), sender.length(second.name)) == (1, 1)
        await receiver.consume(second)
        assert ids(await take(receiver, 1)) == ["b"]


async def test_quorum_queues_that_shall_not_be_detected_are_refused_by_name(rabbitmq_url, sender):
    """ROUTE-024: RabbitMQ has no prefetch count for them that is shared."""
    queue = Queue(f"q-{uuid.uuid4()}", queue_arguments=QUORUM)
    async with receiver_of(rabbitmq_url, detect_quorum_queues=False) as receiver:
        with pytest.raises(exceptions.ImproperlyConfigured, match=f"'{queue.name}' .*does not support global qos"):
            await receiver.consume(queue)


async def test_a_queue_that_is_deleted_ends_the_receiver(rabbitmq_url, sender, queue):
    async with receiver_of(rabbitmq_url, queue) as receiver:
        waiting = asyncio.create_task(receiver.receive(1))
        sender._ask("queue.delete", queue=queue.name)
        with pytest.raises(exceptions.OperationalError, match="deleted or moved"):
            await asyncio.wait_for(waiting, 10)


async def test_a_queue_that_may_not_be_declared_has_to_exist(rabbitmq_url, queue):
    async with receiver_of(rabbitmq_url) as receiver:
        with pytest.raises(exceptions.ImproperlyConfigured, match="NOT_FOUND - no queue 'nowhere'"):
            await receiver.consume(Queue("nowhere", no_declare=True))
        await receiver.consume(Queue(queue.name, no_declare=True))


async def test_a_queue_that_differs_is_named_with_the_argument(rabbitmq_url, sender, queue):
    async with receiver_of(rabbitmq_url) as receiver:
        with pytest.raises(exceptions.ImproperlyConfigured, match=f"'x-max-priority' for queue '{queue.name}'"):
            await receiver.consume(Queue(queue.name, max_priority=5))
        await receiver.consume(queue)
        send(sender, queue, "a")
        assert ids(await take(receiver, 1)) == ["a"]


async def test_a_second_node_of_one_name_is_refused_its_mailbox(rabbitmq_url):
    mailbox = Queue(f"{uuid.uuid4()}.pidbox", durable=False, exclusive=True, auto_delete=True)
    async with receiver_of(rabbitmq_url) as first, receiver_of(rabbitmq_url) as second:
        await first.listen(mailbox, lambda _: None)
        with pytest.raises(exceptions.OperationalError, match="RESOURCE_LOCKED"):
            await second.listen(mailbox, lambda _: None)
        assert await second.settle([]) == []


async def test_refused_and_unreadable_messages_go_to_the_dead_letter_exchange(rabbitmq_url, sender, caplog):
    dead = Queue(f"q-{uuid.uuid4()}")
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name}
    queue = Queue(f"q-{uuid.uuid4()}", queue_arguments=arguments)
    sender.declare([queue, dead])
    publish_unreadable(rabbitmq_url, queue.name)
    send(sender, queue, "refused", "kept")
    with caplog.at_level(logging.ERROR):
        async with receiver_of(rabbitmq_url, queue) as receiver:
            refused, kept = await take(receiver, 2)
            await settle(receiver, [refused], Verdict.DEAD, reason="unknown task")
            await settle(receiver, [kept])
    assert "cannot be read" in caplog.text
    deadline = time.monotonic() + 10
    while sender.length(dead.name) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def publish_unreadable(url, queue):
    """Send a message with a header whose name is no text (what the server cannot read itself it refuses)."""
    link = Link(read(url, {}), lambda _: None)
    deadline = link.deadline(5)
    link.ready(deadline)
    number = link.open_channel(deadline)
    table = b"\x01\xffV"
    header = b"\x00\x3c\x00\x00" + bytes(8) + b"\x20\x00" + len(table).to_bytes(4, "big") + table
    publish = frames.publish_frame(number, "", queue, mandatory=False)
    link._socket.sendall(publish + frames.encode_frame(frames.HEADER, number, header))
    link.close_channel(number, deadline)
    link.close()


# -- delays ------------------------------------------------------------------------------------------------------------


async def test_a_producer_sends_through_the_ladder_where_peers_do(rabbitmq_url, sender):
    name = str(uuid.uuid4())
    queue = Queue(f"q-{name}", Exchange(f"x-{name}", "topic"), f"key.{name}", queue_arguments=QUORUM)
    async with receiver_of(rabbitmq_url, queue) as receiver:
        until = time.time() + 1.4
        publish = Publish(
            message("later", expiration="100"), queue.exchange.name, queue.routing_key, queue, until=until
        )
        sender.publish([publish], confirm=True)
        (got,) = await take(receiver, 1)
        assert 0 <= time.time() - until < 3
        assert (got.exchange, got.routing_key) == (messages.LADDER_EXIT, f"key.{name}")
        # A peer retries by sending it to where it came from.
        sender.publish([Publish(message("retry"), got.exchange, got.routing_key)], confirm=True)
        (again,) = await take(receiver, 1)
        assert ids([again]) == ["retry"]
        await settle(receiver, [got, again])


async def test_a_delayed_message_comes_from_its_queue_again_without_traces(rabbitmq_url, sender, queue):
    send(sender, queue, "a", expiration="1200")
    async with receiver_of(rabbitmq_url, queue) as receiver:
        (got,) = await take(receiver, 1)
        until = time.time() + 2.2
        await settle(receiver, [got], Verdict.DELAY, until=until)
        (got,) = await take(receiver, 1)
        assert 0 <= time.time() - until < 3
        assert (got.exchange, got.routing_key, got.failures, got.redelivered) == ("", queue.name, 0, False)
        await settle(receiver, [got], Verdict.REQUEUE)
        (got,) = await take(receiver, 1)
        assert got.redelivered
        assert got.envelope.headers.keys() == {"task", "id"}
        await settle(receiver, [got])


# -- publishing --------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_the_sender_says_so(sender):
    arguments = {"x-overflow": "reject-publish"}
    queue = Queue(f"q-{uuid.uuid4()}", max_length=1, queue_arguments=arguments)
    sender.declare([queue])
    send(sender, queue, "a")
    with pytest.raises(exceptions.OperationalError, match="is the queue full"):
        send(sender, queue, "b")
    sender.purge(queue.name)
    send(sender, queue, "c")


def test_what_no_queue_takes_is_an_error_where_confirmation_is_asked(sender, caplog):
    with pytest.raises(exceptions.OperationalError, match="no queue takes 'nowhere'"):
        sender.publish([Publish(message(), "", "nowhere", mandatory=True)], confirm=True)
    with pytest.raises(exceptions.OperationalError, match="no exchange 'nowhere'"):
        sender.publish([Publish(message(), "nowhere", "k")], confirm=True)
    sender.publish([Publish(message(), "nowhere", "k")])
    deadline = time.monotonic() + 10
    while "refused a message that was sent before: NOT_FOUND" not in caplog.text:
        assert time.monotonic() < deadline
        sender.publish([Publish(message(), "", "nowhere")])


def test_a_header_that_cannot_travel_is_named_and_nothing_is_sent(sender, queue):
    odd = Envelope({"id": "b", "uuid": uuid.UUID(int=0)}, b"")
    with pytest.raises(exceptions.EncodeError, match=f"{queue.name}.*uuid"):
        sender.publish([Publish(message("a"), "", queue.name), Publish(odd, "", queue.name)], confirm=True)
    send(sender, queue, "c")
    assert sender.length(queue.name) == 1


def test_a_refusal_amid_a_large_batch_is_an_error(sender, queue):
    wrong = Publish(message(), "nowhere", "k")
    right = Publish(message(), "", queue.name)
    with pytest.raises(exceptions.OperationalError, match="no exchange 'nowhere'"):
        sender.publish([wrong, *[right] * 5000], confirm=True)
    sender.purge(queue.name)
    sender.publish([right] * 5000, confirm=True)
    assert sender.length(queue.name) == 5000


def test_a_fork_leaves_the_parents_connection_alone(rabbitmq_url, sender, queue):
    send(sender, queue, "parent")
    child = os.fork()
    if child == 0:
        try:
            send(sender, queue, "child")
            sender.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    send(sender, queue, "parent again")
    assert sender.length(queue.name) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [(("guest:guest@", "guest:wrong@"), "ACCESS_REFUSED"), (("/celeriac", "/void"), "vhost void.* not found")],
)
def test_a_refused_login_is_a_matter_of_configuration(rabbitmq_url, change, words):
    url = rabbitmq_url.replace(*change) if change[0] in rabbitmq_url else rabbitmq_url.rpartition("/")[0] + "/void"
    with pytest.raises(exceptions.ImproperlyConfigured, match=words) as raised:
        Sender(url, {}).length("q")
    assert "wrong" not in str(raised.value)

    async def scenario():
        receiver = Receiver(url, {}, node="w1@host")
        with pytest.raises(exceptions.ImproperlyConfigured, match=words):
            await receiver.open()
        await receiver.close()

    asyncio.run(scenario())


# -- the largest message -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_message_that_the_server_finds_too_large_is_an_error_that_says_so_and_the_sender_goes_on(private_rabbitmq):
    server = private_rabbitmq(max_message_size="5000")
    queue = Queue("tasks")

    def of_size(size):
        return Publish(Envelope({"task": "w.add", "id": "x"}, b"x" * size), "", queue.name)

    with contextlib.closing(Sender(server.url, {})) as sender:
        sender.declare([queue])
        with pytest.raises(exceptions.EncodeError, match="5001 .* max size 5000"):
            sender.publish([of_size(5001)], confirm=True)
        for _ in range(2):
            with pytest.raises(exceptions.EncodeError, match=r"'tasks'.* 6000 bytes, .* 5000 .*max_message_size"):
                sender.publish([of_size(1), of_size(6000)], confirm=True)
        assert sender.length(queue.name) == 0
        sender.publish([of_size(5000)], confirm=True)
        assert sender.length(queue.name) == 1


# -- restarts ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_restart_of_the_server_is_an_error_and_loses_nothing(private_rabbitmq):
    server = await asyncio.to_thread(private_rabbitmq)
    sender, queue = Sender(server.url, {}), Queue("tasks")
    sender.declare([queue])
    inbox = sender.inbox(Queue("replies", durable=False, auto_delete=True))
    await asyncio.to_thread(send, sender, queue, "held", "waiting")
    async with receiver_of(server.url, queue, prefetch=1) as receiver:
        (held,) = await take(receiver, 1)
        await asyncio.to_thread(server.kill)
        with pytest.raises(exceptions.OperationalError):
            await asyncio.wait_for(receiver.receive(1), 10)
        with pytest.raises(exceptions.OperationalError):
            await settle(receiver, [held])
    with pytest.raises(exceptions.OperationalError):
        send(sender, queue, "nobody hears")
    with pytest.raises(exceptions.OperationalError):
        inbox.get(5)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(send, sender, queue, "after")
    assert inbox.get(0.1) is None
    sender.publish([Publish(message("reply"), "", "replies")])
    assert inbox.get(10).headers["id"] == "reply"
    async with receiver_of(server.url, queue) as receiver:
        got = await take(receiver, 3)
        assert sorted(ids(got)) == ["after", "held", "waiting"]
        assert await settle(receiver, [held]) == [held]
        assert await settle(receiver, [held], after_start=True) == []
        await settle(receiver, got)
    inbox.close()
    sender.close()


# -- results over rpc --------------------------------------------------------------------------------------------------


async def test_results_for_who_waits_are_sent_before_their_messages_are_let_go(rabbitmq_url, sender, queue):
    with Celery("proj", broker=rabbitmq_url, backend="rpc://", set_as_current=False) as app:
        replies = Queue(f"replies-{uuid.uuid4()}", durable=False, auto_delete=True)
        with contextlib.closing(sender.inbox(replies)) as inbox:
            send(sender, queue, "late", "early", "forgotten")
            receiver = Receiver(rabbitmq_url, {}, node="w1@host")
            assert receiver.share(app.backend)
            await receiver.open()
            await receiver.consume(queue)
            late, early, forgotten = await take(receiver, 3)
            await settle(receiver, [early], Verdict.START)
            record = {"state": "SUCCESS", "payload": b"{}", "reply_to": replies.name}
            settlements = [
                Settlement(late, Verdict.ACK, results=[ResultWrite(task_id="late", **record)]),
                Settlement(early, Verdict.ACK, after_start=True, results=[ResultWrite(task_id="early", **record)]),
                Settlement(forgotten, Verdict.ACK, results=[ResultWrite("x", "SUCCESS", b"{}", reply_to="gone")]),
            ]
            assert await receiver.settle(settlements) == []
            told = [await asyncio.to_thread(inbox.get, 10) for _ in range(2)]
            assert [one.properties["correlation_id"] for one in told] == ["late", "early"]
            await receiver.close()
        assert sender.length(queue.name) == 0


def test_results_that_go_to_another_broker_are_left_to_the_backend(rabbitmq_url):
    elsewhere = rabbitmq_url.replace("127.0.0.1", "localhost")
    with Celery("proj", broker=rabbitmq_url, backend="rpc://", set_as_current=False) as app:
        app.conf.broker_write_url = elsewhere
        assert not Receiver(rabbitmq_url, {}, node="w1@host").share(app.backend)
        assert Receiver(elsewhere, {}, node="w1@host").share(app.backend)
    with Celery("proj", broker=rabbitmq_url, backend="cache+memory://", set_as_current=False) as app:
        assert not Receiver(rabbitmq_url, {}, node="w1@host").share(app.backend)
