"""The network between RabbitMQ and everybody fails: connections are cut, or carry nothing any more (see `proxy`)."""

import contextlib
import random
import signal
import threading
import time
from concurrent import futures

import pytest
from harness import Census, Stage, measured, size, wait_until
from kombu import Connection
from proxy import Proxy

from celery import Celery, exceptions
from celery.app.context import Context
from celery.brokers.amqp import Sender
from celery.brokers.amqp.messages import RETURNS
from celery.brokers.base import Publish
from celery.brokers.topology import Queue
from celery.wire.envelope import Envelope

pytestmark = pytest.mark.needs("rabbitmq")

#: Seconds; RabbitMQ and the worker end a connection after two of them without a byte.
HEARTBEAT = 1


@pytest.fixture
def proxy(rabbitmq_url):
    with Proxy(int(rabbitmq_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def stage(proxy, rabbitmq_url, tmp_path):
    """A stage whose broker is behind the proxy."""
    host, _, rest = rabbitmq_url.rpartition(":")
    url = f"{host}:{proxy.port}/{rest.partition('/')[2]}"
    stage = Stage(
        "rabbitmq",
        url,
        f"sqlite:///{tmp_path / 'celery.sqlite'}",
        tmp_path,
        broker_heartbeat=HEARTBEAT,
        broker_connection_timeout=2,
        broker_transport_options={"confirm_publish": True},
    )
    yield stage
    stage.close()


@pytest.fixture
def census(stage):
    return Census(stage)


@pytest.mark.parametrize("task", ["nap", "nap_late"])
def test_connections_are_cut(proxy, stage, census, task):
    worker = stage.worker("-c", "2")
    cuts = size(6, 20)
    for number in range(cuts):
        keys = census.send(task, 20, 0.02)
        stage.ledger.wait("end", keys[number % 20])
        assert proxy.cut()
    census.wait_none_lost(30)
    assert worker.stop() == 0
    measured(stage, f"connections cut, {task}", sent=len(census.keys), ended_twice=len(census.twice()))
    # At most what was running at a cut; what came back and has not run again by now waits.
    assert len(census.twice()) + stage.waiting() <= cuts * 2


def test_what_follows_from_a_task_is_not_lost_with_the_connections(proxy, stage):
    stage.worker("-c", "2")
    keys = [stage.key() for _ in range(60)]
    for number, key in enumerate(keys):
        follower = stage.app.signature("project.record", (key,), immutable=True)
        stage.send("nap_late", f"first-{key}", 0.02, link=follower)
        if number % 10 == 9:
            stage.ledger.wait("end", f"first-{keys[number - 7]}")
            assert proxy.cut()
    for key in keys:
        stage.ledger.wait("ran", key)


def test_connections_that_fall_silent_are_noticed_by_heartbeats(proxy, stage):
    worker, running, waiting = stage.worker("-c", "1"), stage.key(), stage.key()
    wait_until(lambda: stage.app.control.ping([worker.node], timeout=1), "its answer")
    stage.send("block_late", running)
    stage.send("record", waiting)
    stage.ledger.wait("start", running)
    assert proxy.hush()
    silent = time.monotonic()
    worker.wait_said("two heartbeats")
    assert time.monotonic() - silent < 4 * HEARTBEAT + 2
    stage.open_gate(running)
    stage.ledger.wait("end", running)
    stage.ledger.wait("ran", waiting)
    # Whoever sends, here and in the worker, asks a silent connection for a sign of life, and makes another.
    wait_until(lambda: stage.app.control.ping([worker.node], timeout=1), "its answer")
    assert worker.stop() == 0
    assert len(stage.ledger.entries("start", running)) == 1


def consumers(url, queue):
    """How many the server counts: one that fell silent is there until it has noticed, and put back what it had."""
    with Connection(url) as connection:
        return connection.default_channel.queue_declare(queue, passive=True).consumer_count


@pytest.mark.parametrize("task", ["record", "record_late"])
def test_what_was_acknowledged_into_the_silence_does_not_run_again(proxy, stage, rabbitmq_url, task):
    worker, gate, key, other = stage.worker("-c", "1", "--prefetch-multiplier", "2"), *(stage.key() for _ in range(3))
    stage.send("block", gate)
    stage.ledger.wait("start", gate)
    stage.send(task, key)
    worker.wait_said("project.block")
    wait_until(lambda: worker.said().count(" received") == 2, worker.said)
    assert proxy.hush()
    stage.open_gate(gate)
    stage.ledger.wait("ran", key)
    wait_until(lambda: worker.said().count("Connected to") == 2, worker.said)
    wait_until(lambda: consumers(rabbitmq_url, stage.queue) == 1, "the end of the silent one")
    # Behind what came back. Not over our own connection, which waits for its confirmation in silence.
    with Celery(broker=rabbitmq_url, set_as_current=False) as app:
        app.send_task(f"project.{task}", (other,), queue=stage.queue)
    stage.ledger.wait("ran", other)
    assert worker.stop() == 0
    assert stage.waiting() == 0
    assert set(stage.ledger.counts("ran").values()) == {1}


def test_a_stopping_worker_whose_connection_was_cut_takes_no_more(proxy, stage, rabbitmq_url):
    stopping, running, keys = stage.worker("-c", "1"), stage.key(), [stage.key() for _ in range(10)]
    stage.send("block", running)
    stage.ledger.wait("start", running)
    stopping.tell(signal.SIGTERM)
    stopping.wait_said("Warm shutdown")
    assert proxy.cut()
    wait_until(lambda: stopping.said().count("Connected to") == 2, stopping.said)
    stage.broker = rabbitmq_url
    stage.worker("-c", "2")  # one more than what runs, should its acknowledgement have been cut
    stage.send_all("record", [(key,) for key in keys])
    for key in keys:
        stage.ledger.wait("ran", key)
    stage.open_gate(running)
    assert stopping.wait_end() == 0


@pytest.fixture
def telling(proxy, stage, rabbitmq_url):
    """A worker behind the proxy that sends results over rpc, to an application that is not behind it."""
    with Celery(broker=rabbitmq_url, backend="rpc://", set_as_current=False) as app:
        app.conf.update(stage.settings)
        stage.backend = "rpc://"
        worker = stage.worker("-c", "1")
        # The first result of a connection is confirmed.
        assert app.send_task("project.add", (1, 1)).get(timeout=30) == 2
        yield app
        assert worker.stop() == 0
        app.backend.close()
    assert stage.waiting() == 0


def test_a_result_that_was_sent_into_the_silence_is_sent_again(proxy, stage, telling):
    key = stage.key()
    result = telling.send_task("project.block_late", (key,))
    stage.ledger.wait("start", key)
    assert proxy.hush()
    stage.open_gate(key)
    assert result.get(timeout=30) == key
    assert len(stage.ledger.entries("start", key)) == 1


@pytest.mark.parametrize("task", ["record", "record_late"])
def test_each_of_many_round_trips_ends_while_connections_are_cut(proxy, stage, telling, task):
    for number in range(cuts := size(6, 30)):
        keys = [stage.key() for _ in range(40)]
        cutting = threading.Timer(random.Random(number).uniform(0, 0.1), proxy.cut)
        cutting.start()
        for key in keys:
            telling.send_task(f"project.{task}", (key,)).get(timeout=30)
        cutting.join()
    counts = stage.ledger.counts("ran").values()
    measured(stage, f"round trips, connections cut, {task}", cuts=cuts, sent=len(counts), ran=sum(counts))
    assert sum(counts) - len(counts) <= cuts


def test_what_comes_back_after_a_long_outage_is_not_sent_again_with_a_count(proxy, stage, rabbitmq_url):
    """Copies of all that was waiting would be under way just when the connection may go again."""
    worker = stage.worker("-c", "1", "--prefetch-multiplier", "8")
    gate, keys = stage.key(), [stage.key() for _ in range(4)]
    stage.send("block_late", gate)
    stage.ledger.wait("start", gate)
    stage.send_all("record_late", [(key,) for key in keys])
    wait_until(lambda: worker.said().count(" received") == 5, worker.said)
    assert proxy.close()
    time.sleep(11)
    connected = worker.said().count("Connected to")
    proxy.reopen()
    wait_until(lambda: worker.said().count("Connected to") > connected, worker.said)
    wait_until(lambda: worker.said().count(" received") >= 9, worker.said)
    worker.kill()
    with (
        contextlib.closing(Sender(rabbitmq_url, {})) as sender,
        contextlib.closing(sender.inbox(Queue(stage.queue))) as inbox,
    ):
        found = [inbox.get(10).headers for _ in range(5)]
        assert inbox.get(0.5) is None
    assert not [headers for headers in found if RETURNS in headers]


def test_who_waits_for_messages_notices_the_silence_too(proxy, stage, rabbitmq_url):
    replies = Queue(f"replies-{stage.key()}", durable=False, auto_delete=True)
    reply = Publish(Envelope({"id": "reply"}, b""), "", replies.name)
    with (
        contextlib.closing(Sender(stage.broker, {"heartbeat": HEARTBEAT, "connect_timeout": 1})) as sender,
        contextlib.closing(sender.inbox(replies)) as inbox,
        contextlib.closing(Sender(rabbitmq_url, {})) as other,
    ):
        other.publish([reply])
        assert inbox.get(10) is not None
        assert proxy.hush()
        with pytest.raises(exceptions.OperationalError, match="the connection was lost"):
            inbox.get(20)
        assert inbox.get(0.01) is None
        # To the server the silent reader is still there, and takes its turn.
        other.publish([reply, reply])
        assert inbox.get(10) is not None


def test_who_waits_for_a_result_over_rpc_goes_on_when_connections_were_cut(proxy, stage, rabbitmq_url):
    ours = Celery(broker=stage.broker, backend="rpc://", set_as_current=False)
    theirs = Celery(broker=rabbitmq_url, backend="rpc://", set_as_current=False)
    with (
        contextlib.closing(ours.publisher),
        contextlib.closing(theirs.publisher),
        futures.ThreadPoolExecutor(1) as pool,
    ):

        def wait(task_id, told):
            ours.backend.on_task_call(None, task_id)
            told.append(ours.thread_oid)
            # So long an interval that only a reader who has the message ends the wait.
            return ours.backend.wait_for(task_id, timeout=40, interval=60)["result"]

        for number, cut in enumerate([False, True, True]):
            task_id, told = f"{stage.key()}-{number}", []
            waiting = pool.submit(wait, task_id, told)
            wait_until(lambda told=told: told, "it waits")
            time.sleep(0.2)
            assert not cut or proxy.cut()
            # A queue that nobody reads any more goes with all that is in it, so one message may not do.
            while not waiting.done():
                theirs.backend.store_result(task_id, number, "SUCCESS", request=Context(reply_to=told[0]))
                futures.wait([waiting], 0.2)
            assert waiting.result() == number
        ours.backend.close()
