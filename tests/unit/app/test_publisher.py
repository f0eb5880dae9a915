"""Sending with retries and failover, over real connections (SET-013..016, API-016, ROUTE-038)."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

from celery import Celery
from celery.app.publisher import failover, pauses
from celery.exceptions import ImproperlyConfigured, OperationalError

#: Seconds that a failure on loopback may take on a busy machine.
SOON = 5.0


@pytest.fixture
def make():
    apps = []

    def make(broker, **settings):
        app = Celery("w", broker=broker, set_as_current=False)
        app.conf.update(settings)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.close()


@pytest.fixture
def nobody():
    """The address of a port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def memory():
    return f"memory://{uuid.uuid4()}"


def waiting(app):
    return app.publisher.run(lambda sender: sender.length("celery"))


# -- the retry policy


@pytest.mark.parametrize(
    ("policy", "urls", "expected"),
    [
        (None, 1, [0]),
        (None, 3, [0, 0, 0]),
        ({"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1}, 1, [0, 0, 0.2, 0.4]),
        ({"max_retries": 4, "interval_start": 1, "interval_step": 2, "interval_max": 4}, 1, [0, 1, 3, 4, 4]),
        ({"max_retries": 1, "interval_start": 1, "interval_max": None}, 3, [0, 1, 0]),
        ({}, 1, [0, 0, 0.2, 0.4]),
        ({"max_retries": 2, "interval_start": None, "interval_step": None}, 1, [0, 0, 0]),
    ],
)
def test_pauses_follow_the_policy(policy, urls, expected):
    assert list(pauses(policy, urls)) == pytest.approx(expected)


def test_without_a_limit_there_is_always_another_attempt():
    endless = pauses({"max_retries": None, "interval_start": 0, "interval_step": 1, "interval_max": 2})
    assert list(itertools.islice(endless, 100))[-1] == 2


def test_a_call_fails_within_the_bound_of_its_policy(make, nobody):
    app = make(f"redis://user:secret@{nobody}/3")
    policy = {"max_retries": 2, "interval_start": 0.05, "interval_step": 0.05, "interval_max": 1}
    begun = time.monotonic()
    with pytest.raises(OperationalError, match=rf"redis://user:\*\*@{nobody}/3") as caught:
        app.send_task("t", retry_policy=policy)
    assert 0.15 <= time.monotonic() - begun < SOON
    assert "secret" not in str(caught.value)


def test_without_retry_a_call_fails_at_once(make, nobody):
    app = make(f"amqp://guest:secret@{nobody}//")
    app.conf.task_publish_retry_policy = {"max_retries": 3, "interval_start": 60}
    begun = time.monotonic()
    with pytest.raises(OperationalError, match=rf"amqp://guest:\*\*@{nobody}"):
        app.send_task("t", retry=False)
    app.conf.task_publish_retry = False
    with pytest.raises(OperationalError):
        app.send_task("t")
    assert time.monotonic() - begun < SOON


#: What a process has more of after its 1,020th failure than after its 20th: files, threads, objects.
FAILING = """
import gc, os, sys, threading
from celery import Celery
from celery.exceptions import OperationalError

app = Celery("w", broker=sys.argv[1], set_as_current=False)
app.conf.broker_pool_limit = 3

def fail(times):
    for _ in range(times):
        try:
            app.send_task("t", retry=False)
        except OperationalError as error:
            assert sys.argv[2] in str(error), error
        else:
            raise AssertionError("sent")

def held():
    gc.collect()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(gc.get_objects())

fail(20)
before = held()
fail(1000)
print(*(after - earlier for after, earlier in zip(held(), before, strict=True)))
"""


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_the_thousandth_failure_is_like_the_first(nobody, scheme):
    # In a process of its own: in this one, files and threads of earlier tests may come to their end meanwhile.
    command = [sys.executable, "-c", FAILING, f"{scheme}://{nobody}//", nobody]
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=50).stdout
    files, threads, objects = map(int, output.split())
    assert (files, threads) == (0, 0)
    assert objects < 500


# -- several URLs


@pytest.mark.parametrize("retry", [True, False])
def test_the_next_broker_is_tried_when_one_is_dead(make, nobody, memory, retry):
    app = make([f"redis://{nobody}", f"amqp://{nobody}", memory])
    for _ in range(3):
        app.send_task("t", retry=retry)
    assert waiting(app) == 3
    assert app.publisher.url == memory


def test_brokers_may_be_joined_by_semicolons(make, nobody, memory):
    app = make(f"redis://{nobody};{memory}")
    app.send_task("t")
    assert waiting(app) == 1


def test_every_broker_is_named_when_all_are_dead(make, nobody):
    app = make([f"redis://:one@{nobody}/1", f"redis://:two@{nobody}/2"])
    with pytest.raises(OperationalError) as caught:
        app.send_task("t", retry=False)
    assert f"redis://:**@{nobody}/1 or redis://:**@{nobody}/2" in str(caught.value)


def test_a_strategy_orders_the_brokers():
    urls = ["a", "b", "c"]
    assert list(itertools.islice(failover(urls, "round-robin"), 4)) == ["a", "b", "c", "a"]
    assert list(itertools.islice(failover(urls, None), 2)) == ["a", "b"]
    shuffled = list(itertools.islice(failover(urls, "shuffle"), 6))
    assert sorted(shuffled[:3]) == sorted(shuffled[3:]) == urls
    assert list(itertools.islice(failover(urls, reversed), 7)) == ["c", "b", "a", "c", "b", "a", "c"]
    with pytest.raises(ImproperlyConfigured, match="broker_failover_strategy is 'best'"):
        failover(urls, "best")


def test_a_strategy_may_be_a_function(make, nobody, memory):
    def last_first(urls):
        while True:
            yield from reversed(urls)

    app = make([f"redis://{nobody}", memory], broker_failover_strategy=last_first)
    assert app.publisher.url == memory


def test_a_strategy_that_names_another_broker_is_refused(make, memory):
    app = make(memory, broker_failover_strategy=lambda _: iter(["memory://elsewhere"]))
    with pytest.raises(ImproperlyConfigured, match="broker_failover_strategy"):
        app.send_task("t")


def test_a_strategy_that_names_no_broker_is_refused(make, memory):
    with pytest.raises(ImproperlyConfigured, match="no broker"):
        make(memory, broker_failover_strategy=lambda _: iter(())).send_task("t")


def test_threads_that_fail_together_move_on_together(make, nobody, memory):
    app = make([f"redis://{nobody}", memory])
    barrier = threading.Barrier(8)

    def send():
        barrier.wait(SOON)
        app.send_task("t", retry=False)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    assert waiting(app) == 8


def test_coroutines_move_on_to_the_next_broker(make, nobody, memory):
    app = make([f"redis://{nobody}", memory])

    async def send():
        await asyncio.gather(*(app.asend_task("t", retry=False) for _ in range(20)))

    asyncio.run(send())
    assert waiting(app) == 20


# -- a broker that goes and comes


def test_a_broker_that_comes_back_is_used_again(make, private_redis):
    server = private_redis()
    app = make(server.url)
    app.send_task("t")
    server.kill()
    with pytest.raises(OperationalError):
        app.send_task("t", retry=False)
    with pytest.raises(OperationalError):
        asyncio.run(app.asend_task("t", retry=False))
    server.start()
    before = waiting(app)
    app.send_task("t", retry=False)
    asyncio.run(app.asend_task("t", retry=False))
    assert waiting(app) == before + 2


def test_a_call_outlives_a_restart_of_the_broker(make, private_redis):
    server = private_redis()
    app = make(server.url)
    app.send_task("t")
    server.kill()
    sender = threading.Thread(target=app.send_task, args=("t",), kwargs={"retry_policy": {"max_retries": None}})
    sender.start()
    server.start()
    sender.join(SOON)
    assert not sender.is_alive()
    assert waiting(app) >= 1


# -- the pool


def test_an_exhausted_pool_says_which_setting_to_raise(make, memory):
    app = make(memory, broker_pool_limit=1, broker_pool_acquire_timeout=0.05)

    def send_while_lent(sender):
        with pytest.raises(OperationalError, match="broker_pool_limit"):
            app.send_task("t", retry=False)

    app.publisher.run(send_while_lent)
    app.send_task("t", retry=False)


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_pool_each_call_has_its_own_connection(make, memory, limit):
    app = make(memory, broker_pool_limit=limit)
    app.publisher.run(lambda _: app.send_task("t"))
    assert waiting(app) == 1


def test_a_forked_process_sends_over_a_connection_of_its_own(make, redis_url):
    app = make(redis_url)
    app.send_task("t")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            app.send_task("t")
            asyncio.run(app.asend_task("t"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    app.send_task("t")
    assert waiting(app) == 4


def test_a_closed_application_sends_again(make, redis_url):
    app = make(redis_url)
    app.send_task("t")
    app.publisher.close()
    app.send_task("t")
    assert waiting(app) == 2


# -- confirmation


def test_a_confirmed_message_that_the_broker_refuses_is_an_error(make, rabbitmq_url):
    app = make(rabbitmq_url, broker_transport_options={"confirm_publish": True})
    with pytest.raises(OperationalError, match="no exchange 'nowhere'"):
        app.send_task("t", exchange="nowhere", routing_key="k", exchange_type="topic", retry=False)
    queue = f"confirmed-{uuid.uuid4()}"
    app.send_task("t", queue=queue, retry=False)
    assert app.publisher.run(lambda sender: sender.length(queue)) == 1


def test_a_misspelt_key_of_a_retry_policy_is_refused():
    with Celery("w", broker="memory://") as app, pytest.raises(TypeError, match="no key 'max_retrys': use max_retries"):
        app.send_task("t", retry_policy={"max_retrys": 1})
