"""A worker whose broker is away: what it says and counts, and how soon it is back."""

import asyncio
import contextlib
import logging
import re
import socket
import sys
import time
from pathlib import Path

import pytest
from proxy import Proxy

from celery import Celery, exceptions
from celery.worker.consumer.connecting import Connector

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from private_servers import free_port  # noqa: E402  found through the line above


class Announcements(logging.Handler):
    """What is logged, for a test to wait for."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.more = asyncio.Event()

    def emit(self, record):
        self.texts.append(record.getMessage())
        self.more.set()

    async def wait(self, text, seconds=20):
        async with asyncio.timeout(seconds):
            while not any(text in said for said in self.texts):
                self.more.clear()
                await self.more.wait()

    def pauses(self):
        """(seconds, counted so far) of each pause."""
        return [found.groups() for said in self.texts if (found := re.search(r"in (\S+) seconds\.{3}(.*)", said))]


@pytest.fixture
def said():
    logger, handler = logging.getLogger("celery.worker.consumer.consumer"), Announcements()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(before)


@contextlib.contextmanager
def connector(*urls, **settings):
    with Celery(set_as_current=False) as app:
        app.conf.update(broker_url=list(urls), **settings)
        yield Connector(app, "w1@host", lambda _: contextlib.nullcontext(), tuple)


@contextlib.asynccontextmanager
async def port_that_hangs_up():
    """A server that ends each connection at once; gives its address, and one item for each of them."""
    came = []

    async def serve(_, writer):
        came.append(writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}", came


@pytest.fixture
def behind_proxy(redis_url):
    """A way to Redis that is closed at first, though its port accepts, and its URL."""
    host, _, rest = redis_url.rpartition(":")
    port, _, database = rest.partition("/")
    with Proxy(int(port)) as proxy:
        proxy.close()
        yield proxy, f"{host}:{proxy.port}/{database}"


def test_who_waits_for_a_broker_is_there_before_its_pause_is_over(behind_proxy, said):
    proxy, url = behind_proxy

    async def scenario(road):
        connecting = asyncio.create_task(road.connect(retry=True))
        await said.wait("Trying again in 4.00 seconds... (2/100)")
        announced = time.monotonic()
        proxy.reopen()
        connected = await connecting
        took = time.monotonic() - announced
        await connected.receiver.close()
        return took

    with connector(url) as road:
        assert asyncio.run(scenario(road)) < 3.9
    assert said.pauses() == [("2.00", " (1/100)"), ("4.00", " (2/100)")]
    assert "Connected to redis" in said.texts[-1]


def test_the_next_of_several_is_found_during_the_pause_too(behind_proxy, said):
    proxy, url = behind_proxy
    urls = [f"redis://127.0.0.1:{free_port()}/0", url]

    async def scenario(road):
        connecting = asyncio.create_task(road.connect(retry=True))
        await said.wait("Trying again in 2.00 seconds")
        proxy.reopen()
        connected = await connecting
        await connected.receiver.close()
        return connected

    with connector(*urls) as road:
        connected = asyncio.run(scenario(road))
        assert (connected.url, road.url) == (urls[1], urls[1])
    assert len(said.pauses()) == 1
    assert sum("Cannot connect" in text for text in said.texts) == 2


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_hosts_that_say_nothing_keep_nobody_from_the_next_for_long(request, said, scheme):
    url = request.getfixturevalue("redis_url" if scheme == "redis" else "rabbitmq_url")

    async def scenario(road):
        began = time.monotonic()
        connected = await road.connect(retry=True)
        await connected.receiver.close()
        return time.monotonic() - began

    with contextlib.ExitStack() as open_for_now:
        # The system takes the connection, and nobody reads from it.
        silent = [open_for_now.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        urls = [f"{scheme}://127.0.0.1:{each.getsockname()[1]}/0" for each in silent]
        with connector(*urls, url) as road:
            # Three times `broker_connection_timeout` are 12 seconds.
            assert asyncio.run(scenario(road)) < 10
            assert road.url == url
    assert sum("no answer within 2.0 s" in text for text in said.texts) == 3


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_port_that_accepts_for_a_server_that_is_away_is_tried_a_few_times_in_a_pause(said, scheme):
    async def scenario():
        async with port_that_hangs_up() as (address, came):
            with (
                connector(f"{scheme}://{address}/", broker_connection_max_retries=2) as road,
                pytest.raises(exceptions.OperationalError, match="cannot connect to the broker"),
            ):
                await road.connect(retry=True)
        return len(came)

    came = asyncio.run(scenario())
    # Looks are neither said nor counted.
    assert said.pauses() == [("2.00", " (1/2)"), ("4.00", " (2/2)")]
    # Three attempts, and one or two looks in each pause.
    assert 5 <= came <= 7


def test_without_retries_there_is_one_attempt(said):
    async def scenario():
        async with port_that_hangs_up() as (address, came):
            with connector(f"amqp://{address}/") as road, pytest.raises(exceptions.OperationalError):
                await road.connect(retry=False)
        return len(came)

    assert asyncio.run(scenario()) == 1
    assert said.texts == []
