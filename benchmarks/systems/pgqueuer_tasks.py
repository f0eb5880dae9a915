"""PgQueuer on PostgreSQL with asyncpg and uvloop: a process each, batches of 500, its settings for autovacuum.

Its tables are `volatile`, its fastest durability: the Redis that the others use here would lose as much in a crash. It
stores no results.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncpg
import ledger
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from systems import setting

WAITS = True
BATCH = 500

_queries: Any = None


async def work() -> None:
    """Be a worker."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(setting.BROKER)))

    @queuer.entrypoint("noop")
    async def noop(_: Any) -> None:
        ledger.completed()

    @queuer.entrypoint("swallow")
    async def swallow(_: Any) -> None:
        ledger.completed()

    @queuer.entrypoint("nap")
    async def nap(_: Any) -> None:
        await asyncio.sleep(setting.NAP_SECONDS)
        ledger.completed()

    await queuer.run(batch_size=BATCH)


def prepare() -> None:
    """Make its tables."""
    program = os.path.join(os.path.dirname(sys.executable), "pgq")
    for command in (["install", "--durability", "volatile"], ["autovac"]):
        subprocess.run([sys.executable, program, *command], check=True, stdout=subprocess.DEVNULL)


async def start() -> None:
    """Connect."""
    global _queries  # noqa: PLW0603  one per process
    _queries = Queries(AsyncpgDriver(await asyncpg.connect(setting.BROKER)))


def payload(args: tuple[object, ...]) -> bytes | None:
    """It carries bytes."""
    return str(args[0]).encode() if args else None


async def send(task: str, *args: object) -> Any:
    """The number of the job."""
    return (await _queries.enqueue(task, payload(args)))[0]


async def send_many(task: str, args: tuple[object, ...], count: int) -> list[Any]:
    """Statements of 500 jobs."""
    jobs: list[Any] = []
    while len(jobs) < count:
        size = min(BATCH, count - len(jobs))
        jobs += await _queries.enqueue([task] * size, [payload(args)] * size, [0] * size)
    return jobs


def key(handle: Any) -> str:
    """Its number."""
    return str(handle)


def workers(children: int) -> list[list[str]]:
    """A worker is one process; its command has no uvloop, so it is started as its guide on running by program says."""
    return [[sys.executable, "-m", "systems.pgqueuer_tasks"]] * children


if __name__ == "__main__":
    uvloop.run(work())
