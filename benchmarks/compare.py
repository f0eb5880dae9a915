"""The same work on Celeriac and on Celery 5.7.0, in turns, on the same servers; prints the medians and their ratio.

For a *drain* the queue is filled while no worker runs; then one is started, and the clock runs from the
first completion to the last, as the ledger outside the broker has them (`ledger.py`), so that starting up costs neither
side. CPU time is that of all of the worker's processes while it drains. A *round trip* is `delay()` and
`get()`, one at a time, with a worker that is warm. A *send* is `delay()`, one at a time, without a worker.

A ratio above 1 means that Celeriac is better by that factor. The two cores of a small machine are shared by
worker, broker and producer alike, so numbers of different machines do not compare; ratios roughly do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import ledger
from side import CONCURRENCY, Side, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import tenancy  # noqa: E402  found through the line above

#: How long a worker may go without completing anything, its start included.
STALL_SECONDS = 30.0
#: Results that are looked up after a drain.
VERIFIED = 100

Measures = dict[str, float]


class Workload(NamedTuple):
    """What is measured, on which broker, with which backend."""

    measure: Callable[[Side, Workload, int, dict[str, str], Path], Measures]
    broker: str
    task: str
    #: tasks, unless --tasks says otherwise
    tasks: int


class Metric(NamedTuple):
    """How a measure is shown."""

    label: str
    higher_is_better: bool


METRICS = {
    "tasks_per_second": Metric("tasks/s", higher_is_better=True),
    "cpu_us_per_task": Metric("worker CPU µs/task", higher_is_better=False),
    "p50_ms": Metric("p50 ms", higher_is_better=False),
    "p99_ms": Metric("p99 ms", higher_is_better=False),
    "sends_per_second": Metric("sends/s", higher_is_better=True),
}


def drain(side: Side, workload: Workload, count: int, environment: dict[str, str], folder: Path) -> Measures:
    """Fill the queue, start a worker, wait for the last task."""
    ids = side.run("send", workload.task, str(count), environment=environment)["ids"]
    book = folder / "ledger"
    ledger.create(book)
    environment = {**environment, "BENCH_LEDGER": str(book)}
    with Worker(side, environment, folder / "worker.log") as worker:
        wait_for(book, 1, worker)
        # Starting up is not draining: what was spent before this moment does not count.
        spent, done = worker.cpu_seconds(), ledger.read(book).completions
        wait_for(book, count, worker)
        cpu = worker.cpu_seconds() - spent
        if workload.task == "add":
            verify(side, ids, environment)
    totals = ledger.read(book)
    if totals.completions != count:
        raise RuntimeError(f"{side.name}: {totals.completions} completions of {count} tasks; some ran twice")
    return {"tasks_per_second": totals.rate, "cpu_us_per_task": 1e6 * cpu / max(1, count - done)}


def wait_for(book: Path, count: int, worker: Worker) -> None:
    """Wait until the ledger has so many completions.

    Raises:
        RuntimeError: the worker ended, or completes nothing any more.
    """
    seen, since = 0, time.monotonic()
    while (done := ledger.read(book).completions) < count:
        worker.check()
        if done > seen:
            seen, since = done, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise RuntimeError(f"{worker.side.name} stands still at {done} of {count} tasks:\n{worker.said()}")
        time.sleep(0.01)


def verify(side: Side, ids: list[str], environment: dict[str, str]) -> None:
    """Look up results all over the run, the last one included."""
    sample = [*ids[:: max(1, len(ids) // VERIFIED)], ids[-1]]
    if wrong := side.run("verify", environment=environment, text=json.dumps(sample))["wrong"]:
        raise RuntimeError(f"{side.name}: results missing or wrong: {wrong[:5]}")


def roundtrip(side: Side, _: Workload, count: int, environment: dict[str, str], folder: Path) -> Measures:
    """Send and get, one at a time; the producer's own warm-up waits for the worker."""
    with Worker(side, environment, folder / "worker.log") as worker:
        try:
            return side.run("roundtrip", str(count), environment=environment)
        finally:
            worker.check()


def send(side: Side, workload: Workload, count: int, environment: dict[str, str], _: Path) -> Measures:
    """Send one at a time to a queue that nobody reads."""
    return {
        "sends_per_second": side.run("send", workload.task, str(count), environment=environment)["sends_per_second"]
    }


WORKLOADS = {
    "drain-redis": Workload(drain, "redis", "noop", 20_000),
    "drain-redis-results": Workload(drain, "redis", "add", 20_000),
    "drain-rabbitmq": Workload(drain, "rabbitmq", "noop", 20_000),
    "roundtrip-redis": Workload(roundtrip, "redis", "add", 1_000),
    "roundtrip-rabbitmq": Workload(roundtrip, "rabbitmq", "add", 1_000),
    "send-redis": Workload(send, "redis", "noop", 5_000),
    "send-rabbitmq": Workload(send, "rabbitmq", "noop", 5_000),
}


@contextlib.contextmanager
def servers(broker: str) -> Iterator[dict[str, str]]:
    """An empty broker and result backend, as `tasks.py` reads them."""
    if broker == "redis":
        with tenancy.redis_database() as url:
            yield {"BENCH_BROKER": url, "BENCH_BACKEND": url}
    else:
        with tenancy.rabbitmq_vhost() as url:
            yield {"BENCH_BROKER": url, "BENCH_BACKEND": "rpc://"}


def once(side: Side, name: str, count: int | None) -> Measures:
    """Measure one workload on one side."""
    workload = WORKLOADS[name]
    with servers(workload.broker) as environment, tempfile.TemporaryDirectory() as folder:
        return workload.measure(side, workload, count or workload.tasks, environment, Path(folder))


def compare(name: str, sides: tuple[Side, Side], pairs: int, count: int | None) -> None:
    """Measure both sides in turns, the first one changing, and print a line for each measure."""
    runs: dict[str, list[Measures]] = {side.name: [] for side in sides}
    for pair in range(pairs):
        for side in sides if pair % 2 == 0 else reversed(sides):
            runs[side.name].append(once(side, name, count))
    ours, theirs = (runs[side.name] for side in sides)
    for key in ours[0]:
        metric = METRICS[key]
        mine, reference = ([run[key] for run in each] for each in (ours, theirs))
        ratio = statistics.median(mine) / statistics.median(reference)
        ratio = ratio if metric.higher_is_better else 1 / ratio
        print(f"| {name} | {metric.label} | {spread(mine)} | {spread(reference)} | {ratio:.2f} |", flush=True)


def spread(values: list[float]) -> str:
    """The median, and how far the runs lie apart."""
    median = f"{statistics.median(values):,.4g}" if max(values) < 1000 else f"{statistics.median(values):,.0f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.4g} to {max(values):,.4g})"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="may be repeated; default: all")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--tasks", type=int, help="tasks of a run, instead of the workload's own number")
    parser.add_argument("--ours", type=Path, default=ROOT / ".venv/bin/python", help="interpreter with Celeriac")
    parser.add_argument(
        "--theirs", type=Path, default=ROOT / ".venv-celery57/bin/python", help="interpreter with Celery 5.7.0"
    )
    return parser.parse_args()


def main() -> None:
    """Compare what the command line says."""
    options = arguments()
    sides = (Side("Celeriac", options.ours.absolute()), Side("Celery 5.7.0", options.theirs.absolute()))
    print(f"{options.pairs} runs each, in turns; {CONCURRENCY} children; {os.cpu_count()} cores\n")
    print("| workload | measure | Celeriac | Celery 5.7.0 | ratio |\n|---|---|---|---|---|")
    for name in options.workload or WORKLOADS:
        compare(name, sides, options.pairs, options.tasks)


if __name__ == "__main__":
    main()
