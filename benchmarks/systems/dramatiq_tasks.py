"""Dramatiq on Redis or RabbitMQ: processes of 8 threads, its default.

Prometheus, which its documentation calls optional, is not there; results only where they are asked for.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import dramatiq
import ledger
from dramatiq.middleware.asyncio import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from systems import setting

WAITS = False

broker: Any
if setting.BROKER.startswith("redis"):
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=setting.BROKER)
    results = RedisBackend(url=setting.BROKER)
    broker.add_middleware(Results(backend=results))
else:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=setting.BROKER)
if setting.OPTIONS.get("naps"):
    broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@dramatiq.actor
def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


TASKS: dict[str, Any] = {"noop": noop, "swallow": swallow}

if setting.BROKER.startswith("redis"):

    @dramatiq.actor(store_results=True)
    def add(x: int, y: int) -> int:
        """A result worth storing."""
        ledger.completed()
        return x + y

    TASKS["add"] = add

if setting.OPTIONS.get("naps"):

    @dramatiq.actor
    async def nap() -> None:
        """Wait; each holds a thread."""
        await asyncio.sleep(setting.NAP_SECONDS)
        ledger.completed()

    TASKS["nap"] = nap


async def start() -> None:
    """Nothing to make."""


async def send(task: str, *args: object) -> Any:
    """The message."""
    return TASKS[task].send(*args)


async def result(handle: Any) -> object:
    """Wait as its documentation says."""
    return handle.get_result(block=True, timeout=int(1000 * setting.RESULT_SECONDS))


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.message_id)


def handle(key: str) -> Any:
    """Messages are looked up by what they were."""
    return TASKS["add"].message(2, 3).copy(message_id=key)


def workers(children: int) -> list[list[str]]:
    """As many threads as naps at once; else the default."""
    threads = setting.AT_ONCE // children if setting.OPTIONS.get("naps") else 8
    command = [sys.executable, "-m", "dramatiq", "systems.dramatiq_tasks"]
    return [[*command, "--processes", str(children), "--threads", str(threads)]]
