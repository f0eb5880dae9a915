"""RQ: its pool of SimpleWorkers, which its notes on performance name as the fastest for very short jobs.

They run jobs in their own process; the default, one fork a job, is several times slower and was not measured.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import ledger
from redis import Redis
from rq import Queue
from rq.job import Job

from systems import setting

WAITS = False

connection = Redis.from_url(setting.BROKER)
queue = Queue("bench", connection=connection)


def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


def add(x: int, y: int) -> int:
    """A result worth storing."""
    ledger.completed()
    return x + y


def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


TASKS: dict[str, Any] = {"noop": noop, "add": add, "swallow": swallow}


def keep_seconds(task: str) -> int:
    """How long its result is kept; 0: it is not."""
    return 500 if task == "add" else 0


async def start() -> None:
    """Nothing to make."""


async def send(task: str, *args: object) -> Any:
    """The job."""
    return queue.enqueue(TASKS[task], *args, result_ttl=keep_seconds(task))


async def send_many(task: str, args: tuple[object, ...], count: int) -> list[Any]:
    """Pipelines of 500."""
    jobs: list[Any] = []
    while len(jobs) < count:
        batch = min(500, count - len(jobs))
        data = [Queue.prepare_data(TASKS[task], args=args, result_ttl=keep_seconds(task)) for _ in range(batch)]
        jobs += queue.enqueue_many(data)
    return jobs


async def result(handle: Any) -> object:
    """Wait for the next entry of its stream of results."""
    latest = handle.latest_result(timeout=int(setting.RESULT_SECONDS))
    return latest.return_value if latest is not None else None


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.id)


def handle(key: str) -> Any:
    """The job of an id."""
    return Job.fetch(key, connection=connection)


def workers(children: int) -> list[list[str]]:
    """A pool."""
    program = os.path.join(os.path.dirname(sys.executable), "rq")
    options = ["--num-workers", str(children), "--worker-class", "rq.worker.SimpleWorker", "--quiet"]
    return [[sys.executable, program, "worker-pool", "bench", "--url", setting.BROKER, *options]]
