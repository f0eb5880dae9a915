"""Huey on Redis or SQLite: worker processes, its advice where CPU is what counts; a blocking pop on Redis.

Results are stored, as by default, where the task returns something.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import ledger
from huey import RedisHuey, SqliteHuey

from systems import setting

WAITS = False

huey: Any
if setting.BROKER.startswith("redis"):
    # A result that is waited for is told, not polled for.
    huey = RedisHuey("bench", url=setting.BROKER, notify_result=bool(setting.OPTIONS.get("notify")))
else:
    huey = SqliteHuey("bench", filename=setting.BROKER.removeprefix("sqlite:///"))


@huey.task()
def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@huey.task()
def add(x: int, y: int) -> int:
    """A result worth storing."""
    ledger.completed()
    return x + y


@huey.task()
def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


TASKS: dict[str, Any] = {"noop": noop, "add": add, "swallow": swallow}


async def start() -> None:
    """Nothing to make."""


async def send(task: str, *args: object) -> Any:
    """The result object."""
    return TASKS[task](*args)


async def result(handle: Any) -> object:
    """Wait; it asks again and again, at first after 2 ms."""
    return handle.get(blocking=True, timeout=setting.RESULT_SECONDS, backoff=1.05, max_delay=0.05)


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.id)


def handle(key: str) -> Any:
    """A result object of an id."""
    from huey.api import Result, Task

    return Result(huey, Task(id=key))


def workers(children: int) -> list[list[str]]:
    """Processes, without the periodic tasks."""
    consumer = os.path.join(os.path.dirname(sys.executable), "huey_consumer")
    options = ["--worker-type", "process", "--workers", str(children), "--no-periodic", "--quiet"]
    return [[sys.executable, consumer, "systems.huey_tasks.huey", *options]]
