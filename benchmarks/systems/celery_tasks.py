"""Celeriac and Celery: the same module in two environments.

Celery gets a prefetch of 64 a child, as its guide on optimizing advises for many short tasks; its default of 4 starves
its children here. Ours adapts by itself. Celery naps in gevent's pool, its own answer for tasks that wait; ours are
coroutines.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

import ledger

from celery import Celery
from systems import setting

WAITS = False

# By a module that only ours has: asking for distributions would add to the memory of a worker, Celery's and ours.
OURS = importlib.util.find_spec("celery.wire") is not None

GEVENT = setting.OPTIONS.get("pool") == "gevent"
app = Celery("celery_tasks", broker=setting.BROKER, backend=setting.BACKEND or None)
app.conf.update({name: value for name, value in setting.OPTIONS.items() if name not in {"pool", "events", "priority"}})
if OURS:
    app.conf.worker_async_concurrency = setting.AT_ONCE // setting.CHILDREN
else:
    app.conf.worker_prefetch_multiplier = 4 if GEVENT else 64

#: Of each message, where the run is about priorities.
SEND_OPTIONS = {"priority": 5} if setting.OPTIONS.get("priority") else {}


@app.task(ignore_result=True)
def noop() -> None:
    """Nothing but its own completion, on record."""
    ledger.completed()


@app.task
def add(x: int, y: int) -> int:
    """A result worth storing, and its completion on record."""
    ledger.completed()
    return x + y


@app.task(ignore_result=True)
def swallow(data: str) -> None:  # noqa: ARG001  it is the carrying that counts
    """Take a large argument."""
    ledger.completed()


if OURS:
    import asyncio

    @app.task(ignore_result=True)
    async def nap() -> None:
        """Wait, beside many others."""
        await asyncio.sleep(setting.NAP_SECONDS)
        ledger.completed()
else:

    @app.task(ignore_result=True)
    def nap() -> None:
        """Wait, beside many others: gevent has put its own sleep in place of this one."""
        time.sleep(setting.NAP_SECONDS)
        ledger.completed()


@app.task
def echo(value: int) -> int:
    """One part of a workflow."""
    ledger.completed()
    return value


@app.task
def step(value: int) -> int:
    """One link of a chain."""
    ledger.completed()
    return value + 1


@app.task
def ordered(values: list[int]) -> bool:
    """The body of a chord: whether everything arrived, in order."""
    ledger.completed()
    return values == list(range(len(values)))


TASKS: dict[str, Any] = {"noop": noop, "add": add, "swallow": swallow, "nap": nap}


async def start() -> None:
    """Nothing to make: connections are made on first use."""


async def send(task: str, *args: object) -> Any:
    """As a web view would."""
    if SEND_OPTIONS:
        return TASKS[task].apply_async(args, **SEND_OPTIONS)
    return TASKS[task].delay(*args)


def flow(shape: str, count: int) -> Any:
    """Send a workflow of so many parts; what the last of them gives."""
    from celery import chain, chord, group

    match shape:
        case "group":
            return group(noop.s() for _ in range(count)).apply_async()
        case "results":
            return group(echo.s(number) for number in range(count)).apply_async()
        case "chord":
            return chord((echo.s(number) for number in range(count)), ordered.s()).apply_async()
        case "chain":
            return chain(step.s(0), *(step.s() for _ in range(count - 1))).apply_async()
        case "nested":
            # Groups one after another; each part but those of the first group ignores what came before it.
            groups = (group(echo.si(number) for number in range(count)) for _ in range(count))
            return chain(*groups, ordered.s()).apply_async()
        case _:
            raise ValueError(f"{shape} is no workflow")


async def send_many(task: str, args: tuple[object, ...], count: int) -> list[Any]:
    """Ours has a call for it; Celery's nearest is a group, which sends one by one."""
    if task not in TASKS:
        sent = flow(task, count)
        return sent.results if task in {"group", "results"} else [sent]
    signatures = (TASKS[task].s(*args).set(**SEND_OPTIONS) for _ in range(count))
    if OURS:
        return list(app.send_many(signatures))  # type: ignore[attr-defined, unused-ignore]
    from celery import group

    return list(group(signatures).apply_async().results)


async def result(handle: Any) -> object:
    """The value."""
    return handle.get(timeout=setting.RESULT_SECONDS)


#: What a workflow of so many parts has to give.
EXPECTED = {"chord": lambda _: True, "chain": lambda count: count, "nested": lambda _: True}


def key(handle: Any) -> str:
    """Its id."""
    return str(handle.id)


def handle(key: str) -> Any:
    """The result object of an id."""
    return app.AsyncResult(key)


def workers(children: int) -> list[list[str]]:
    """One worker; with gevent all in its one process."""
    pool, concurrency = ("gevent", setting.AT_ONCE) if GEVENT else ("prefork", children)
    command = [sys.executable, "-m", "celery", "-A", "systems.celery_tasks", "worker", "--loglevel", "WARNING"]
    events = ["-E"] if setting.OPTIONS.get("events") else []
    return [[*command, "--pool", pool, "--concurrency", str(concurrency), *events]]
