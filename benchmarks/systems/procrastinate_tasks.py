"""Procrastinate on PostgreSQL: a process each, finished jobs deleted at once, 30 jobs at once.

It stores no results.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import ledger
from procrastinate import App, PsycopgConnector

from systems import setting

WAITS = True

app = App(connector=PsycopgConnector(conninfo=setting.BROKER))


@app.task
async def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@app.task
async def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


@app.task
async def nap() -> None:
    """Wait, beside many others."""
    await asyncio.sleep(setting.NAP_SECONDS)
    ledger.completed()


TASKS: dict[str, Any] = {"noop": noop, "swallow": swallow, "nap": nap}
#: It knows arguments by name only.
NAMES = {"noop": (), "swallow": ("data",), "nap": ()}


def prepare() -> None:
    """Make its tables."""
    program = os.path.join(os.path.dirname(sys.executable), "procrastinate")
    subprocess.run([sys.executable, program, "-a", "systems.procrastinate_tasks.app", "schema", "--apply"], check=True)


async def start() -> None:
    """Connect."""
    await app.open_async()


async def send(task: str, *args: object) -> Any:
    """The number of the job."""
    return await TASKS[task].defer_async(**dict(zip(NAMES[task], args, strict=True)))


async def send_many(task: str, args: tuple[object, ...], count: int) -> list[Any]:
    """Statements of 500 jobs."""
    jobs: list[Any] = []
    arguments = dict(zip(NAMES[task], args, strict=True))
    while len(jobs) < count:
        jobs += await TASKS[task].batch_defer_async(*[arguments] * min(500, count - len(jobs)))
    return jobs


def key(handle: Any) -> str:
    """Its number."""
    return str(handle)


def workers(children: int) -> list[list[str]]:
    """A worker is one process."""
    program = os.path.join(os.path.dirname(sys.executable), "procrastinate")
    at_once = setting.AT_ONCE // children if setting.OPTIONS.get("naps") else 30
    options = ["worker", "--concurrency", str(at_once), "--delete-jobs", "always"]
    quiet = ["--log-level", "warning"]
    return [[sys.executable, program, "-a", "systems.procrastinate_tasks.app", *quiet, *options]] * children
