"""What the Redis driver promises beyond the contract: the layout that peers read, leases, adoption (wire.md 3, 6)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import textwrap
import time
import uuid

import pytest

from celery import exceptions
from celery.brokers.base import Publish, ResultWrite, Settlement, Verdict
from celery.brokers.redis import Receiver, Sender
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.settling import ResultStore
from celery.brokers.topology import Binding, Exchange, Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("redis")

QUEUE = Queue("tasks")


class Place:
    """A corner of the server: options with a prefix of its own, and a raw connection to look at it."""

    def __init__(self, url):
        self.url = url
        self.prefix = f"test-{uuid.uuid4().hex}:"
        self.options = {"global_keyprefix": self.prefix}
        self.raw = Connection(read(url, {}))
        self.sender = Sender(url, self.options)

    def close(self):
        self.sender.close()
        self.raw.close()

    def call(self, command, key, *arguments):
        return self.raw.call(command, self.prefix + key, *arguments)

    def keys(self):
        return {key.decode().removeprefix(self.prefix) for key in self.raw.call("KEYS", self.prefix + "*")}

    def send(self, *numbers, queue="tasks", **properties):
        self.sender.publish([Publish(message(number, **properties), "", queue) for number in numbers])

    def push(self, text, queue="tasks"):
        self.call("LPUSH", queue, text)

    @contextlib.asynccontextmanager
    async def receiver(self, *queues, node="w1@host", **options):
        receiver = Receiver(self.url, self.options | options, node=node)
        await receiver.open()
        try:
            for queue in queues or (QUEUE,):
                await receiver.consume(queue)
            yield receiver
        finally:
            await receiver.close()


def message(number, **properties):
    headers = {"task": "w.add", "id": str(number)}
    return Envelope(headers, b"[[], {}, null]", properties={"priority": 0, **properties})


def ids(deliveries):
    return [delivery.envelope.headers["id"] for delivery in deliveries]


async def take(receiver, limit=100, within=5.0):
    async with asyncio.timeout(within):
        return await receiver.receive(limit)


async def nothing(receiver, during=0.2):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(during):
            await receiver.receive(10)


def settle(receiver, verdict, *deliveries, **more):
    return receiver.settle([Settlement(delivery, verdict, **more) for delivery in deliveries])


@pytest.fixture
def place(redis_url):
    place = Place(redis_url)
    yield place
    place.close()


def test_a_claimed_message_is_recorded_as_peers_expect_it(place):
    async def run():
        place.send(1)
        [text] = place.call("LRANGE", "tasks", 0, -1)
        async with place.receiver() as receiver:
            [delivery] = await take(receiver)
            [(tag, record)] = pairs(place.call("HGETALL", "unacked"))
            assert record == b"[" + text + b', "", "tasks"]'
            [(indexed, score)] = pairs(place.call("ZRANGE", "unacked_index", 0, -1, "WITHSCORES"))
            assert indexed == tag
            assert abs(float(score) - time.time()) < 5
            assert await settle(receiver, Verdict.ACK, delivery) == []
            assert "unacked" not in place.keys()
        assert place.keys() == set()

    asyncio.run(run())


def pairs(flat):
    return list(zip(flat[::2], flat[1::2], strict=True))


def test_a_copy_sent_twice_has_two_delivery_tags(place):
    place.sender.declare(
        [Queue(name, Exchange("both", "topic"), "a.*") for name in ("one", "two")],
    )
    place.sender.publish([Publish(message(1), "both", "a.b")])
    tags = {json.loads(place.call("LINDEX", name, 0))["properties"]["delivery_tag"] for name in ("one", "two")}
    assert len(tags) == 2


def test_the_smaller_priority_number_is_served_first_and_kept_as_given(place):
    async def run():
        for number in (9, 4, 12, 0):
            place.send(number, priority=number)
        assert {"tasks", "tasks\x06\x163", "tasks\x06\x169"} <= place.keys()
        assert place.sender.length("tasks") == 4
        async with place.receiver() as receiver:
            found = await take(receiver)
        assert ids(found) == ["0", "4", "9", "12"]
        assert found[-1].envelope.properties["priority"] == 12

    asyncio.run(run())


def test_queues_take_turns(place):
    async def run():
        first, second = Queue("first"), Queue("second")
        place.send(1, 2, queue="first")
        place.send(3, 4, queue="second")
        async with place.receiver(first, second) as receiver:
            assert [ids(await take(receiver, 1)) for _ in range(4)] == [["1"], ["3"], ["2"], ["4"]]

    asyncio.run(run())


def test_with_the_priority_strategy_the_first_queue_goes_first(place):
    async def run():
        place.send(1, 2, queue="first")
        place.send(3, queue="second")
        async with place.receiver(Queue("first"), Queue("second"), queue_order_strategy="priority") as receiver:
            assert [ids(await take(receiver, 1)) for _ in range(3)] == [["1"], ["2"], ["3"]]

    asyncio.run(run())


def test_an_unknown_strategy_is_refused_by_name():
    with pytest.raises(exceptions.ImproperlyConfigured, match="'random'"):
        Receiver("redis://", {"queue_order_strategy": "random"}, node="w")


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: wire.pop("content-encoding"),
        lambda wire: wire.pop("content-type"),
        lambda wire: wire["properties"].pop("delivery_info"),
        lambda wire: wire["properties"].pop("delivery_tag"),
        lambda wire: wire.update(headers=None),
        lambda wire: wire["properties"].update(priority="high"),
    ],
)
def test_what_a_peer_may_leave_out_is_still_delivered(place, change):
    async def run():
        place.send(1)
        wire = json.loads(place.call("RPOP", "tasks"))
        change(wire)
        place.push(json.dumps(wire))
        async with place.receiver() as receiver:
            [delivery] = await take(receiver)
            assert delivery.envelope.body == b"[[], {}, null]"
            assert await settle(receiver, Verdict.ACK, delivery) == []

    asyncio.run(run())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"{", b"[]", b'{"body": 1}', b"[" * 5000, b'{"body": "", "headers": 3}'])
def test_what_is_no_envelope_goes_to_the_dead_queue_and_stops_nobody(place, text):
    async def run():
        place.push(text)
        place.send(1)
        async with place.receiver() as receiver:
            assert ids(await take(receiver)) == ["1"]
        [letter] = place.sender.dead_letters("tasks")
        assert letter.message == text
        assert letter.reason

    asyncio.run(run())


def test_a_dead_letter_that_cannot_be_sent_again_stays(place):
    async def run():
        place.send(1)
        async with place.receiver() as receiver:
            await settle(receiver, Verdict.DEAD, *await take(receiver))

    asyncio.run(run())
    place.call("SET", "tasks", "no list")
    with pytest.raises(exceptions.OperationalError, match="WRONGTYPE"):
        place.sender.replay("tasks", 1)
    assert len(place.sender.dead_letters("tasks")) == 1
    place.call("DEL", "tasks")
    assert place.sender.replay("tasks", 1) == 1


def test_a_returned_message_is_marked_as_peers_mark_it_and_a_lost_one_is_counted(place):
    async def run():
        place.send(1)
        async with place.receiver() as receiver:
            for verdict, failures in ((Verdict.RETURN, 0), (Verdict.LOST, 1), (Verdict.LOST, 2)):
                await settle(receiver, verdict, *await take(receiver))
                wire = json.loads(place.call("LINDEX", "tasks", 0))
                assert wire["headers"]["redelivered"] is True
                assert wire["properties"]["delivery_info"]["redelivered"] is True
                assert wire["headers"].get("x-delivery-count", 0) == failures
            [delivery] = await take(receiver)
            assert (delivery.redelivered, delivery.failures) == (True, 2)

    asyncio.run(run())


def test_a_delayed_message_waits_where_every_peer_restores_it_when_due(place):
    async def run():
        place.send(1)
        async with place.receiver(visibility_timeout=100) as receiver:
            [delivery] = await take(receiver)
            due = time.time() + 0.7
            await settle(receiver, Verdict.DELAY, delivery, until=due)
            [(tag, score)] = pairs(place.call("ZRANGE", "unacked_index", 0, -1, "WITHSCORES"))
            assert tag.startswith(b"delayed:")
            assert float(score) == pytest.approx(due - 100, abs=0.001)
            [again] = await take(receiver)
            assert due <= time.time() < due + 1
            assert (again.redelivered, again.failures) == (False, 0)

    asyncio.run(run())


def test_a_delayed_message_outlives_its_worker(place):
    async def run():
        place.send(1)
        async with place.receiver() as receiver:
            await settle(receiver, Verdict.DELAY, *await take(receiver), until=time.time() + 0.5)
        async with place.receiver(node="w2@host") as receiver:
            assert ids(await take(receiver)) == ["1"]

    asyncio.run(run())


def test_closing_returns_what_is_held_in_order_and_uncounted(place):
    async def run():
        place.send(*range(1, 6))
        async with place.receiver() as receiver:
            assert ids(await take(receiver, 2)) == ["1", "2"]
            assert ids(await take(receiver, 2)) == ["3", "4"]
        async with place.receiver() as receiver:
            found = await take(receiver)
        assert ids(found) == ["1", "2", "3", "4", "5"]
        assert {delivery.failures for delivery in found} == {0}

    asyncio.run(run())


def test_a_cancelled_receive_loses_nothing(place):
    async def run():
        found = []
        async with place.receiver() as receiver:
            for number in range(20):
                waiting = asyncio.create_task(receiver.receive(10))
                await asyncio.sleep(0)
                place.send(number)
                waiting.cancel()
                [outcome] = await asyncio.gather(waiting, return_exceptions=True)
                found += ids(outcome) if isinstance(outcome, list) else []
            while len(found) < 20:
                found += ids(await take(receiver))
        assert found == [str(number) for number in range(20)]

    asyncio.run(run())


DYING = """
    import asyncio, os, signal, sys
    from celery.brokers.base import Settlement, Verdict
    from celery.brokers.redis import Receiver
    from celery.brokers.topology import Queue

    async def main(url, prefix):
        receiver = Receiver(url, {"global_keyprefix": prefix}, node="dying@host")
        await receiver.open()
        await receiver.consume(Queue("tasks"))
        first, *rest = await receiver.receive(3)
        await receiver.settle([Settlement(first, Verdict.START)])
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main(*sys.argv[1:]))
"""


def die(place):
    command = [sys.executable, "-c", textwrap.dedent(DYING), place.url, place.prefix]
    assert subprocess.run(command, timeout=20, check=False).returncode == -signal.SIGKILL


async def check_inheritance(place, within):
    async with place.receiver(node="w1@host") as one, place.receiver(node="w2@host") as two:
        found = []
        async with asyncio.timeout(within):
            while len(found) < 3:
                done, _ = await asyncio.wait(
                    waiting := [asyncio.create_task(one.receive(10)), asyncio.create_task(two.receive(10))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    found += task.result()
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)
    by_id = {delivery.envelope.headers["id"]: delivery for delivery in found}
    assert {key: (found.lost, found.failures) for key, found in by_id.items()} == {
        "1": (True, 0),
        "2": (False, 1),
        "3": (False, 1),
    }


def test_a_dead_workers_messages_come_back_and_its_started_one_is_reported_once(place):
    place.send(1, 2, 3)
    die(place)
    [dead] = place.call("ZRANGE", "celeriac.workers", 0, -1)
    place.call("ZADD", "celeriac.workers", 0, dead)
    asyncio.run(check_inheritance(place, 5))


@pytest.mark.slow
def test_a_dead_workers_messages_come_back_within_fifteen_seconds(place):
    place.send(1, 2, 3)
    die(place)
    asyncio.run(check_inheritance(place, 15))


def test_a_lost_delivery_is_acknowledged_by_its_heir(place):
    place.send(1)
    leave_started(place)

    async def run():
        async with place.receiver() as receiver:
            [delivery] = await take(receiver)
            assert delivery.lost
            assert delivery.queue == "tasks"
            assert await settle(receiver, Verdict.ACK, delivery) == []
        assert place.keys() == set()

    asyncio.run(run())


def test_large_tasks_that_a_dead_worker_had_started_are_all_told(place):
    """Some at a time, so that no answer is longer than what a client may have to read."""

    async def run():
        headers = [{"task": "w.add", "id": str(number)} for number in range(4)]
        large = [Envelope(each, b"x" * 700_000, properties={"priority": 0}) for each in headers]
        place.sender.publish([Publish(envelope, "", "tasks") for envelope in large])
        async with place.receiver(node="gone@host") as gone:
            held = [delivery for _ in range(4) for delivery in await take(gone, 1)]
            await settle(gone, Verdict.START, *held)
        async with place.receiver() as receiver:
            deliveries = []
            while len(deliveries) < 4:
                deliveries += await take(receiver)
            assert sorted(ids(deliveries)) == ["0", "1", "2", "3"]
            assert all(delivery.lost for delivery in deliveries)
            assert await settle(receiver, Verdict.ACK, *deliveries) == []
        assert place.keys() == set()

    asyncio.run(run())


def leave_started(place):
    """Leave what a worker leaves that died after it had started its only task."""

    async def run():
        async with place.receiver(node="gone@host") as receiver:
            await settle(receiver, Verdict.START, *await take(receiver))

    asyncio.run(run())


def test_a_worker_that_comes_back_too_late_settles_nothing(place):
    async def run():
        place.send(1)
        follow = [Publish(message("next"), "", "other")]
        async with place.receiver(node="late@host") as late:
            [held] = await take(late)
            await late.cancel("tasks")
            [worker] = place.call("ZRANGE", "celeriac.workers", 0, -1)
            async with place.receiver(node="w2@host") as peer:
                place.call("ZADD", "celeriac.workers", 0, worker)
                [again] = await take(peer)
                assert await late.settle([Settlement(held, Verdict.ACK, follow=follow)]) == [held]
                assert place.sender.length("other") == 0
                assert await settle(peer, Verdict.ACK, again) == []

    asyncio.run(run())


def test_a_peers_abandoned_delivery_comes_back_when_its_time_is_out(place):
    async def run():
        place.send(1)
        text = place.call("RPOP", "tasks")
        place.sender.declare([Queue("tasks", Exchange("x"), "key")])
        place.call("HSET", "unacked", "peer-tag", b"[" + text + b', "x", "key"]')
        place.call("ZADD", "unacked_index", time.time() - 101, "peer-tag")
        async with place.receiver(visibility_timeout=100) as receiver:
            [delivery] = await take(receiver)
            assert (delivery.redelivered, delivery.failures) == (True, 1)

    asyncio.run(run())


def test_a_record_that_cannot_be_read_is_put_aside(place):
    async def run():
        place.call("HSET", "unacked", "broken", "nonsense")
        place.call("ZADD", "unacked_index", 1, "broken")
        place.call("ZADD", "unacked_index", 2, "without record")
        place.send(1)
        async with place.receiver() as receiver:
            assert ids(await take(receiver)) == ["1"]
        [letter] = place.sender.dead_letters("unacked")
        assert letter.message == b"nonsense"
        assert place.call("ZCARD", "unacked_index") == 0

    asyncio.run(run())


def test_what_a_living_worker_holds_never_times_out(place):
    async def run():
        place.send(1)
        async with place.receiver(visibility_timeout=1.5) as receiver:
            [delivery] = await take(receiver)
            await nothing(receiver, 3.5)
            assert await settle(receiver, Verdict.ACK, delivery) == []

    asyncio.run(run())


def test_after_a_lost_connection_the_next_receiver_has_the_messages_at_once_and_uncounted(place):
    async def run():
        place.send(1, 2)
        async with place.receiver(client_name="victim-" + place.prefix[:-1]) as receiver:
            started, held = await take(receiver)
            await settle(receiver, Verdict.START, started)
            kill(place, "victim-" + place.prefix[:-1])
            with pytest.raises(exceptions.OperationalError):
                await take(receiver)
            with pytest.raises(exceptions.OperationalError):
                await settle(receiver, Verdict.ACK, held)
        async with place.receiver() as receiver:
            [again] = await take(receiver)
            assert (again.envelope.headers["id"], again.failures) == ("2", 0)
            assert await settle(receiver, Verdict.ACK, started, again) == []
        assert place.keys() == set()

    asyncio.run(run())


def kill(place, name):
    for line in place.raw.call("CLIENT", "LIST").decode().splitlines():
        fields = dict(field.split("=", 1) for field in line.split() if "=" in field)
        if fields["name"] == name:
            place.raw.call("CLIENT", "KILL", "ID", fields["id"])


def test_a_sender_whose_idle_connection_was_cut_sends_all_the_same(place):
    sender = Sender(place.url, place.options | {"client_name": "cut-" + place.prefix[:-1]})
    sender.publish([Publish(message(1), "", "tasks")])
    kill(place, "cut-" + place.prefix[:-1])
    sender.publish([Publish(message(2), "", "tasks")])
    assert sender.length("tasks") == 2
    sender.close()


def test_bindings_are_stored_in_both_sets_and_in_the_form_of_peers(place):
    place.sender.declare([Queue("q1", Exchange("t", "topic"), "a.#"), Queue("q2", Exchange("d"), "key")])
    assert place.call("SMEMBERS", "_kombu.binding.t") == [b"a.#\x06\x16^a\\..*?$\x06\x16q1"]
    assert place.call("SMEMBERS", "_kombu.binding_permanent.t") == [b"a.#\x06\x16^a\\..*?$\x06\x16q1"]
    assert place.call("SMEMBERS", "_kombu.binding.d") == [b"key\x06\x16\x06\x16q2"]


def test_a_message_that_no_binding_takes_goes_to_the_fallback_queue(place):
    sender = Sender(place.url, place.options | {"deadletter_queue": "strays"})
    sender.publish([Publish(message(1), "nowhere", "key")])
    assert sender.length("strays") == 1
    sender.close()


def test_a_broadcast_reaches_every_consumer_and_leaves_nothing(place):
    async def run():
        name = "news-" + uuid.uuid4().hex
        exchange = Exchange(name, "fanout")
        queues = [Queue(f"bcast.{number}", exchange, auto_delete=True) for number in (1, 2)]
        async with place.receiver(queues[0], node="w1@h") as one, place.receiver(queues[1], node="w2@h") as two:
            place.sender.publish([Publish(message(1), name, "", queue=Queue("", exchange))])
            for receiver in (one, two):
                [delivery] = await take(receiver)
                assert delivery.receipt is None
                assert await settle(receiver, Verdict.ACK, delivery) == []
            # Nobody has told this one that the exchange is a fan-out.
            with contextlib.closing(Sender(place.url, place.options)) as unaware:
                unaware.publish([Publish(message(2), name, "")])
            for receiver in (one, two):
                assert ids(await take(receiver)) == ["2"]
            # A 5.7 producer takes it for direct, and pushes into the lists.
            for number in (1, 2):
                place.send(3, queue=f"bcast.{number}")
            for receiver in (one, two):
                assert ids(await take(receiver)) == ["3"]
        assert place.keys() == {"celeriac.exchanges"}

    asyncio.run(run())


def test_a_listener_hears_channels_by_pattern_and_its_binding_expires(place):
    async def run():
        heard = asyncio.Queue()
        events = Queue("events.1", Exchange("celeryev", "topic"), "worker.#", expires=60, auto_delete=True)
        async with place.receiver() as receiver:
            await receiver.listen(events, heard.put_nowait)
            for number, key in ((1, "task.sent"), (2, "worker.online")):
                place.sender.publish([Publish(message(number), "celeryev", key)])
            async with asyncio.timeout(5):
                assert (await heard.get()).headers["id"] == "2"
            deadline = float(place.call("ZSCORE", "_kombu.binding_deadlines", "celeryev"))
            assert deadline == pytest.approx(time.time() * 1000 + 3_600_000, abs=10_000)
            assert "_kombu.binding_permanent.celeryev" not in place.keys()
        assert place.keys() <= {"_kombu.binding_deadlines", "celeriac.exchanges"}

    asyncio.run(run())


def test_a_listener_reads_a_private_list(place):
    async def run():
        heard = asyncio.Queue()
        replies = Queue("me.reply.celery.pidbox", Exchange("reply.celery.pidbox"), "me", expires=10)
        async with place.receiver() as receiver:
            await receiver.listen(replies, heard.put_nowait)
            for number in (1, 2, 3):
                place.sender.publish([Publish(message(number), "reply.celery.pidbox", "me")])
                async with asyncio.timeout(0.9):
                    assert (await heard.get()).headers["id"] == str(number)

    asyncio.run(run())


def test_an_inbox_reads_replies_and_cleans_up(place):
    replies = Queue("me.reply.celery.pidbox", Exchange("reply.celery.pidbox"), "me", expires=10)
    inbox = place.sender.inbox(replies)
    assert inbox.get(0) is None
    place.sender.publish([Publish(message(number), "reply.celery.pidbox", "me") for number in (1, 2, 3)])
    assert 0 < place.call("PTTL", "me.reply.celery.pidbox") <= 300_000
    assert [inbox.get(1).headers["id"], inbox.get(0).headers["id"], inbox.get(1).headers["id"]] == ["1", "2", "3"]
    assert inbox.get(0.05) is None
    inbox.close()
    inbox.close()
    assert place.keys() <= {"_kombu.binding_deadlines", "celeriac.exchanges"}


def test_an_inbox_reads_a_channel(place):
    inbox = place.sender.inbox(Queue("monitor", Exchange("celeryev", "fanout"), "#", expires=60))
    place.sender.publish([Publish(message(1), "celeryev", "worker.online")])
    assert inbox.get(5).headers["id"] == "1"
    assert inbox.get(0.05) is None
    inbox.close()


def test_results_follow_ups_and_acknowledgement_are_one_step_and_success_is_final(private_redis):
    place = Place(private_redis().url)

    async def run():
        place.send(1, 2)
        url = place.url.rpartition("/")[0] + "/12"
        backend = type("Backend", (), {"shared_store": ResultStore(read(url, {}), place.prefix, 60, 30)})()
        receiver = Receiver(place.url, place.options, node="w1@host")
        assert receiver.share(backend)
        assert not receiver.share(object())
        results = Connection(read(url, {}))
        await receiver.open()
        await receiver.consume(QUEUE)
        first, second = await take(receiver)
        won = ResultWrite("id", "SUCCESS", b'{"status": "SUCCESS", "result": 1}')
        failed = ResultWrite("id", "FAILURE", b'{"status": "FAILURE"}')
        follow = [Publish(message("next"), "", "other"), Publish(message("event"), "celeryev", "x")]
        await receiver.settle([Settlement(first, Verdict.ACK, results=[failed], follow=follow)])
        assert results.call("GET", place.prefix + "id") == failed.payload
        assert 25 < results.call("TTL", place.prefix + "id") <= 30
        await receiver.settle([Settlement(second, Verdict.ACK, results=[won, failed])])
        assert results.call("GET", place.prefix + "id") == won.payload
        assert place.sender.length("other") == 1
        results.close()
        place.close()
        await receiver.close()

    asyncio.run(run())


def test_of_results_settled_together_those_of_lost_deliveries_are_left_out(private_redis):
    """wire.md 4.1, 6.13: each is kept as long as its state says, a success is final, and nothing is left recorded."""
    place = Place(private_redis().url)
    url = place.url.rpartition("/")[0] + "/12"
    backend = type("Backend", (), {"shared_store": ResultStore(read(url, {}), "r-", None, 30)})()
    results = Connection(read(url, {}))

    def kept(held, state, number):
        payload = json.dumps({"status": state, "result": number}).encode()
        return Settlement(held, Verdict.ACK, results=[ResultWrite(held.envelope.headers["id"], state, payload)])

    async def run():
        place.send(*range(8))
        receiver = Receiver(place.url, place.options, node="w1@host")
        assert receiver.share(backend)
        await receiver.open()
        await receiver.consume(QUEUE)
        held = await take(receiver)
        await settle(receiver, Verdict.START, held[6])
        for lost in held[2], held[3]:
            place.call("ZREM", "unacked_index", lost.receipt.tag)
            place.call("HDEL", "unacked", lost.receipt.tag)
        results.call("SET", "r-4", b'{"status": "SUCCESS", "result": "first"}')
        results.call("SET", "r-5", b'{"status": "RETRY", "result": "SUCCESS"}')
        states = ("SUCCESS", "FAILURE", "SUCCESS", "FAILURE", "FAILURE", "SUCCESS", "SUCCESS")
        batch = [kept(*each) for each in zip(held, states, range(7), strict=False)]
        refused = await receiver.settle([Settlement(held[7], Verdict.ACK), *batch])
        assert sorted(ids(refused)) == ["2", "3"]
        stored = {number: results.call("GET", f"r-{number}") for number in range(8)}
        assert {number: json.loads(text)["result"] for number, text in stored.items() if text} == {
            0: 0, 1: 1, 4: "first", 5: 5, 6: 6,
        }  # fmt: skip
        assert results.call("TTL", "r-0") == -1
        assert 25 < results.call("TTL", "r-1") <= 30
        left = place.keys()
        assert not [key for key in left if "unacked" in key or "started" in key], left
        await receiver.close()

    asyncio.run(run())
    results.close()
    place.close()


def test_many_queues_are_watched_at_no_cost_and_wake_at_once(private_redis):
    place = Place(private_redis().url)

    def commands():
        return int(place.raw.call("INFO", "stats").split(b"total_commands_processed:")[1].split()[0])

    async def run():
        queues = [Queue(f"q{number}") for number in range(10)]
        async with place.receiver(*queues) as receiver:
            waiting = asyncio.create_task(receiver.receive(5))
            await asyncio.wait([waiting], timeout=0.3)  # it has found nothing, and waits now
            before = commands()
            await asyncio.wait([waiting], timeout=2)
            assert commands() - before < 40  # a look costs some six commands inside its script
            for number in (9, 3):
                place.send(number, queue=f"q{number}", priority=number)
                async with asyncio.timeout(1):
                    assert ids(await waiting) == [str(number)]
                waiting = asyncio.create_task(receiver.receive(5))
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(run())
    place.close()


def test_a_binding_beyond_the_first_is_declared_too(place):
    exchange = Exchange("many", "direct")
    place.sender.declare([Queue("q", exchange, "a", bindings=(Binding(exchange, "b"),))])
    place.sender.publish([Publish(message(key), "many", key) for key in ("a", "b", "c")])
    assert place.sender.length("q") == 2
    assert place.sender.purge("q") == 2
    assert place.sender.length("q") == 0


def test_a_wrong_port_is_an_operational_error_without_the_password():
    sender = Sender("redis://:secret@127.0.0.1:1/0", {"connect_timeout": 1})
    with pytest.raises(exceptions.OperationalError) as caught:
        sender.publish([Publish(message(1), "", "q")])
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)

    async def run():
        with pytest.raises(exceptions.OperationalError):
            await Receiver("redis://127.0.0.1:1/0", {"connect_timeout": 1}, node="w").open()

    asyncio.run(run())


def test_an_invalid_database_is_a_matter_of_configuration(place):
    with pytest.raises(exceptions.ImproperlyConfigured, match="database"):
        Sender(place.url.rpartition("/")[0] + "/99999", {}).length("q")
