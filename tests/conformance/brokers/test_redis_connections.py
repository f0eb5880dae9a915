"""The ways to a Redis server, and what happens when the way is cut (wire.md 3.9)."""

from __future__ import annotations

import asyncio
import contextlib
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from celery import exceptions
from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.redis import Receiver, Sender, address, resp
from celery.brokers.redis.blocking import Connection, usable
from celery.brokers.redis.spinning import TRIES
from celery.brokers.topology import Exchange, Queue
from celery.wire.envelope import Envelope

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import private_servers  # noqa: E402  found through the line above

pytestmark = pytest.mark.needs("redis")


def send(url, options, number=1):
    with contextlib.closing(Sender(url, options)) as sender:
        sender.publish([Publish(Envelope({"id": str(number)}, b""), "", "q")])


async def there_and_back(url, options):
    """Send a message, receive it, settle it."""
    await asyncio.to_thread(send, url, options)
    receiver = Receiver(url, options, node="w@h")
    await receiver.open()
    await receiver.consume(Queue("q"))
    async with asyncio.timeout(5):
        [delivery] = await receiver.receive(1)
    assert await receiver.settle([Settlement(delivery, Verdict.ACK)]) == []
    await receiver.close()


def test_a_password_is_given_and_a_wrong_one_is_a_matter_of_configuration(private_redis):
    port = private_redis(requirepass="secret").url.rpartition(":")[2].split("/")[0]
    asyncio.run(there_and_back(f"redis://:secret@127.0.0.1:{port}/1", {}))
    asyncio.run(there_and_back(f"redis://default:secret@127.0.0.1:{port}/1", {"client_name": "mine"}))
    for account in (":wrong@", ""):
        url = f"redis://{account}127.0.0.1:{port}/1"
        with pytest.raises(exceptions.ImproperlyConfigured):
            send(url, {})
        with pytest.raises(exceptions.ImproperlyConfigured):
            asyncio.run(Receiver(url, {}, node="w").open())


def test_a_password_that_the_server_does_not_ask_for_is_no_error(redis_url):
    """Nor is it for redis-py, so projects keep one in the URL of a server that has none."""
    asyncio.run(there_and_back(redis_url.replace("://", "://:unasked@"), {}))


def test_a_unix_socket_will_do(private_redis, tmp_path):
    private_redis(unixsocket=str(tmp_path / "redis.sock"))
    asyncio.run(there_and_back(f"redis+socket://{tmp_path}/redis.sock?virtual_host=1", {}))


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1."""
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *subject]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path


@pytest.fixture
def encrypted(private_redis, certificate):
    """The URL of a server that speaks TLS."""
    port = private_servers.free_port()
    private_redis(
        **{
            "tls-port": str(port),
            "tls-cert-file": str(certificate / "cert.pem"),
            "tls-key-file": str(certificate / "key.pem"),
            "tls-ca-cert-file": str(certificate / "cert.pem"),
            "tls-auth-clients": "no",
        }
    )
    return f"rediss://127.0.0.1:{port}/1"


def test_tls_is_checked_against_the_given_authority(encrypted, certificate):
    asyncio.run(there_and_back(f"{encrypted}?ssl_ca_certs={certificate}/cert.pem", {}))
    asyncio.run(there_and_back(encrypted, {"ssl": {"ssl_cert_reqs": "none"}}))
    with pytest.raises(exceptions.OperationalError):
        send(encrypted, {})


#: More than any socket buffers.
LARGE = b"x" * (24 << 20)


def store_large(url, options):
    """Store and read what no socket takes in one piece, and wait for nothing until the time is up."""
    with contextlib.closing(Connection(address.read(url, options))) as connection:
        assert connection.call("SET", "large", LARGE) == b"OK"
        assert connection.call("GET", "large") == LARGE
        began = time.monotonic()
        connection.send([("BLPOP", "nothing", 1)])
        assert connection.poll(0.2) is resp.NOTHING
        assert time.monotonic() - began >= 0.2
        assert connection.read() is None
        connection.send([("DEL", "large"), ("PING",)])
        assert connection.read() == 1
        while not (found := connection.arrived()):
            assert usable([connection.fileno()], 5)
        assert found == [b"PONG"]


@pytest.mark.parametrize("polls", [True, False], ids=["poll", "select"])
def test_what_no_socket_takes_in_one_piece_is_sent_and_read_whole(private_redis, monkeypatch, polls):
    if not polls:  # eventlet takes it away
        monkeypatch.delattr(select, "poll")
    store_large(private_redis().url, {})


def test_what_no_socket_takes_in_one_piece_goes_through_tls(encrypted):
    store_large(encrypted, {"ssl": {"ssl_cert_reqs": "none"}})


def receives(function):
    """How often the function reads from a socket; that there was nothing counts too."""
    count = 0

    def profile(frame, event, called):
        nonlocal count
        count += (called.__name__ if event == "c_call" else frame.f_code.co_name if event == "call" else "") == "recv"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def wait_often(url, options):
    """Thirty replies, each of which takes 10 ms."""
    with contextlib.closing(Connection(address.read(url, options))) as connection:
        connection.call("PING")
        return receives(lambda: [connection.call("BLPOP", "nothing", 0.01) for _ in range(30)])


def test_a_server_that_takes_its_time_is_not_asked_again_and_again(private_redis):
    assert 30 <= wait_often(private_redis().url, {}) <= 30 + 5 * TRIES


def test_over_tls_nothing_is_asked_for_again_and_again(encrypted):
    assert 30 <= wait_often(encrypted, {"ssl": {"ssl_cert_reqs": "none"}}) <= 30 * 3


def test_sentinels_name_the_master(private_redis, tmp_path):
    port = private_redis().url.rpartition(":")[2].split("/")[0]
    sentinel = private_servers.free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {sentinel}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {port} 1\n")
    process = subprocess.Popen(["redis-server", str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        url = f"sentinel://127.0.0.1:1/1;sentinel://127.0.0.1:{sentinel}/1"
        options = {"master_name": "main", "connect_timeout": 2}
        deadline = time.monotonic() + 10
        while True:
            try:
                send(url, options)
                break
            except exceptions.OperationalError:
                assert time.monotonic() < deadline
        asyncio.run(there_and_back(url, options))
        with pytest.raises(exceptions.OperationalError, match="other"):
            send(url, options | {"master_name": "other"})
        with pytest.raises(exceptions.OperationalError, match="min_other_sentinels"):
            send(url, options | {"min_other_sentinels": 1})
    finally:
        process.kill()
        process.wait()


def test_after_a_restart_of_the_server_nothing_is_lost(private_redis):
    server = private_redis()

    async def run():
        with contextlib.closing(Sender(server.url, {})) as sender:
            for number in range(3):
                sender.publish([Publish(Envelope({"id": str(number)}, b""), "", "q")])
            receiver = Receiver(server.url, {}, node="w@h")
            await receiver.open()
            await receiver.consume(Queue("q"))
            [first] = await receiver.receive(1)
            await receiver.settle([Settlement(first, Verdict.ACK)])
            [held] = await receiver.receive(1)
            await asyncio.to_thread(server.restart)
            with pytest.raises(exceptions.OperationalError):
                await receiver.settle([Settlement(held, Verdict.ACK)])
            await receiver.close()
            sender.publish([Publish(Envelope({"id": "3"}, b""), "", "q")])
            again = Receiver(server.url, {}, node="w@h")
            await again.open()
            await again.consume(Queue("q"))
            async with asyncio.timeout(5):
                found = await again.receive(10)
            assert [delivery.envelope.headers["id"] for delivery in found] == ["1", "2", "3"]
            await again.close()

    asyncio.run(run())


@pytest.mark.slow
def test_a_server_that_falls_silent_is_noticed(private_redis):
    server = private_redis()

    async def run():
        receiver = Receiver(server.url, {}, node="w@h")
        await receiver.open()
        await receiver.consume(Queue("q"))
        server.pause()
        try:
            with pytest.raises(exceptions.OperationalError):
                async with asyncio.timeout(20):
                    await receiver.receive(1)
            started = time.monotonic()
            await receiver.close()
            assert time.monotonic() - started < 6
        finally:
            server.resume()

    asyncio.run(run())


def test_many_large_messages_come_whatever_the_server_lets_pile_up_for_a_subscriber(private_redis):
    # A worker subscribes to its mailbox, and by default Redis cuts off a subscriber with more than 32 MB to read.
    server = private_redis(**{"client-output-buffer-limit": "pubsub 8mb 8mb 1"})
    with contextlib.closing(Sender(server.url, {})) as sender:
        for number in range(20):
            body = b"x" * (1 << 20 if number else 1)
            sender.publish([Publish(Envelope({"id": str(number)}, body), "", "q")])

    async def run():
        receiver = Receiver(server.url, {}, node="w@h")
        await receiver.open()
        await receiver.listen(Queue("box", Exchange("box", "fanout")), lambda _: None)
        await receiver.consume(Queue("q"))
        found = []
        async with asyncio.timeout(20):
            while len(found) < 20:
                found += await receiver.receive(100)
        assert [int(delivery.envelope.headers["id"]) for delivery in found] == list(range(20))
        await receiver.close()  # which puts them all back, in their order
        heir = Receiver(server.url, {}, node="w2@h")
        await heir.open()
        await heir.consume(Queue("q"))
        async with asyncio.timeout(20):
            [first, *_] = await heir.receive(100)
        assert first.envelope.headers["id"] == "0"
        await heir.close()

    asyncio.run(run())


def test_a_server_that_is_full_refuses_and_says_so(private_redis):
    server = private_redis(maxmemory="1", **{"maxmemory-policy": "noeviction"})
    with pytest.raises(exceptions.OperationalError, match="OOM"):
        send(server.url, {})


def test_where_the_server_does_not_track_the_receiver_polls(private_redis):
    server = private_redis()
    with contextlib.closing(Sender(server.url, {})) as sender:
        sender._connection.call("ACL", "SETUSER", "default", "-client|tracking")

    async def run():
        receiver = Receiver(server.url, {}, node="w@h")
        await receiver.open()
        await receiver.consume(Queue("q"))
        heard = asyncio.Queue()
        await receiver.listen(Queue("private"), heard.put_nowait)
        waiting = asyncio.create_task(receiver.receive(1))
        await asyncio.sleep(0.1)
        with contextlib.closing(Sender(server.url, {})) as sender:
            sender.publish([Publish(Envelope({"id": "1"}, b""), "", name) for name in ("q", "private")])
        async with asyncio.timeout(3):
            assert len(await waiting) == 1
            assert (await heard.get()).headers == {"id": "1"}
        await receiver.close()

    asyncio.run(run())


def test_a_timeout_bounds_the_whole_publish(private_redis):
    server = private_redis()
    with contextlib.closing(Sender(server.url, {})) as sender:
        sender.length("q")
        server.pause()
        try:
            started = time.monotonic()
            with pytest.raises(exceptions.OperationalError):
                sender.publish([Publish(Envelope({"id": "1"}, b""), "", "q")], timeout=0.3)
            assert time.monotonic() - started < 2
        finally:
            server.resume()
        sender.publish([Publish(Envelope({"id": "2"}, b""), "", "q")])


def test_a_server_that_became_a_replica_is_left(private_redis):
    old, new = private_redis(), private_redis()
    port = new.url.rpartition(":")[2].split("/")[0]
    with contextlib.closing(Sender(old.url, {})) as sender, contextlib.closing(Sender(old.url, {})) as admin:
        sender.length("q")

        async def run():
            receiver = Receiver(old.url, {}, node="w@h")
            await receiver.open()
            await receiver.consume(Queue("q"))
            await asyncio.to_thread(admin._connection.call, "REPLICAOF", "127.0.0.1", port)
            with pytest.raises(exceptions.OperationalError):
                async with asyncio.timeout(10):
                    await receiver.receive(1)
            await receiver.close()

        asyncio.run(run())
        with pytest.raises(exceptions.OperationalError, match="READONLY|LOADING"):
            sender.publish([Publish(Envelope({"id": "1"}, b""), "", "q")])
        assert not sender._connection.connected
