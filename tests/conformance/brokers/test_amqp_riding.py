"""Results over rpc: which are sent with the acknowledgement of their message, and what becomes of them in an alarm of
RabbitMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import pytest
from drivers import eventually

from celery import Celery
from celery.brokers.amqp import Receiver, Sender
from celery.brokers.amqp.frames import FrameReader
from celery.brokers.amqp.methods import decode_method
from celery.brokers.base import Over, Publish, ResultWrite, Settlement, Verdict
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("rabbitmq")

METHOD = 1
#: What a client says of messages.
OF_MESSAGES = ("basic.publish", "basic.ack")


class Relay:
    """A way to the server that notes what is said on it."""

    def __init__(self, url):
        self._url = url
        #: By connection: (channel, method).
        self.said = []
        self._news = asyncio.Event()
        self._carriers = []

    async def __aenter__(self):
        host, _, rest = self._url.rpartition(":")
        port, _, vhost = rest.partition("/")
        self._server = await asyncio.start_server(lambda *way: self._carry(int(port), *way), "127.0.0.1", 0)
        self.url = f"{host}:{self._server.sockets[0].getsockname()[1]}/{vhost}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*self._carriers)

    async def _carry(self, port, reader, writer):
        self._carriers.append(asyncio.current_task())
        reads, writes = await asyncio.open_connection("127.0.0.1", port)
        back = asyncio.create_task(self._copy(reads, writer))
        notes = []
        self.said.append(notes)
        frames = FrameReader()
        frames.frame_max = 131_072
        writes.write(await reader.readexactly(8))
        while data := await reader.read(65536):
            for kind, channel, payload in frames.feed(data):
                if kind == METHOD:
                    notes.append((channel, decode_method(payload)[0].name))
            self._news.set()
            writes.write(data)
        writes.close()
        await back
        for way in (writes, writer):
            with contextlib.suppress(ConnectionError):
                await way.wait_closed()

    @staticmethod
    async def _copy(reads, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reads.read(65536):
                writer.write(data)
        writer.close()

    def forget(self):
        for notes in self.said:
            notes.clear()

    async def heard(self, count):
        """What was said of messages, as soon as there is so much, by connection: methods, and on how many channels."""
        async with asyncio.timeout(10):
            while True:
                told = [[each for each in notes if each[1] in OF_MESSAGES] for notes in self.said]
                if sum(map(len, told)) >= count:
                    break
                self._news.clear()
                await self._news.wait()
        return sorted(
            ([method for _, method in notes], len({channel for channel, _ in notes})) for notes in told if notes
        )


class Trips:
    """Messages that come to a receiver, and results that go back."""

    def __init__(self, sender, receiver, inbox, replies):
        self.sender, self.receiver, self.inbox, self.replies = sender, receiver, inbox, replies

    async def take(self, *names):
        messages = [Envelope({"task": "w.add", "id": name}, b"[[], {}, {}]") for name in names]
        await asyncio.to_thread(self.sender.publish, [Publish(each, "", self.queue.name) for each in messages])
        taken = []
        async with asyncio.timeout(10):
            while len(taken) < len(names):
                taken += await self.receiver.receive(64)
        return taken

    def end(self, name, delivery, verdict=Verdict.ACK, payload=b"{}", **fields):
        """Its end, with a result."""
        write = ResultWrite(name, "SUCCESS", payload, reply_to=self.replies)
        return Settlement(delivery, verdict, results=(write,), **fields)

    def ended(self, *args, **kwargs):
        """Settle it so."""
        return self.receiver.settle([self.end(*args, **kwargs)])

    async def trip(self, name, **fields):
        (delivery,) = await self.take(name)
        assert await self.ended(name, delivery, **fields) == []
        return await self.told()

    async def told(self, within=10):
        envelope = await asyncio.to_thread(self.inbox.get, within)
        return envelope and envelope.properties["correlation_id"]


@contextlib.asynccontextmanager
async def trips(url, direct, heartbeat=0, **settings):
    """Through `url` with the receiver, and the direct way with all others."""
    with (
        Celery("proj", broker=url, backend="rpc://", set_as_current=False) as app,
        contextlib.closing(Sender(direct, {})) as sender,
    ):
        app.conf.update(settings)
        queue, replies = Queue(f"q-{uuid.uuid4()}"), Queue(f"replies-{uuid.uuid4()}", durable=False, auto_delete=True)
        receiver = Receiver(url, {"heartbeat": heartbeat}, node="w1@host")
        assert receiver.share(app.backend)
        with contextlib.closing(sender.inbox(replies)) as inbox:
            await receiver.open()
            await receiver.consume(queue)
            made = Trips(sender, receiver, inbox, replies.name)
            made.queue = queue
            try:
                yield made
            finally:
                await receiver.close()


async def test_a_result_goes_in_front_of_the_acknowledgement_on_its_channel_once_one_was_confirmed(rabbitmq_url):
    async with Relay(rabbitmq_url) as relay, trips(relay.url, rabbitmq_url) as way:
        assert await way.trip("first") == "first"
        assert await relay.heard(2) == [(["basic.ack"], 1), (["basic.publish"], 1)]
        relay.forget()
        assert await way.trip("second") == "second"
        assert await relay.heard(2) == [(["basic.publish", "basic.ack"], 1)]


async def test_results_that_are_to_survive_the_server_are_confirmed(rabbitmq_url):
    async with (
        Relay(rabbitmq_url) as relay,
        trips(relay.url, rabbitmq_url, result_persistent=True) as way,
    ):
        for name in ("first", "second"):
            relay.forget()
            assert await way.trip(name) == name
            assert await relay.heard(2) == [(["basic.ack"], 1), (["basic.publish"], 1)]


async def test_what_needs_no_answer_is_settled_at_once(rabbitmq_url):
    async with Relay(rabbitmq_url) as relay, trips(relay.url, rabbitmq_url) as way:
        first, second, third, silent = await way.take("first", "second", "third", "silent")
        assert not way.receiver.settle_now([way.end("first", first)])  # a first one is confirmed
        assert await way.ended("first", first) == []
        assert await way.told() == "first"
        await relay.heard(2)
        relay.forget()
        assert way.receiver.settle_now([way.end("second", second), way.end("third", third)])
        assert {await way.told(), await way.told()} == {"second", "third"}
        assert await relay.heard(3) == [(["basic.publish", "basic.publish", "basic.ack"], 1)]
        assert way.receiver.settle_now([Settlement(silent, Verdict.ACK)])
        assert [each.task_id for each in way.receiver.unsure()] == ["first", "second", "third", "silent"]
        later, beside = await way.take("later", "beside")
        for waits in (way.end("later", later), Settlement(beside, Verdict.RETURN), Settlement(silent, Verdict.ACK)):
            assert not way.receiver.settle_now([waits])
    async with trips(rabbitmq_url, rabbitmq_url) as way:
        assert way.sender.length(way.queue.name) == 0


async def test_results_of_every_kind_arrive_as_they_were_made(rabbitmq_url):
    """Those that are alike but for id, size and body are cut from one; so each kind is sent twice."""
    async with trips(rabbitmq_url, rabbitmq_url) as way:
        await way.trip("first")
        kinds = [
            ("a", b"{}", "application/json", "utf-8"),
            ("a", b"1" * 2000, "application/json", "utf-8"),
            ("a much longer id", b"\x81", "application/x-msgpack", "binary"),
            ("\N{SNOWMAN}", b"[1]", "application/json", "utf-8"),
        ]
        for task_id, payload, *types in [*kinds, *kinds]:
            (delivery,) = await way.take("any")
            write = ResultWrite(task_id, "SUCCESS", payload, *types, reply_to=way.replies)
            assert way.receiver.settle_now([Settlement(delivery, Verdict.ACK, results=(write,))])
            envelope = await asyncio.to_thread(way.inbox.get, 10)
            assert (envelope.body, envelope.content_type, envelope.content_encoding) == (payload, *types)
            assert envelope.properties == {"correlation_id": task_id, "delivery_mode": 1, "priority": 0}


@pytest.mark.parametrize(
    "case",
    [{"after_start": True}, {"verdict": Verdict.DEAD}, {"payload": b"1" * 5000}],
    ids=["early", "refused", "large"],
)
async def test_a_result_is_confirmed_where_its_message_is_not_simply_acknowledged_or_it_is_large(rabbitmq_url, case):
    async with Relay(rabbitmq_url) as relay, trips(relay.url, rabbitmq_url) as way:
        await way.trip("first")
        (delivery,) = await way.take("second")
        if case.get("after_start"):
            await way.receiver.settle([Settlement(delivery, Verdict.START)])
            await relay.heard(3)
        else:
            await relay.heard(2)
        relay.forget()
        assert await way.ended("second", delivery, **case) == []
        assert await way.told() == "second"
        (publishing,) = [methods for methods, _ in await relay.heard(1) if "basic.publish" in methods]
        assert "basic.ack" not in publishing


async def test_only_what_rode_is_told_again_by_who_sees_its_message_again(rabbitmq_url):
    async with trips(rabbitmq_url, rabbitmq_url) as way:
        await way.trip("first")
        await way.trip("second")
        first, second = way.receiver.unsure()
        assert first == Over("first", 0, ())
        assert (second.task_id, [each.payload for each in second.results]) == ("second", [b"{}"])


async def test_in_an_alarm_what_has_no_result_is_acknowledged_where_something_like_it_came_before(private_rabbitmq):
    """The connection that consumes has published; but nothing since it has seen work of that kind."""
    server = await asyncio.to_thread(private_rabbitmq)
    async with trips(server.url, server.url) as way:
        await way.trip("first")
        await way.trip("second")
        silent, telling, later = await way.take("silent", "telling", "later")
        await way.receiver.settle([Settlement(silent, Verdict.ACK)])
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        stuck = asyncio.create_task(way.ended("telling", telling))
        await eventually(lambda: "blocked" in server.ctl("list_connections", "state").split())
        await way.receiver.settle([Settlement(later, Verdict.ACK)])
        await eventually(lambda: unacknowledged(server, way.queue.name) == 1)
        assert not stuck.done()
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")
        assert await way.told(30) == "telling"
        assert await stuck == []
        await eventually(lambda: unacknowledged(server, way.queue.name) == 0)


async def test_a_result_that_rode_into_an_alarm_arrives_and_is_acknowledged_when_it_is_over(private_rabbitmq):
    server = await asyncio.to_thread(private_rabbitmq)
    async with trips(server.url, server.url) as way:
        await way.trip("first")
        second, third = await way.take("second", "third")
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        assert await way.ended("second", second) == []
        await eventually(lambda: "blocked" in server.ctl("list_connections", "state").split())
        stuck = asyncio.create_task(way.ended("third", third))
        assert await way.told(0.5) is None
        assert not stuck.done()
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")
        assert {await way.told(30), await way.told(30)} == {"second", "third"}
        assert await stuck == []
        await eventually(lambda: unacknowledged(server, way.queue.name) == 0)


async def test_what_was_acknowledged_in_an_alarm_is_unsure_for_as_long_as_that_lasts(private_rabbitmq):
    """The server does not read it, though it is heard, and a restart would have it delivered again."""
    server = await asyncio.to_thread(private_rabbitmq)
    async with trips(server.url, server.url, heartbeat=2) as way:
        await way.trip("first")
        second, begun = await way.take("second", "begun")
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        assert await way.ended("second", second) == []
        await eventually(lambda: "blocked" in server.ctl("list_connections", "state").split())
        await way.receiver.settle([Settlement(begun, Verdict.START)])
        await asyncio.sleep(7)  # else what was said 5 s before the last heartbeat counts as heard
        assert unacknowledged(server, way.queue.name) == 2
        assert [each.task_id for each in way.receiver.unsure()][-2:] == ["second", "begun"]
        await asyncio.to_thread(server.ctl, "set_vm_memory_high_watermark", "0.4")
        await eventually(lambda: unacknowledged(server, way.queue.name) == 0)
        await eventually(lambda: not way.receiver.unsure())


def unacknowledged(server, name):
    rows = (line.split() for line in server.ctl("list_queues", "name", "messages_unacknowledged").splitlines())
    return next(int(row[1]) for row in rows if row and row[0] == name)
