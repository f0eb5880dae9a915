"""Taskiq on Redis lists or RabbitMQ: coroutines on uvloop, arguments not parsed by pydantic (`--no-parse`).

Its documentation calls the list broker of taskiq-redis the one without acknowledgements, and faster than streams.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import ledger

from systems import setting

WAITS = True

broker: Any
if setting.BROKER.startswith("redis"):
    from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

    broker = ListQueueBroker(setting.BROKER)
    if setting.OPTIONS.get("results"):
        broker = broker.with_result_backend(RedisAsyncResultBackend(setting.BROKER, result_ex_time=600))
else:
    from taskiq_aio_pika import AioPikaBroker

    broker = AioPikaBroker(setting.BROKER, qos=100)


@broker.task
async def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@broker.task
async def add(x: int, y: int) -> int:
    """A result worth storing."""
    ledger.completed()
    return x + y


@broker.task
async def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


@broker.task
async def nap() -> None:
    """Wait, beside many others."""
    await asyncio.sleep(setting.NAP_SECONDS)
    ledger.completed()


TASKS: dict[str, Any] = {"noop": noop, "add": add, "swallow": swallow, "nap": nap}


async def start() -> None:
    """Connect."""
    await broker.startup()


async def send(task: str, *args: object) -> Any:
    """The task object."""
    return await TASKS[task].kiq(*args)


async def result(handle: Any) -> object:
    """Wait; it asks every so often, here each millisecond."""
    return (await handle.wait_result(check_interval=0.001, timeout=setting.RESULT_SECONDS)).return_value


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.task_id)


def handle(key: str) -> Any:
    """The task object of an id."""
    from taskiq import AsyncTaskiqTask

    return AsyncTaskiqTask(key, broker.result_backend)


def workers(children: int) -> list[list[str]]:
    """Its process manager."""
    program = os.path.join(os.path.dirname(sys.executable), "taskiq")
    at_once = setting.AT_ONCE // children
    options = ["--workers", str(children), "--max-async-tasks", str(at_once), "--no-parse", "--log-level", "ERROR"]
    return [[sys.executable, program, "worker", "systems.taskiq_tasks:broker", *options]]
