"""What the Redis result store promises: keys, channels and lives as peers have them (wire.md 4.4), and its waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from celery import exceptions
from celery.app.base import Celery
from celery.brokers.redis import Receiver
from celery.brokers.redis.address import read
from celery.brokers.redis.blocking import Connection

pytestmark = pytest.mark.needs("redis")


@contextlib.contextmanager
def backend_at(url, **conf):
    app = Celery("results", broker="memory://", backend=url, set_as_current=False)
    app.conf.update(conf)
    yield app.backend
    app.backend._connection().close()


@pytest.fixture
def raw(redis_url):
    with contextlib.closing(Connection(read(redis_url, {}))) as connection:
        yield connection


def test_a_record_is_stored_and_published_under_one_name(redis_url, raw):
    with backend_at(redis_url) as backend:
        listening = Connection(read(redis_url, {}), pushes=True)
        listening.send([("SUBSCRIBE", "celery-task-meta-id")])
        listening.read()
        backend.store_result("id", 5, "SUCCESS")
        stored = raw.call("GET", "celery-task-meta-id")
        assert listening.read(5) == [b"message", b"celery-task-meta-id", stored]
        listening.close()
        assert json.loads(stored)["result"] == 5
        assert 86_000 < raw.call("TTL", "celery-task-meta-id") <= 86_400
        assert backend.get_result("id") == 5
        backend.forget("id")
        assert backend.get_state("id") == "PENDING"


def test_the_prefix_gets_its_underscore(redis_url, raw):
    with backend_at(redis_url, result_backend_transport_options={"global_keyprefix": "res"}) as backend:
        backend.store_result("id", 5, "SUCCESS")
    assert raw.call("EXISTS", "res_celery-task-meta-id") == 1


def test_failures_may_live_shorter_and_nothing_may_live_for_ever(redis_url, raw):
    with backend_at(redis_url, result_failure_expires=60, result_expires=None) as backend:
        backend.store_result("bad", ValueError("x"), "FAILURE")
        backend.store_result("good", 1, "SUCCESS")
    assert 55 < raw.call("TTL", "celery-task-meta-bad") <= 60
    assert raw.call("TTL", "celery-task-meta-good") == -1


@pytest.mark.parametrize("conf", [{}, {"result_compression": "gzip"}, {"result_serializer": "pickle"}])
def test_a_stored_success_is_final_and_nothing_else_is(redis_url, conf):
    accept = {"result_accept_content": ["json", "pickle"]}
    with backend_at(redis_url, **conf, **accept) as backend:
        backend.store_result("id", {"status": "SUCCESS"}, "CUSTOM")
        backend.store_result("id", ValueError("x"), "FAILURE")
        assert backend.get_state("id") == "FAILURE"
        backend.store_result("id", 1, "SUCCESS")
        backend.store_result("id", ValueError("y"), "FAILURE")
        assert backend.get_task_meta("id", cache=False)["result"] == 1

        async def write():
            await backend.open_writer()
            await backend.write(
                [
                    backend.prepare_write("id", None, "FAILURE"),
                    backend.prepare_write("other", {"status": "SUCCESS"}, "CUSTOM"),
                ]
            )
            await backend.write([backend.prepare_write("other", 2, "SUCCESS")])
            await backend.close_writer()

        asyncio.run(write())
        assert backend.get_task_meta("id", cache=False)["result"] == 1
        assert backend.get_result("other") == 2


def test_many_records_are_read_in_order(redis_url):
    with backend_at(redis_url) as backend:
        for number in range(3):
            backend.store_result(str(number), number, "SUCCESS")
        assert [meta["result"] for meta in backend.get_many_meta(["2", "none", "0"])] == [2, None, 0]


def test_counting_and_expiry(redis_url, raw):
    with backend_at(redis_url) as backend:
        assert [backend.incr("count"), backend.incr("count")] == [1, 2]
        backend.expire("count", 0.5)
        assert 0 < raw.call("PTTL", "count") <= 500
        assert backend.mget([]) == []


def test_a_wait_sees_what_was_stored_before_and_what_comes_after(redis_url):
    with backend_at(redis_url) as backend:
        backend.store_result("before", 1, "SUCCESS")
        states = []

        def store():
            backend.store_result("after", None, "STARTED")
            backend.store_result("after", 2, "SUCCESS")
            backend._connection().close()

        timer = threading.Timer(0.2, store)
        timer.start()
        found = list(
            backend.wait_for_many(["before", "after"], timeout=5, on_message=lambda meta: states.append(meta["status"]))
        )
        timer.join()
        assert [meta["result"] for meta in found] == [1, 2]
        assert states[-1] == "SUCCESS"
        with pytest.raises(exceptions.TimeoutError):
            backend.wait_for("never", timeout=0.2)
        backend._watcher_of_this_thread().close()


def test_a_wait_takes_hardly_longer_than_the_result(redis_url):
    with backend_at(redis_url) as backend, contextlib.closing(backend.make_watcher()) as watcher:
        watcher.add(["id"])
        assert watcher.drain(0.05) == []
        stored = []

        def store():
            stored.append(time.monotonic())
            backend.store_result("id", 1, "SUCCESS")
            backend._connection().close()

        timer = threading.Timer(0.1, store)
        timer.start()
        [meta] = watcher.drain(5)
        assert time.monotonic() - stored[0] < 0.1
        assert meta["result"] == 1
        timer.join()


def test_a_watcher_can_be_woken_and_told_from_other_threads(redis_url):
    with backend_at(redis_url) as backend, contextlib.closing(backend.make_watcher()) as watcher:
        backend.store_result("id", 1, "SUCCESS")

        def tell():
            watcher.add(["id"])
            watcher.wake()

        timer = threading.Timer(0.1, tell)
        timer.start()
        started = time.monotonic()
        found = watcher.drain(5) or watcher.drain(5)
        assert time.monotonic() - started < 2
        assert found[0]["result"] == 1
        watcher.discard(["id"])
        assert watcher.drain(0.05) == []
        watcher.add(["id"])
        assert watcher.drain(5)[0]["result"] == 1
        timer.join()


def test_a_wait_survives_a_restart_of_the_server(private_redis):
    server = private_redis()
    with backend_at(server.url) as backend, contextlib.closing(backend.make_watcher()) as watcher:
        watcher.add(["id"])
        assert watcher.drain(0.05) == []

        def restart():
            server.restart()
            backend.store_result("id", 1, "SUCCESS")
            backend._connection().close()

        thread = threading.Thread(target=restart)
        thread.start()
        found, deadline = [], time.monotonic() + 20
        while not found and time.monotonic() < deadline:
            found = watcher.drain(1)
        thread.join()
        assert found[0]["result"] == 1


def test_a_store_that_stays_away_is_an_error_in_bounded_time(private_redis):
    server = private_redis()
    policy = {"retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}}
    with backend_at(server.url, result_backend_transport_options=policy) as backend:
        backend.store_result("id", 1, "SUCCESS")
        server.stop()
        for attempt in (
            lambda: backend.get_task_meta("other"),
            lambda: backend.wait_for("other", timeout=10),
        ):
            with pytest.raises(exceptions.OperationalError):
                attempt()
        backend._watcher_of_this_thread().close()


def test_a_store_that_says_nothing_is_given_up_by_a_worker_too(private_redis):
    server = private_redis()
    with backend_at(server.url, redis_socket_timeout=0.5) as backend:
        record = backend.prepare_write("id", 5, "SUCCESS")

        async def main():
            await backend.open_writer()
            server.pause()
            with pytest.raises(exceptions.OperationalError, match="no answer within 0.5 s"):
                await asyncio.wait_for(backend.write([record]), 10)
            server.resume()
            await asyncio.wait_for(backend.write([record]), 10)
            await backend.close_writer()

        asyncio.run(main())
        assert backend.get_result("id") == 5


def test_a_forked_process_opens_connections_of_its_own(redis_url):
    with backend_at(redis_url) as backend:
        backend.store_result("parent", 1, "SUCCESS")
        pid = os.fork()
        if pid == 0:
            try:
                backend.store_result("child", 2, "SUCCESS")
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert [meta["result"] for meta in backend.get_many_meta(["parent", "child"])] == [1, 2]


def test_coroutines_wait_too(redis_url):
    with backend_at(redis_url) as backend:

        async def wait():
            waiting = asyncio.create_task(backend.hub.wait("id", 5))
            await asyncio.to_thread(store)
            return await waiting

        def store():
            backend.store_result("id", 1, "SUCCESS")
            backend._connection().close()

        assert asyncio.run(wait())["result"] == 1


def test_settings_and_url_say_where_the_server_is(redis_url):
    port, database = redis_url.rpartition(":")[2].split("/")
    conf = {
        "redis_host": "127.0.0.1",
        "redis_port": int(port),
        "redis_db": int(database),
        "redis_client_name": "mine",
        "redis_socket_timeout": 7.0,
    }
    with backend_at("redis://", **conf) as backend:
        where = backend.address
        assert (where.host, where.port, where.database) == ("127.0.0.1", int(port), int(database))
        assert (where.client_name, where.timeout) == ("mine", 7.0)
        backend.store_result("id", 1, "SUCCESS")


def test_an_encrypted_store_must_say_how_certificates_are_checked():
    with pytest.raises(exceptions.ImproperlyConfigured, match="ssl_cert_reqs"), backend_at("rediss://host/0"):
        pass


def test_a_receiver_shares_with_a_store_on_its_server_if_scripts_can_read_its_records(redis_url):
    receiver = Receiver(redis_url, {}, node="w")
    with backend_at(redis_url) as backend:
        assert receiver.share(backend)
    with backend_at(redis_url, result_compression="gzip") as backend:
        assert not receiver.share(backend)
    with backend_at("redis://127.0.0.1:1/0") as backend:
        assert not receiver.share(backend)


#: A server that is not there.
AWAY = "redis://:secret@127.0.0.1:1/0"


def test_the_end_of_a_wait_says_that_the_store_cannot_be_reached_and_no_password():
    with backend_at(AWAY) as backend:
        result = backend.app.AsyncResult("id")
        for wait in (lambda: result.get(timeout=0.3), lambda: asyncio.run(result.aget(timeout=0.3))):
            with pytest.raises(exceptions.TimeoutError, match=r"cannot be reached: .*redis://:\*\*@127") as caught:
                wait()
            assert "secret" not in str(caught.value)


def test_the_end_of_a_wait_for_a_task_that_takes_longer_blames_nobody(redis_url):
    with backend_at(redis_url) as backend, pytest.raises(exceptions.TimeoutError) as caught:
        backend.app.AsyncResult("id").get(timeout=0.3)
    assert "reached" not in str(caught.value)


def test_a_record_that_is_larger_than_a_subscriber_may_be_owed_is_found_whenever_it_is_stored(private_redis):
    """The server cuts off subscribers to whom it owes more than `client-output-buffer-limit` says, 32 MB by default."""
    large, url = "x" * 3_000_000, private_redis().url
    with contextlib.closing(Connection(read(url, {}))) as raw, backend_at(url) as backend:
        raw.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60")
        make = backend.app.AsyncResult
        backend.store_result("before", large, "SUCCESS")
        assert make("before").get(timeout=10) == large
        assert asyncio.run(make("before").aget(timeout=10)) == large
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(make("later").get, timeout=10)
            end = time.monotonic() + 10
            while not raw.call("PUBSUB", "CHANNELS", "*-later"):
                assert time.monotonic() < end
            backend.store_result("later", large, "SUCCESS")
            assert waiting.result() == large
        backend.store_result("small", 1, "SUCCESS")
        assert make("small").get(timeout=10) == 1
