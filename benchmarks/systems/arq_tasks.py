"""arq: a process each, many jobs at once, results kept only where they are asked for."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import ledger
from arq import create_pool
from arq.connections import RedisSettings
from arq.jobs import Job, ResultNotFound
from arq.worker import func

from systems import setting

WAITS = True

redis_settings = RedisSettings.from_dsn(setting.BROKER)
#: Warnings only: it tells the start and the end of each job otherwise.
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": "WARNING"}}}
_pool: Any = None


async def noop(context: Any) -> None:  # noqa: ARG001  its calling convention
    """Nothing but its own completion, on record."""
    ledger.completed()


async def add(context: Any, x: int, y: int) -> int:  # noqa: ARG001  as above
    """A result worth storing."""
    ledger.completed()
    return x + y


async def swallow(context: Any, data: str) -> None:  # noqa: ARG001  as above
    """Take a large argument."""
    ledger.completed()


async def nap(context: Any) -> None:  # noqa: ARG001  as above
    """Wait, beside many others."""
    await asyncio.sleep(setting.NAP_SECONDS)
    ledger.completed()


class WorkerSettings:
    """As arq's command reads them."""

    redis_settings = redis_settings
    functions = [
        func(noop, keep_result=0),
        func(add, keep_result=600),
        func(swallow, keep_result=0),
        func(nap, keep_result=0),
    ]
    max_jobs = setting.AT_ONCE // setting.CHILDREN
    #: Between looks at the queue; the default of half a second is for queues that are mostly empty.
    poll_delay = 0.005
    log_results = False


async def start() -> None:
    """Connect."""
    global _pool  # noqa: PLW0603  one per process
    _pool = await create_pool(redis_settings)


async def send(task: str, *args: object) -> Any:
    """The job."""
    return await _pool.enqueue_job(task, *args)


async def result(handle: Any) -> object:
    """Wait; it asks every so often, here each millisecond."""
    while True:
        try:
            return await handle.result(timeout=setting.RESULT_SECONDS, poll_delay=0.001)
        except ResultNotFound:  # as it says of a job that ends between its two looks, for the queue and for the result
            await asyncio.sleep(0)


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.job_id)


def handle(key: str) -> Any:
    """The job of an id."""
    return Job(key, _pool)


def workers(children: int) -> list[list[str]]:
    """A worker is one process."""
    program = os.path.join(os.path.dirname(sys.executable), "arq")
    options = ["--custom-log-dict", "systems.arq_tasks.LOGGING"]
    return [[sys.executable, program, "systems.arq_tasks.WorkerSettings", *options]] * children
