"""SAQ on Redis: many jobs at once in each process; results kept only where they are asked for."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import ledger
from saq import Queue

from systems import setting

WAITS = True

queue = Queue.from_url(setting.BROKER)


async def noop(context: Any) -> None:  # noqa: ARG001  its calling convention
    """Nothing but its own completion, on record."""
    ledger.completed()


async def add(context: Any, *, x: int, y: int) -> int:  # noqa: ARG001  as above
    """A result worth storing."""
    ledger.completed()
    return x + y


async def swallow(context: Any, *, data: str) -> None:  # noqa: ARG001  as above
    """Take a large argument."""
    ledger.completed()


async def nap(context: Any) -> None:  # noqa: ARG001  as above
    """Wait, beside many others."""
    await asyncio.sleep(setting.NAP_SECONDS)
    ledger.completed()


settings = {
    "queue": queue,
    "functions": [noop, add, swallow, nap],
    "concurrency": setting.AT_ONCE // setting.CHILDREN if setting.OPTIONS.get("naps") else 100,
}
#: It knows arguments by name only.
NAMES = {"noop": (), "add": ("x", "y"), "swallow": ("data",), "nap": ()}


async def start() -> None:
    """Connect, and put off its sweep by a minute.

    A worker that starts under load sweeps jobs that it has just handed out: they run twice, or end as aborted.
    """
    await queue.connect()
    await queue.redis.set(queue._sweep, 1, ex=60)


async def send(task: str, *args: object) -> Any:
    """The job; a lifetime of -1 is a result that is not kept."""
    return await queue.enqueue(task, ttl=600 if task == "add" else -1, **dict(zip(NAMES[task], args, strict=True)))


async def call(task: str, *args: object) -> Any:
    """Send and wait; it asks every so often, here each millisecond."""
    arguments = dict(zip(NAMES[task], args, strict=True))
    return await queue.apply(task, timeout=setting.RESULT_SECONDS, poll_interval=0.001, **arguments)


async def result(handle: Any) -> object:
    """Wait to be told."""
    await handle.refresh(until_complete=setting.RESULT_SECONDS)
    return handle.result


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.id)


def handle(key: str) -> Any:
    """A job to be looked up."""
    from saq import Job

    job = Job(function="add", queue=queue)
    job.key = queue.job_key_from_id(key)
    return job


def workers(children: int) -> list[list[str]]:
    """Its own command starts them."""
    program = os.path.join(os.path.dirname(sys.executable), "saq")
    return [[sys.executable, program, "systems.saq_tasks.settings", "--workers", str(children), "--quiet"]]
