"""RabbitMQ as it is in earnest: behind TLS, with accounts that may do little, and out of memory."""

import asyncio
import contextlib
import sys
import time
import uuid
from pathlib import Path

import pytest
from harness import Stage, wait_until
from secure_servers import SecureRabbitMQ

from celery import exceptions
from celery.brokers.amqp import Receiver, Sender
from celery.brokers.base import Publish
from celery.brokers.topology import Exchange, Queue
from celery.wire.envelope import Envelope

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import self_signed  # noqa: E402  found through the line above

pytestmark = pytest.mark.needs("rabbitmq")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with SecureRabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        server.ctl("await_startup")  # it answers clients a little before it answers its administration
        yield server


@pytest.fixture
def make_stage(tmp_path):
    with contextlib.ExitStack() as stages:

        def make(url, **settings):
            stage = Stage("rabbitmq", url, f"sqlite:///{tmp_path / 'celery.sqlite'}", tmp_path, **settings)
            stages.callback(stage.close)
            return stage

        yield make


# -- TLS ---------------------------------------------------------------------------------------------------------------


def test_a_worker_and_its_senders_speak_tls(server, make_stage):
    stage = make_stage(server.tls_url, broker_use_ssl={"ca_certs": str(server.certificate)})
    worker, key = stage.worker("-c", "1"), stage.key()
    result = stage.send(
        "record_late", key, countdown=1, link=stage.app.signature("project.add", (1, 2), immutable=True)
    )
    stage.ledger.wait("ran", key)
    assert result.get(timeout=20) is None
    assert stage.send("echo", "x" * 1_000_000).get(timeout=20) == "x" * 1_000_000
    assert stage.app.control.ping([worker.node], timeout=5, limit=1)
    assert worker.stop() == 0


@pytest.mark.parametrize("secure", [False, True])
def test_what_no_socket_takes_in_one_piece_is_sent_and_read(server, secure):
    url = server.tls_url if secure else server.url
    options = {"ssl": {"ca_certs": str(server.certificate)}} if secure else {}
    name, body = f"pieces-{uuid.uuid4()}", b"0123456789" * 2_000_000
    with contextlib.closing(Sender(url, options)) as sender:
        with contextlib.closing(sender.inbox(Queue(name, durable=False, auto_delete=True))) as inbox:
            for _ in range(2):
                sender.publish([Publish(Envelope({}, body), "", name)], confirm=True)
                assert inbox.get(20).body == body
            inbox.wake()
            assert inbox.get(20) is None


@pytest.mark.parametrize("options", [None, {"ca_certs": "other"}])
def test_a_certificate_of_another_authority_is_refused_with_the_servers_url(server, tmp_path, options):
    if options:
        options = {"ca_certs": str(self_signed(tmp_path)[0])}
    told = "RabbitMQ at amqps://guest:\\*\\*@127.0.0.1.*certificate verify failed"
    with pytest.raises(exceptions.OperationalError, match=told):
        Sender(server.tls_url, {"ssl": options}).length("q")

    async def scenario():
        receiver = Receiver(server.tls_url, {"ssl": options}, node="w1@host")
        with pytest.raises(exceptions.OperationalError, match=told):
            await receiver.open()
        await receiver.close()

    asyncio.run(scenario())


# -- rights ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account(server):
    """A function that makes an account with patterns of what it may configure, write and read; its URL."""

    def make(*rights):
        name = f"account-{uuid.uuid4().hex[:8]}"
        server.ctl("add_user", name, "secret")
        server.ctl("set_permissions", name, *rights)
        return f"amqp://{name}:secret@127.0.0.1:{server.port}//"

    return make


@pytest.fixture
def queue(server):
    """A queue of an exchange, both declared."""
    name = f"q-{uuid.uuid4().hex[:8]}"
    queue = Queue(name, Exchange(f"x-{name}", "direct"), name)
    with contextlib.closing(Sender(server.url, {})) as sender:
        sender.declare([queue])
    return queue


def envelope():
    return Envelope({"task": "w.add", "id": "id"}, b"[[], {}, {}]")


def test_an_account_that_may_only_write_sends_to_queues_that_exist(account, queue):
    url = account("", ".*", "")
    absent = Queue(f"absent-{queue.name}")
    with contextlib.closing(Sender(url, {})) as sender:
        sender.publish([Publish(envelope(), queue.exchange.name, queue.routing_key, queue)], confirm=True)
        assert sender.length(queue.name) == 1
        with pytest.raises(exceptions.ImproperlyConfigured) as raised:
            sender.publish([Publish(envelope(), "", absent.name, absent)], confirm=True)
    assert f"queue '{absent.name}' does not exist, and cannot be declared: ACCESS_REFUSED" in str(raised.value)
    assert "set_permissions" in str(raised.value)
    assert "secret" not in str(raised.value)


async def consume(url, *queues):
    receiver = Receiver(url, {}, node="w1@host")
    try:
        await receiver.open()
        for queue in queues:
            await receiver.consume(queue)
    finally:
        await receiver.close()


def test_an_account_without_a_right_is_told_which_and_where(account, queue, caplog):
    reads, writes = account("", "", ".*"), account("", ".*", "")
    asyncio.run(consume(reads, queue))
    absent = Queue(f"absent-{queue.name}")
    with pytest.raises(exceptions.ImproperlyConfigured, match=f"queue '{absent.name}' does not exist.*set_permissions"):
        asyncio.run(consume(reads, absent))
    with pytest.raises(exceptions.ImproperlyConfigured, match=f"queue '{queue.name}' .*refused.*set_permissions"):
        asyncio.run(consume(writes, queue))
    publish = [Publish(envelope(), queue.exchange.name, queue.routing_key, queue)]
    told = f"exchange '{queue.exchange.name}' .*refused.*set_permissions"
    with contextlib.closing(Sender(reads, {})) as sender:
        with pytest.raises(exceptions.ImproperlyConfigured, match=told):
            sender.publish(publish, confirm=True)

        def logged():
            sender.publish(publish)
            return "refused a message that was sent before: ACCESS_REFUSED" in caplog.text

        wait_until(logged, "the refusal")


def test_a_worker_consumes_with_no_right_but_to_read(server, account, make_stage):
    """What it cannot send again (what came back, is not due, or is refused) is not lost, and holds up nothing."""
    stage = make_stage(server.url)
    first, second, third, gate = (stage.key() for _ in range(4))
    stage.send("block_late", gate)
    stage.worker("-c", "1", "--prefetch-multiplier", "10")
    stage.ledger.wait("start", gate)
    stage.send("record_late", first)
    wait_until(lambda: stage.waiting() == 0, stage.waiting)
    stage.workers[0].kill()
    stage.open_gate(gate)
    reads = account("", "", ".*")
    worker = stage.worker("-c", "1", broker_read_url=reads, worker_enable_remote_control=False)
    sent = time.time()
    stage.send("nobody_knows")
    stage.send("record_late", third, countdown=4)
    stage.send("record_late", second)
    for key in (first, second, third):
        (ran,) = stage.ledger.wait("ran", key)
    assert ran.time >= sent + 4
    assert worker.stop() == 0
    assert stage.waiting() == 0
    assert stage.dead() == []


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def exhausted(server):
    """A function that lets the server think that it has no memory left, for as long as a with block."""

    @contextlib.contextmanager
    def begin():
        server.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            yield
        finally:
            server.ctl("set_vm_memory_high_watermark", "0.4")

    return begin


def test_a_worker_outlives_a_server_without_memory(server, make_stage, exhausted):
    stage = make_stage(server.url, broker_transport_options={"confirm_publish": True})
    worker = stage.worker("-c", "2", worker_prefetch_multiplier=20)
    gate, leader, follower = stage.key(), stage.key(), stage.key()
    link = stage.app.signature("project.record", (follower,), immutable=True)
    keys = [stage.key() for _ in range(20)]
    stage.send("block_late", gate)
    stage.send("block_late", leader, link=link)
    for key in [gate, leader]:
        stage.ledger.wait("start", key)
    stage.send_all("record_late", [(key,) for key in keys])
    with exhausted():
        with pytest.raises(
            exceptions.OperationalError, match=r"blocks publishers \(low on memory\); free memory or disk"
        ):
            stage.send("record_late", stage.key(), timeout=1, retry=False)
        stage.open_gate(gate)
        for key in keys:
            stage.ledger.wait("ran", key)
        # The leader is all that is left: what it waits for is acknowledged.
        wait_until(lambda: f"{stage.queue}\t1\n" in server.ctl("list_queues", "name", "messages"), "acknowledgements")
        stage.open_gate(leader)
        stage.ledger.wait("end", leader)
    stage.ledger.wait("ran", follower, seconds=40)
    last = stage.key()
    stage.send("record_late", last)
    stage.ledger.wait("ran", last)
    assert worker.stop() == 0
    assert set(stage.ledger.counts("ran").values()) == {1}


# -- the largest message -----------------------------------------------------------------------------------------------


def test_a_result_that_the_server_finds_too_large_is_a_failure_that_says_so_and_harms_no_other(
    private_rabbitmq, tmp_path
):
    server = private_rabbitmq(max_message_size="20000")
    with contextlib.closing(Stage("rabbitmq", server.url, "rpc://", tmp_path)) as stage:
        worker, key = stage.worker("-c", "1"), stage.key()
        results = [stage.send("echo", "fits"), stage.send("produce", key, 50_000), stage.send("echo", "x" * 10_000)]
        with pytest.raises(exceptions.BackendStoreError, match=r"50\d\d\d bytes.*20000.*max_message_size"):
            results[1].get(timeout=20)
        assert [results[0].get(timeout=10), results[2].get(timeout=10)] == ["fits", "x" * 10_000]
        # What is known now is not tried again.
        with pytest.raises(exceptions.BackendStoreError, match="max_message_size"):
            stage.send("produce", key, 50_000).get(timeout=20)
        # Neither is what follows: it fits in two parts, and not in one.
        last = stage.app.signature("project.record", ("y" * 9_000,))
        result = stage.app.signature("project.produce", (key, 12_000)).apply_async(link=last)
        with pytest.raises(exceptions.EncodeError, match="max_message_size"):
            result.get(timeout=20)
        assert worker.stop() == 0
        assert stage.ledger.counts("ran") == {key: 3}
        assert "Connection to broker lost" not in worker.said()


def test_a_reply_to_a_command_that_the_server_finds_too_large_is_lost_and_said_and_the_worker_goes_on(
    private_rabbitmq, tmp_path
):
    server = private_rabbitmq(max_message_size="4000")
    with contextlib.closing(Stage("rabbitmq", server.url, "rpc://", tmp_path)) as stage:
        worker = stage.worker("-c", "1")
        assert not stage.app.control.broadcast("conf", arguments={"with_defaults": True}, reply=True, timeout=2)
        wait_until(lambda: "'conf' is lost" in worker.said(), worker.said)
        assert len(stage.app.control.ping(timeout=20, limit=1)) == 1
        assert stage.send("echo", "fits").get(timeout=20) == "fits"
        assert worker.stop() == 0
        assert "Connection to broker lost" not in worker.said()
