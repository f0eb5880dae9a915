"""What a run asks of a task queue, done by an interpreter that has it; prints one JSON object.

python adapter.py MODULE worker CHILDREN        be its worker, until killed
python adapter.py MODULE prepare                what it needs in an empty broker
python adapter.py MODULE fill TASK N            send as quickly as it can; keys of some
python adapter.py MODULE send TASK N            send one by one
python adapter.py MODULE bulk TASK N            send by the call made for many
python adapter.py MODULE roundtrip N            send, wait for the result, N times
python adapter.py MODULE fetch                  get the results of the keys on standard input
python adapter.py MODULE flow SHAPE N           send a workflow, wait for its result; when that began

MODULE is one of `systems`, which says what each of them has. Times are of the wall, and of this process's CPU.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import resource
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine

#: Sends and round trips before the clock starts: connections are made, lazy modules loaded.
WARM_UP = 20
#: Results that are looked up after a drain.
SAMPLE = 500
#: How long a workflow may take.
FLOW_SECONDS = 400.0
#: Tasks that are remembered while a queue is filled, and sends at once.
FILLING, AT_ONCE = 20_000, 50
#: What `add` makes of its arguments here.
SUM = 5
#: 100 KB that do not get smaller: PostgreSQL packs large values, and would have kept a row of one letter in 1 KB.
LARGE = f"{random.Random(0).getrandbits(400_000):0100000x}"
ARGUMENTS: dict[str, tuple[object, ...]] = {"noop": (), "add": (2, 3), "swallow": (LARGE,), "nap": ()}

Answer = dict[str, Any]


class Clock:
    """Wall and CPU time of a stretch, by ``with``."""

    def __enter__(self) -> Self:
        self.began, self.spent = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.seconds = time.perf_counter() - self.began
        self.cpu = time.process_time() - self.spent


async def send(system: Any, task: str, count: int) -> Answer:
    """Send one by one, as a web view would."""
    args = ARGUMENTS[task]
    for _ in range(WARM_UP):
        await system.send(task, *args)
    with Clock() as clock:
        for _ in range(count):
            await system.send(task, *args)
    return {"sends_per_second": count / clock.seconds, "send_us": 1e6 * clock.cpu / count}


async def bulk(system: Any, task: str, count: int) -> Answer:
    """Send many by one call."""
    args = ARGUMENTS[task]
    await system.send_many(task, args, WARM_UP)
    with Clock() as clock:
        await system.send_many(task, args, count)
    return {"sends_per_second": count / clock.seconds, "send_us": 1e6 * clock.cpu / count}


async def fill(system: Any, task: str, count: int) -> Answer:
    """Fill a queue; how fast does not matter."""
    # A workflow is sent as a whole.
    stretch = FILLING if task in ARGUMENTS else count
    keys: list[str] = []
    for begun in range(0, count, stretch):
        handles = await fill_stretch(system, task, min(stretch, count - begun))
        # Each once: where a result is gone when it was read, the second time would be a failure.
        chosen = [*handles[: -1 : max(1, len(handles) // SAMPLE)], handles[-1]]
        keys += [system.key(handle) for handle in chosen]
    return {"keys": keys[:: max(1, len(keys) // SAMPLE)]}


async def fill_stretch(system: Any, task: str, count: int) -> list[Any]:
    """Send some, in whatever way is quickest; their handles."""
    args = ARGUMENTS.get(task, ())
    if hasattr(system, "send_many"):
        handles: list[Any] = await system.send_many(task, args, count)
        return handles
    if not system.WAITS:
        return [await system.send(task, *args) for _ in range(count)]
    handles = []
    while len(handles) < count:
        size = min(AT_ONCE, count - len(handles))
        handles += await asyncio.gather(*(system.send(task, *args) for _ in range(size)))
    return handles


async def roundtrip(system: Any, count: int) -> Answer:
    """Send a task and wait for its result, one at a time; milliseconds."""
    async def call(task: str, *args: object) -> object:
        return await system.result(await system.send(task, *args))

    call = getattr(system, "call", call)
    times = []
    for number in range(WARM_UP + count):
        began = time.perf_counter()
        result = await call("add", number, 1)
        times.append(1000 * (time.perf_counter() - began))
        if result != number + 1:
            raise AssertionError(f"{number} + 1 came back as {result!r}")
    centiles = statistics.quantiles(times[WARM_UP:], n=100)
    return {"p50_ms": centiles[49], "p99_ms": centiles[98]}


def flow(system: Any, shape: str, count: int) -> Answer:
    """Send a workflow and wait for what its last part gives; seconds, and MiB that were not needed before."""
    system.noop.delay()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    handle = system.flow(shape, count)
    sent = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    parts = count * count + 1 if shape == "nested" else count
    answer = {"began": began, "parts": parts, "sent_seconds": sent, "producer_mib": memory / 1024}
    if shape in system.EXPECTED:
        value = handle.get(timeout=FLOW_SECONDS)
        answer["total_seconds"] = time.monotonic() - began
        if value != system.EXPECTED[shape](count):
            raise AssertionError(f"{shape} of {count} gave {value!r:.200}")
    return answer


async def fetch(system: Any, keys: list[str]) -> Answer:
    """Get results one by one: a worker may not be fast by leaving work out."""
    with Clock() as clock:
        wrong = [key for key in keys if await system.result(system.handle(key)) != SUM]
    return {"wrong": wrong, "fetches_per_second": len(keys) / clock.seconds}


def be_worker(system: Any, children: int) -> None:
    """Become its worker; where that is several commands, a shell runs them and this process ends."""
    commands = system.workers(children)
    if len(commands) == 1:
        os.execv(commands[0][0], commands[0])
    lines = " & ".join(" ".join(f"'{word}'" for word in command) for command in commands)
    os.execv("/bin/sh", ["/bin/sh", "-c", f"{lines} & wait"])


def run(system: Any, coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine: on a loop where the system needs one, else straight through."""

    async def started() -> Answer:
        await system.start()
        return await coroutine

    if system.WAITS:
        import uvloop  # of the peers' environment

        waited: Answer = uvloop.run(started())
        return waited
    try:
        started().send(None)
    except StopIteration as ended:
        straight: Answer = ended.value
        return straight
    raise AssertionError(f"{system.__name__} waits, and says that it does not")


def main() -> None:
    """Do what the command line says."""
    name, verb, *rest = sys.argv[1:]
    system = importlib.import_module(f"systems.{name}")
    match verb, rest:
        case "worker", [children]:
            be_worker(system, int(children))
        case "prepare", []:
            if hasattr(system, "prepare"):
                system.prepare()
            answer: Answer = {"bulk": hasattr(system, "send_many"), "results": hasattr(system, "result")}
        case "fill", [task, count]:
            answer = run(system, fill(system, task, int(count)))
        case "send", [task, count]:
            answer = run(system, send(system, task, int(count)))
        case "bulk", [task, count]:
            answer = run(system, bulk(system, task, int(count)))
        case "roundtrip", [count]:
            answer = run(system, roundtrip(system, int(count)))
        case "flow", [shape, count]:
            answer = flow(system, shape, int(count))
        case "fetch", []:
            answer = run(system, fetch(system, json.load(sys.stdin)))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
