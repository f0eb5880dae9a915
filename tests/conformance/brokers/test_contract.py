"""What `celery.brokers.base` promises, asked of every driver."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid

import pytest
from drivers import SOON, TAKEOVER, eventually, ids, message, settle, take

from celery import exceptions
from celery.brokers.base import Delivery, Publish, Settlement, Verdict
from celery.brokers.topology import Binding, Exchange, Queue

# -- Publishing and receiving ------------------------------------------------------------------------------------------


async def test_a_message_arrives_as_it_was_sent(bench):
    queue = bench.queue()
    sent = message(headers={"argsrepr": "(2, 3)", "eta": None, "timelimit": [None, 3.5]})
    bench.send(queue, sent)
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        assert got.envelope.headers.items() >= sent.headers.items()
        assert got.envelope.body == sent.body
        assert (got.envelope.content_type, got.envelope.content_encoding) == ("application/json", "utf-8")
        assert got.envelope.properties.items() >= sent.properties.items()
        assert (got.queue, got.exchange, got.routing_key) == (queue.name, "", queue.name)
        assert (got.redelivered, got.failures, got.lost) == (False, 0, False)
        await settle(receiver, [got])


@pytest.mark.parametrize(
    "body",
    [b"", bytes(range(256)), '[["ünïcödé ✓ 🙂"], {}, {}]'.encode(), b"x" * 5_000_000],
    ids=["empty", "binary", "unicode", "5 MB"],
)
async def test_any_body_survives(bench, body):
    queue = bench.queue()
    bench.send(queue, message(body=body, content_type="application/data", content_encoding="binary"))
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        assert got.envelope.body == body
        assert (got.envelope.content_type, got.envelope.content_encoding) == ("application/data", "binary")
        await settle(receiver, [got])


async def test_names_and_headers_may_be_any_text(bench):
    queue = bench.queue(name=f"été.q {uuid.uuid4()} ✓")
    bench.send(queue, message("ïd-🙂", headers={"clé": "välue ✓", "nested": {"a": [1, 2.5, None, True, "é"]}}))
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        assert got.queue == got.routing_key == queue.name
        assert ids([got]) == ["ïd-🙂"]
        assert got.envelope.headers["clé"] == "välue ✓"
        assert got.envelope.headers["nested"] == {"a": [1, 2.5, None, True, "é"]}
        await settle(receiver, [got])


async def test_messages_come_in_the_order_they_were_sent(bench):
    queue = bench.queue()
    names = [str(number) for number in range(300)]
    bench.send(queue, *(message(name) for name in names[:200]))
    for name in names[200:]:
        bench.send(queue, message(name))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, len(names))
        assert ids(got) == names
        assert await settle(receiver, got) == []
    assert bench.sender().length(queue.name) == 0


async def test_receive_gives_what_is_there_and_no_more_than_its_limit(bench):
    queue = bench.queue()
    bench.send(queue, *(message() for _ in range(5)))
    async with bench.receiver(queue) as receiver:
        first = await receiver.receive(2)
        assert 1 <= len(first) <= 2
        rest = await take(receiver, 5 - len(first), limit=64)
        assert len(first) + len(rest) == 5
        await settle(receiver, first + rest)


async def test_a_waiting_receiver_is_woken_by_a_message(bench):
    queue = bench.queue()
    async with bench.receiver(queue) as receiver:
        for _ in range(3):
            waiting = asyncio.create_task(receiver.receive(10))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await asyncio.to_thread(bench.send, queue, message())
            await settle(receiver, await asyncio.wait_for(waiting, SOON))


async def test_a_cancelled_receive_loses_nothing(bench):
    queue = bench.queue()
    names = [str(number) for number in range(100)]
    async with bench.receiver(queue) as receiver:
        sending = threading.Thread(target=lambda: [bench.send(queue, message(name)) for name in names])
        sending.start()
        got = []
        async with asyncio.timeout(30):
            while len(got) < len(names):
                try:
                    got += await asyncio.wait_for(receiver.receive(3), 0.001)
                except TimeoutError:
                    continue
        await asyncio.to_thread(sending.join)
        assert ids(got) == names
        assert await settle(receiver, got) == []
    assert bench.sender().length(queue.name) == 0


async def test_a_receiver_serves_several_queues_without_starving_one(bench):
    first, second = bench.queue(), bench.queue()
    bench.send(first, *(message() for _ in range(50)))
    bench.send(second, *(message() for _ in range(50)))
    async with bench.receiver(first, second) as receiver:
        got = await take(receiver, 60, limit=10)
        assert {one.queue for one in got} == {first.name, second.name}
        await settle(receiver, got)


async def test_a_cancelled_queue_is_left_alone(bench):
    kept, left = bench.queue(), bench.queue()
    async with bench.receiver(kept, left) as receiver:
        bench.send(left, message("ours"))
        (held,) = await take(receiver, 1)
        await receiver.cancel(left.name)
        bench.send(left, message("not ours"))
        bench.send(kept, message("kept"))
        (got,) = await take(receiver, 1)
        assert ids([got]) == ["kept"]
        assert await settle(receiver, [held, got]) == []
    assert bench.sender().length(left.name) == 1


async def test_priorities_order_what_waits(bench):
    queue = bench.queue(max_priority=bench.can.max_priority)
    levels = [0, 3, 6, 9]
    expected = sorted(levels, reverse=bench.can.high_priority_first)
    bench.send(queue, *(message(str(level), properties={"priority": level}) for level in (6, 0, 9, 3)))
    bench.send(queue, *(message(f"{level}b", properties={"priority": level}) for level in (6, 0, 9, 3)))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 8)
        assert ids(got) == [name for level in expected for name in (str(level), f"{level}b")]
        await settle(receiver, got)


@pytest.mark.parametrize("priority", [-1, 12, 255])
async def test_a_priority_out_of_range_is_harmless(bench, priority):
    queue = bench.queue(max_priority=bench.can.max_priority)
    bench.send(queue, message(properties={"priority": priority}))
    async with bench.receiver(queue) as receiver:
        assert await settle(receiver, await take(receiver, 1)) == []


# -- Verdicts ----------------------------------------------------------------------------------------------------------


async def test_an_acknowledged_message_is_gone(bench):
    queue = bench.queue()
    bench.send(queue, message("a"), message("b"))
    async with bench.receiver(queue) as receiver:
        first, _ = await take(receiver, 2)
        assert await settle(receiver, [first]) == []
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1)
        assert ids(got) == ["b"]
        await settle(receiver, got)
    assert bench.sender().length(queue.name) == 0


async def test_returned_messages_are_next_in_their_order_and_not_counted(bench):
    queue = bench.queue()
    bench.send(queue, *(message(name) for name in "abc"))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 2)
        assert await settle(receiver, got, Verdict.RETURN) == []
    async with bench.receiver(queue) as receiver:
        again = await take(receiver, 3)
        assert ids(again) == ["a", "b", "c"]
        assert [one.failures for one in again] == [0, 0, 0]
        await settle(receiver, again)


async def test_a_lost_message_comes_back_and_is_counted_each_time(bench):
    queue = bench.queue()
    bench.send(queue, message("a"))
    async with bench.receiver(queue) as receiver:
        for failures in range(3):
            (got,) = await take(receiver, 1)
            assert (ids([got]), got.failures) == (["a"], failures)
            assert got.redelivered == (failures > 0)
            await settle(receiver, [got], Verdict.LOST)
        await settle(receiver, await take(receiver, 1))


async def test_a_requeued_message_is_last(bench):
    queue = bench.queue()
    bench.send(queue, message("a"), message("b"))
    async with bench.receiver() as receiver:
        await receiver.prefetch(1)
        await receiver.consume(queue)
        (got,) = await take(receiver, 1, limit=1)
        await settle(receiver, [got], Verdict.REQUEUE)
        order = []
        for _ in range(2):
            (got,) = await take(receiver, 1, limit=1)
            order += [(*ids([got]), got.redelivered, got.failures)]
            await settle(receiver, [got])
        assert order == [("b", False, 0), ("a", True, 0)]


async def test_a_delayed_message_comes_at_its_time_and_not_before(bench):
    queue = bench.queue()
    bench.send(queue, message("later"), message("now"))
    async with bench.receiver(queue) as receiver:
        later, now = await take(receiver, 2)
        until = time.time() + 1.3
        assert await settle(receiver, [later], Verdict.DELAY, until=until) == []
        await settle(receiver, [now])
        (got,) = await take(receiver, 1)
        late = time.time() - until
        assert ids([got]) == ["later"]
        assert 0 <= late < 3
        assert got.failures == 0
        assert await settle(receiver, [got]) == []


async def test_delayed_messages_outlive_the_receiver_that_delayed_them(bench):
    queue = bench.queue()
    names = [str(number) for number in range(20)]
    bench.send(queue, *(message(name) for name in names))
    until = time.time() + 1
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 20), Verdict.DELAY, until=until)
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 20)
        assert time.time() >= until
        assert sorted(ids(got), key=int) == names
        await settle(receiver, got)


async def test_a_time_that_has_passed_delays_nothing(bench):
    queue = bench.queue()
    bench.send(queue, message("a"))
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 1), Verdict.DELAY, until=time.time() - 10)
        got = await take(receiver, 1)
        assert ids(got) == ["a"]
        await settle(receiver, got)


async def test_a_rejected_message_goes_to_the_dead_queue(bench):
    queue = bench.queue()
    bench.send(queue, message("a"), message("b"), message("c"))
    async with bench.receiver(queue) as receiver:
        first, second, third = await take(receiver, 3)
        await settle(receiver, [first], Verdict.DEAD, reason="unknown task 'w.add'")
        await settle(receiver, [second], Verdict.DEAD, reason="expired")
        await settle(receiver, [third])
    sender = bench.sender()
    assert sender.length(queue.name) == 0
    listed = sender.dead_letters(queue.name)
    assert [(one.message.headers["id"], one.reason) for one in listed] == [
        ("b", "expired"),
        ("a", "unknown task 'w.add'"),
    ]
    assert all(one.queue == queue.name and abs(one.time - time.time()) < 60 for one in listed)
    assert listed[1].message.body == first.envelope.body
    assert len(sender.dead_letters(queue.name, limit=1)) == 1


async def test_the_dead_queue_is_counted_and_purged_by_its_name(bench):
    queue = bench.queue()
    assert bench.sender().dead_letters(queue.name) == []
    bench.send(queue, message(), message())
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 2), Verdict.DEAD, reason="no")
    sender = bench.sender()
    assert sender.length(f"{queue.name}.dead") == 2
    assert sender.purge(f"{queue.name}.dead") == 2
    assert sender.dead_letters(queue.name) == []


async def test_dead_letters_are_sent_again_the_earliest_first(bench):
    queue, sender = bench.queue(), bench.sender()
    assert sender.replay(queue.name, 10) == 0
    bench.send(queue, message("a"), message("b"), message("c", properties={"priority": 3}))
    async with bench.receiver(queue) as receiver:
        await settle(receiver, await take(receiver, 1), Verdict.LOST)
        await settle(receiver, sorted(await take(receiver, 3), key=lambda one: ids([one])), Verdict.DEAD, reason="no")
        assert sender.replay(queue.name, 2) == 2
        assert [one.message.headers["id"] for one in sender.dead_letters(queue.name)] == ["c"]
        again = await take(receiver, 2)
        assert ids(again) == ["a", "b"]
        assert [(one.failures, one.redelivered) for one in again] == [(0, False), (0, False)]
        assert sender.replay(queue.name, 10) == 1
        again += await take(receiver, 1)
        assert again[2].envelope.properties["priority"] == 3
        await settle(receiver, again)
    assert sender.dead_letters(queue.name) == []
    assert sender.replay(queue.name, 10) == 0


async def test_what_cannot_be_read_goes_to_the_dead_queue_and_stops_nobody(bench):
    queue = bench.queue()
    if not bench.damage(queue):
        assert bench.name in {"memory", "amqp"}, "every store of bytes can be damaged"
        return
    bench.send(queue, message("good"))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1)
        assert ids(got) == ["good"]
        await settle(receiver, got)
    (dead,) = bench.sender().dead_letters(queue.name)
    assert isinstance(dead.message, bytes)
    assert dead.reason
    assert bench.sender().replay(queue.name, 10) == 0
    assert bench.sender().length(f"{queue.name}.dead") == 1


async def test_a_started_message_is_settled_at_its_end(bench):
    queue = bench.queue()
    bench.send(queue, message())
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1)
        assert await settle(receiver, got, Verdict.START) == []
        assert await settle(receiver, got) == []
    bench.send(queue, message("next"))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1)
        assert (ids(got), got[0].lost) == (["next"], False)
        await settle(receiver, got)


async def test_a_started_message_is_not_run_again_after_a_close(bench):
    queue = bench.queue()
    bench.send(queue, message("started"), message("held"))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 2)
        await settle(receiver, got[:1], Verdict.START)
    async with bench.receiver(queue) as receiver:
        while True:
            (got,) = await take(receiver, 1, limit=1)
            await settle(receiver, [got])
            if ids([got]) == ["held"]:
                break
            assert got.lost


async def test_follow_ups_are_sent_with_the_verdict_or_not_at_all(bench):
    if not bench.can.transactional:
        return
    queue, following = bench.queue(), bench.queue()
    bench.send(queue, message("a"))
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        first = [Publish(message("next"), "", following.name)]
        second = [Publish(message("never"), "", following.name)]
        assert await receiver.settle([Settlement(got, Verdict.ACK, follow=first)]) == []
        assert await receiver.settle([Settlement(got, Verdict.ACK, follow=second)]) == [got]
    async with bench.receiver(following) as receiver:
        bench.send(following, message("last"))
        got = await take(receiver, 2)
        assert ids(got) == ["next", "last"]
        await settle(receiver, got)


async def test_what_follows_a_delivery_with_nothing_to_settle_is_sent(bench):
    if not bench.can.transactional:
        return
    queue, following = bench.queue(), bench.queue()
    bench.send(queue, message("a"))
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        copy = Delivery(got.envelope, None, queue.name, "", queue.name)
        settlement = Settlement(copy, Verdict.ACK, follow=[Publish(message("next"), "", following.name)])
        assert await receiver.settle([settlement, Settlement(got, Verdict.ACK)]) == []
    async with bench.receiver(following) as receiver:
        (got,) = await take(receiver, 1)
        assert ids([got]) == ["next"]
        await settle(receiver, [got])


async def test_a_batch_may_mix_verdicts(bench):
    queue = bench.queue()
    bench.send(queue, *(message(name) for name in ("ack", "return", "dead", "lost", "ack too")))
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 5)
        verdicts = [Verdict.ACK, Verdict.RETURN, Verdict.DEAD, Verdict.LOST, Verdict.ACK]
        batch = [Settlement(one, verdict) for one, verdict in zip(got, verdicts, strict=True)]
        assert await receiver.settle(batch) == []
        again = await take(receiver, 2)
        assert {one.envelope.headers["id"]: one.failures for one in again} == {"return": 0, "lost": 1}
        await settle(receiver, again)
    assert bench.sender().length(queue.name) == 0


async def test_an_empty_batch_settles_nothing(bench):
    async with bench.receiver(bench.queue()) as receiver:
        assert await receiver.settle([]) == []


# -- Leases ------------------------------------------------------------------------------------------------------------


async def test_a_closed_receiver_gives_back_what_it_held(bench):
    queue = bench.queue()
    bench.send(queue, *(message(name) for name in "abc"))
    async with bench.receiver(queue) as receiver:
        await take(receiver, 2)
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 3)
        assert ids(got) == ["a", "b", "c"]
        assert [one.failures for one in got] == [0, 0, 0]
        await settle(receiver, got)


async def test_a_second_settlement_is_refused(bench):
    queue = bench.queue()
    bench.send(queue, message())
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1)
        assert await settle(receiver, got) == []
        assert await settle(receiver, got) == got
        assert await settle(receiver, got, Verdict.RETURN) == got
    assert bench.sender().length(queue.name) == 0


async def test_a_delivery_of_an_earlier_receiver_is_refused(bench):
    queue = bench.queue()
    bench.send(queue, message("a"))
    async with bench.receiver(queue) as receiver:
        stale = await take(receiver, 1)
    async with bench.receiver(queue, node="w2@host") as receiver:
        ours = await take(receiver, 1)
        assert await settle(receiver, stale) == stale
        assert await settle(receiver, ours, Verdict.RETURN) == []
    assert bench.sender().length(queue.name) == 1


async def test_a_killed_workers_messages_come_back_and_are_counted(bench):
    queue = bench.queue()
    bench.send(queue, *(message(name) for name in "abc"))
    async with bench.receiver(queue) as receiver:
        # The survivor is there before the other dies, and idle.
        got = await take(receiver, 3)
        await settle(receiver, got, Verdict.RETURN)
        await receiver.cancel(queue.name)
        await bench.abandon(queue, 3)
        await receiver.consume(queue)
        got = await take(receiver, 3, within=TAKEOVER)
        assert ids(got) == ["a", "b", "c"]
        assert all(one.redelivered and not one.lost for one in got)
        assert {one.failures for one in got} == {1 if bench.counts_deaths else 0}
        assert await settle(receiver, got) == []


async def test_a_worker_that_starts_takes_over_from_one_that_died(bench):
    queue = bench.queue()
    bench.send(queue, message("a"))
    await bench.abandon(queue, 1)
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 1, within=TAKEOVER)
        assert ids(got) == ["a"]
        await settle(receiver, got)


async def test_what_a_killed_worker_had_started_is_reported_once_and_not_run(bench):
    if not bench.can.started_records:
        return
    queue = bench.queue()
    bench.send(queue, message("started"), message("held"))
    await bench.abandon(queue, 2, started=1)
    async with bench.receiver(queue) as receiver:
        got = {one.envelope.headers["id"]: one for one in await take(receiver, 2, within=TAKEOVER)}
        assert got["started"].lost
        assert not got["held"].lost
        assert await settle(receiver, got.values()) == []
        bench.send(queue, message("next"))
        last = await take(receiver, 1)
        assert ids(last) == ["next"]
        await settle(receiver, last)


async def test_close_ends_a_waiting_receive_and_may_be_repeated(bench):
    async with bench.receiver(bench.queue()) as receiver:
        waiting = asyncio.create_task(receiver.receive(1))
        await asyncio.sleep(0.05)
        await receiver.close()
        with pytest.raises((exceptions.OperationalError, asyncio.CancelledError)):
            await asyncio.wait_for(waiting, SOON)
        await receiver.close()


# -- Queues ------------------------------------------------------------------------------------------------------------


async def test_length_counts_and_purge_deletes_what_waits_and_not_what_is_held(bench):
    queue = bench.queue()
    sender = bench.sender()
    async with bench.receiver() as receiver:
        await receiver.prefetch(1)
        await receiver.consume(queue)
        bench.send(queue, message("held"))
        held = await take(receiver, 1, limit=1)
        bench.send(queue, *(message() for _ in range(3)))
        await eventually(lambda: sender.length(queue.name) == 3)
        assert sender.purge(queue.name) == 3
        assert sender.length(queue.name) == 0
        assert await settle(receiver, held) == []
    assert sender.purge(queue.name) == 0


def test_a_queue_that_does_not_exist_is_empty(bench):
    sender = bench.sender()
    name = f"nothing-{uuid.uuid4()}"
    assert sender.length(name) == 0
    assert sender.purge(name) == 0


async def test_a_queue_given_with_a_message_is_declared_first(bench):
    queue = Queue(f"q-{uuid.uuid4()}", Exchange(f"x-{uuid.uuid4()}"), "key")
    bench.sender().publish([Publish(message("a"), queue.exchange.name, "key", queue=queue)], confirm=True)
    async with bench.receiver(queue) as receiver:
        (got,) = await take(receiver, 1)
        assert (got.queue, got.exchange, got.routing_key) == (queue.name, queue.exchange.name, "key")
        await settle(receiver, [got])


def test_an_exchange_of_another_type_is_refused_by_name(bench):
    exchange = f"x-{uuid.uuid4()}"
    bench.sender().declare([Queue(f"q-{uuid.uuid4()}", Exchange(exchange, "direct"), "a")])
    other = Queue(f"q-{uuid.uuid4()}", Exchange(exchange, "fanout"))
    if bench.keeps_exchange_types:
        with pytest.raises(exceptions.ImproperlyConfigured, match=exchange):
            bench.sender().declare([other])
    else:
        bench.sender().declare([other])


#: (exchange type, binding key or arguments, message's key or headers, taken; None: see Bench.fanout_ignores_keys)
ROUTES = [
    ("direct", "a.b", "a.b", True),
    ("direct", "a.b", "a.c", False),
    ("direct", "a.*", "a.b", False),
    ("fanout", "", "", True),
    ("fanout", "a", "b", None),
    ("topic", "a.*", "a.b", True),
    ("topic", "a.*", "a", False),
    ("topic", "a.*", "a.b.c", False),
    ("topic", "a.#", "a", True),
    ("topic", "a.#", "a.b.c", True),
    ("topic", "#.c", "c", True),
    ("topic", "#.c", "a.b.c", True),
    ("topic", "#.c", "a.bc", False),
    ("topic", "a.#.c", "a.c", True),
    ("topic", "*.b.*", "a.b.c", True),
    ("topic", "*.b.*", "b.c", False),
    ("topic", "#", "a.b", True),
    ("topic", "a.b", "a-b", False),
    ("headers", {"x-match": "all", "colour": "red", "size": 3}, {"colour": "red", "size": 3, "more": 1}, True),
    ("headers", {"x-match": "all", "colour": "red", "size": 3}, {"colour": "red"}, False),
    ("headers", {"x-match": "any", "colour": "red", "size": 3}, {"colour": "red"}, True),
    ("headers", {"x-match": "any", "colour": "red", "size": 3}, {"colour": "blue"}, False),
    ("headers", {"colour": "red"}, {"colour": "red"}, True),
]


async def test_every_broker_routes_by_the_same_table(bench):
    sender = bench.sender()
    end = bench.queue()
    queues, batch, expected = [end], [], set()
    for number, (kind, binding, key, taken) in enumerate(ROUTES):
        exchange = Exchange(f"x{number}-{uuid.uuid4()}", kind)
        by_headers = isinstance(binding, dict)
        queue = Queue(
            f"q{number}-{uuid.uuid4()}",
            exchange,
            "" if by_headers else binding,
            binding_arguments=binding if by_headers else None,
        )
        queues.append(queue)
        envelope = message(str(number), headers=key if by_headers else {})
        batch.append(Publish(envelope, exchange.name, "" if by_headers else key))
        if bench.fanout_ignores_keys if taken is None else taken:
            expected.add((queue.name, str(number)))
    sender.declare(queues)
    # Consumed from before anything is sent: a fan-out copy is only for who is there (Redis).
    async with bench.receiver(*queues) as receiver:
        sender.publish(batch, confirm=True)
        sender.publish([Publish(message("end"), "", end.name)], confirm=True)
        got = await take(receiver, len(expected) + 1)
        assert {(one.queue, one.envelope.headers["id"]) for one in got} == expected | {(end.name, "end")}
        await settle(receiver, got)
    assert [sender.length(queue.name) for queue in queues] == [0] * len(queues)


async def test_a_queue_has_one_copy_however_many_bindings_match(bench):
    exchange = Exchange(f"x-{uuid.uuid4()}", "topic")
    queue = Queue(f"q-{uuid.uuid4()}", exchange, "a.*", bindings=(Binding(exchange, "*.b"), Binding(exchange, "c")))
    other = Queue(f"q-{uuid.uuid4()}", exchange, "#")
    sender = bench.sender()
    sender.declare([queue, other])
    sender.publish([Publish(message("both"), exchange.name, "a.b"), Publish(message("one"), exchange.name, "c")])
    await eventually(lambda: sender.length(other.name) == 2)
    assert sender.length(queue.name) == 2
    async with bench.receiver(queue, other) as receiver:
        got = await take(receiver, 4)
        assert await settle(receiver, got) == []


async def test_copies_of_a_message_are_settled_apart(bench):
    exchange = Exchange(f"x-{uuid.uuid4()}", "direct")
    first, second = (Queue(f"q{number}-{uuid.uuid4()}", exchange, "key") for number in range(2))
    sender = bench.sender()
    sender.declare([first, second])
    sender.publish([Publish(message("a"), exchange.name, "key")], confirm=True)
    async with bench.receiver(first, second) as receiver:
        one, two = await take(receiver, 2)
        await settle(receiver, [one])
        await settle(receiver, [two], Verdict.RETURN)
    assert sender.length(one.queue) == 0
    assert sender.length(two.queue) == 1


# -- Fan-out, private queues -------------------------------------------------------------------------------------------


async def test_a_fanout_message_reaches_every_receiver(bench):
    if not bench.can.fanout:
        return
    exchange = Exchange(f"x-{uuid.uuid4()}", "fanout")
    first, second = (
        Queue(f"bcast-{number}-{uuid.uuid4()}", exchange, auto_delete=True, durable=False) for number in range(2)
    )
    async with bench.receiver(first, node="w1@host") as one, bench.receiver(second, node="w2@host") as two:
        sender = bench.sender()
        sender.publish([Publish(message("all"), exchange.name, "", queue=first)])
        for receiver in (one, two):
            got = await take(receiver, 1)
            assert ids(got) == ["all"]
            assert await settle(receiver, got) == []


async def test_a_queue_without_a_name_declares_its_exchange_alone(bench):
    exchange = Exchange(f"pidbox-{uuid.uuid4()}", "fanout", durable=False)
    sender = bench.sender()
    sender.publish([Publish(message("before"), exchange.name, "", Queue("", exchange))])
    queue = Queue(f"q-{uuid.uuid4()}", exchange, durable=False, auto_delete=True)
    async with bench.receiver(queue) as receiver:
        sender.publish([Publish(message("after"), exchange.name, "", Queue("", exchange))])
        assert ids(await take(receiver, 1)) == ["after"]
    assert bench.name == "amqp" or sender.length("") == 0


async def test_listen_and_inbox_carry_control_requests_and_replies(bench):
    requests = Exchange(f"pidbox-{uuid.uuid4()}", "fanout", durable=False)
    replies = Exchange(f"reply-pidbox-{uuid.uuid4()}", "direct", durable=False)
    ticket = str(uuid.uuid4())
    private = {"auto_delete": True, "durable": False, "expires": 10.0}
    reply_queue = Queue(f"{ticket}.reply", replies, ticket, **private)

    async def node(number, receiver):
        heard = asyncio.get_running_loop().create_future()
        queue = Queue(f"w{number}.{uuid.uuid4()}.pidbox", requests, "", message_ttl=300.0, **private)
        await receiver.listen(queue, heard.set_result)
        return heard

    async with bench.receiver(bench.queue()) as one, bench.receiver(bench.queue()) as two:
        heard = [await node(1, one), await node(2, two)]
        sender = bench.sender()
        inbox = await asyncio.to_thread(sender.inbox, reply_queue)
        try:
            sender.publish([Publish(message("ping", headers={"ticket": ticket}), requests.name, "")])
            for number, future in enumerate(heard):
                request = await asyncio.wait_for(future, SOON)
                assert (request.headers["id"], request.headers["ticket"]) == ("ping", ticket)
                answer = message(str(number), b'{"w1": {"ok": "pong"}}')
                await asyncio.to_thread(bench.sender().publish, [Publish(answer, replies.name, ticket)])
            answers = [await asyncio.to_thread(inbox.get, SOON) for _ in heard]
            assert sorted(answer.headers["id"] for answer in answers) == ["0", "1"]
            assert answers[0].body == b'{"w1": {"ok": "pong"}}'
            started = time.monotonic()
            assert await asyncio.to_thread(inbox.get, 0.2) is None
            assert 0.15 < time.monotonic() - started < 3
        finally:
            await asyncio.to_thread(inbox.close)
            inbox.close()


async def test_a_listener_hears_nothing_after_its_receiver_closed(bench):
    exchange = Exchange(f"x-{uuid.uuid4()}", "fanout", durable=False)
    heard, closed = [], []
    queues = [Queue(f"l-{uuid.uuid4()}", exchange, auto_delete=True, durable=False, expires=10.0) for _ in range(2)]
    async with bench.receiver() as staying:
        await staying.listen(queues[0], heard.append)
        async with bench.receiver() as leaving:
            await leaving.listen(queues[1], closed.append)
        bench.sender().publish([Publish(message(), exchange.name, "")])
        await eventually(lambda: heard)
    assert closed == []


async def test_whoever_waits_at_an_inbox_can_be_woken_where_it_says_so(bench):
    inbox = bench.sender().inbox(Queue(str(uuid.uuid4()), durable=False, auto_delete=True, expires=60.0))
    try:
        if not inbox.wakes:
            pytest.skip("this one cannot be woken")
        waiting = asyncio.create_task(asyncio.to_thread(inbox.get, 60))
        assert await asyncio.wait([waiting], timeout=0.2) == (set(), {waiting})
        inbox.wake()
        assert await asyncio.wait_for(waiting, SOON) is None
        inbox.wake()
        assert await asyncio.wait_for(asyncio.to_thread(inbox.get, 60), SOON) is None
    finally:
        inbox.close()


async def test_an_inbox_reads_what_its_name_is_sent_through_the_default_exchange(bench):
    name = str(uuid.uuid4())
    inbox = bench.sender().inbox(Queue(name, durable=False, auto_delete=True, expires=60.0))
    try:
        bench.sender().publish([Publish(message(str(number)), "", name) for number in range(3)])
        got = [await asyncio.to_thread(inbox.get, SOON) for _ in range(3)]
        assert [one.headers["id"] for one in got] == ["0", "1", "2"]
    finally:
        inbox.close()


# -- Many producers ----------------------------------------------------------------------------------------------------


async def test_threads_share_a_pool_and_keep_their_order(bench):
    queue = bench.queue()
    with bench.pool(limit=3) as pool:

        def produce(thread):
            for number in range(25):
                with pool.lend() as sender:
                    sender.publish([Publish(message(f"{thread}-{number}"), "", queue.name)])

        threads = [threading.Thread(target=produce, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 100)
        for thread in range(4):
            mine = [name for name in ids(got) if name.startswith(f"{thread}-")]
            assert len(mine) == 25
            if not bench.between_processes:  # one store, one lock: the order is a thread's own
                assert mine == [f"{thread}-{number}" for number in range(25)]
        await settle(receiver, got)


async def test_coroutines_publish_together(bench):
    queue = bench.queue()
    with bench.pool(limit=3) as pool:
        await asyncio.gather(
            *(
                pool.apublish([Publish(message(f"{number}"), "", queue.name)], confirm=number % 2 == 0)
                for number in range(100)
            )
        )
        assert await pool.run(lambda sender: sender.length(queue.name)) == 100
    async with bench.receiver(queue) as receiver:
        got = await take(receiver, 100)
        assert ids(got) == [f"{number}" for number in range(100)]
        await settle(receiver, got)


def test_a_pool_serves_on_both_sides_of_a_fork(bench):
    if not bench.between_processes:
        return
    queue = bench.queue()
    with bench.pool(limit=2) as pool:

        def send(name):
            with pool.lend() as sender:
                sender.publish([Publish(message(name), "", queue.name)], confirm=True)

        send("before")
        with pool.lend() as lent:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    for _ in range(20):
                        send("child")
                    pool.close()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            lent.publish([Publish(message("lent"), "", queue.name)], confirm=True)
        for _ in range(20):
            send("parent")
        assert bench.sender().length(queue.name) == 42


def test_a_closed_sender_connects_anew(bench):
    queue = bench.queue()
    sender = bench.sender()
    for _ in range(3):
        sender.publish([Publish(message(), "", queue.name)], confirm=True)
        sender.close()
        sender.close()
    assert sender.length(queue.name) == 3


def test_bindings_are_told_by_brokers_that_can(bench):
    sender = bench.sender()
    exchange = Exchange(f"x-{uuid.uuid4()}", "topic")
    names = [f"q-{uuid.uuid4()}" for _ in range(2)]
    sender.declare([Queue(name, exchange, routing_key=f"{name}.#") for name in names])
    if bench.name == "amqp":
        with pytest.raises(NotImplementedError, match="amqp does not tell"):
            sender.bindings(exchange.name)
        return
    assert sender.bindings(exchange.name) == sorted((name, f"{name}.#") for name in names)
    assert sender.bindings("unknown") == []
