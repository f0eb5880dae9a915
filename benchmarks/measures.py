"""How one run of one contestant is measured.

Vocabulary
    *Contestant*: a task queue with its settings, on a broker, with so many tasks. *Run*: one measurement of it, on an
    empty place in it, with processes that are started for it and killed after it.

Rules
    1. For a drain the queue is filled while no worker runs; then one is started, and the clock runs from the first
       completion to the last, as the ledger has them, so that starting up costs nobody anything.
    2. CPU time is that of all the worker's processes, or all the broker's, over the same stretch and 0.1 s more, in
       which what the last tasks left behind is settled.
    3. Results are looked at after the clock has stopped: a wrong or missing one fails the run.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import ledger
import processes
from systems.starting import PROGRAMS

if TYPE_CHECKING:
    from brokers import Broker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
#: How long a worker may go without completing anything, its start included.
STALL_SECONDS = 30.0
PRODUCER_SECONDS = 900.0
SETTLE_SECONDS = 0.1
#: An idle worker is looked at when it has had this long to calm down, and for so long.
CALM_SECONDS = 1.0
WATCHED_SECONDS = 3.0
#: Starts of an interpreter in one run, of each program.
STARTS = 5

Measures = dict[str, float]


class System(NamedTuple):
    """A task queue: where it is installed, its module in `systems`, the distribution that has its version."""

    environment: str
    module: str
    distribution: str

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return ROOT / self.environment / "bin" / "python"


SYSTEMS = {
    "celeriac": System(".venv", "celery_tasks", "celeriac"),
    "celery": System(".venv-celery57", "celery_tasks", "celery"),
    **{
        name: System(".venv-peers", f"{name}_tasks", name)
        for name in ("dramatiq", "huey", "rq", "taskiq", "arq", "saq", "procrastinate", "pgqueuer")
    },
}


class Contestant(NamedTuple):
    """What is compared."""

    label: str
    #: key in `SYSTEMS`
    system: str
    #: key in `brokers.BROKERS`
    broker: str
    #: how many tasks; several seconds of work for this one
    tasks: int
    task: str = "noop"
    children: int = 2
    #: what its module reads from `systems.setting.OPTIONS`
    options: dict[str, Any] = {}
    #: completions after which to stop; 0: all of them
    enough: int = 0


class Spent(NamedTuple):
    """CPU seconds so far."""

    worker: float
    main: float
    broker: float


class Run:
    """One run: an empty place in a broker, a folder, and what processes have to know of them."""

    def __init__(self, contestant: Contestant, broker: Broker) -> None:
        self.contestant = contestant
        self.system = SYSTEMS[contestant.system]
        self.broker = broker
        self.folder = broker.new_folder()
        self.environment = {
            **broker.fresh(),
            "BENCH_LEDGER": str(self.folder / "ledger"),
            "BENCH_OPTIONS": json.dumps(contestant.options),
            "BENCH_CHILDREN": str(contestant.children),
            "PYTHONPATH": str(HERE),
        }
        if contestant.broker == "postgres":
            self.environment["PGDSN"] = self.environment["BENCH_BROKER"]
        self.book = ledger.Reader(self.folder / "ledger")
        self.adapter("prepare")

    def command(self, *arguments: str) -> list[str]:
        """A command of its adapter."""
        return [str(self.system.python), "adapter.py", self.system.module, *arguments]

    def adapter(self, *arguments: str, text: str | None = None) -> dict[str, Any]:
        """Have the adapter do something; what it printed.

        Raises:
            RuntimeError: it failed; carries what it said.
        """
        ended = subprocess.run(
            self.command(*arguments),
            cwd=HERE,
            env={**os.environ, **self.environment},
            input=text,
            text=True,
            capture_output=True,
            timeout=PRODUCER_SECONDS,
            check=False,
        )
        if ended.returncode:
            said = f"{ended.stdout[-500:]}{ended.stderr[-3000:]}"
            raise RuntimeError(f"{self.contestant.label}: adapter.py {' '.join(arguments)} failed:\n{said}")
        answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return answer

    def worker(self) -> processes.Command:
        """Start its worker, to be killed in the end: what it would do to stop in good order is not measured."""
        command = self.command("worker", str(self.contestant.children))
        log = self.folder / "worker.log"
        return processes.Command(self.contestant.label, command, HERE, self.environment, log, stop=signal.SIGKILL)

    def spent(self, worker: processes.Command) -> Spent:
        """CPU time up to now."""
        mine = worker.processes()
        return Spent(sum(mine.values()), mine.get(worker.process.pid, 0.0), self.broker.cpu_seconds())

    def wait_for(self, count: int, worker: processes.Command) -> None:
        """Wait until so many tasks have been completed.

        Raises:
            RuntimeError: the worker ended, or completes nothing any more.
        """
        seen, since = 0, time.monotonic()
        while (done := self.book.totals().completions) < count:
            worker.check()
            if done > seen:
                seen, since = done, time.monotonic()
            elif time.monotonic() - since > STALL_SECONDS:
                raise RuntimeError(f"{worker.name} stands still at {done} of {count} tasks:\n{worker.said()}")
            time.sleep(0.01)


def drain(run: Run) -> Measures:
    """Fill the queue, start a worker, wait for the last task."""
    contestant = run.contestant
    keys = run.adapter("fill", contestant.task, str(contestant.tasks))["keys"]
    expected = contestant.tasks + (contestant.task == "chord")
    fetched: dict[str, Any] = {}
    with run.book, run.worker() as worker:
        run.wait_for(1, worker)
        # Starting up is not draining: what was spent before this moment does not count.
        before, done = run.spent(worker), run.book.totals().completions
        run.wait_for(contestant.enough or expected, worker)
        time.sleep(SETTLE_SECONDS)
        totals, after = run.book.totals(), run.spent(worker)
        if contestant.task == "add":
            fetched = run.adapter("fetch", text=json.dumps(keys))
    if totals.completions > expected:
        raise RuntimeError(f"{contestant.label}: {totals.completions} completions of {contestant.tasks} tasks")
    if fetched.get("wrong"):
        raise RuntimeError(f"{contestant.label}: results missing or wrong: {fetched['wrong'][:5]}")
    share = 1e6 / max(1, totals.completions - done)
    measures = {
        "tasks_per_second": totals.rate,
        "worker_us": share * (after.worker - before.worker),
        "main_us": share * (after.main - before.main),
        "broker_us": share * (after.broker - before.broker),
    }
    if fetched:
        measures["fetches_per_second"] = fetched["fetches_per_second"]
    return measures


def roundtrip(run: Run) -> Measures:
    """Send and get, one at a time; the producer's own warm-up waits for the worker."""
    with run.book, run.worker() as worker:
        try:
            return run.adapter("roundtrip", str(run.contestant.tasks))
        finally:
            worker.check()


def send(run: Run) -> Measures:
    """Send one at a time to a queue that nobody reads."""
    return sending(run, "send")


def bulk(run: Run) -> Measures:
    """Send many at once to a queue that nobody reads."""
    return sending(run, "bulk")


def sending(run: Run, verb: str) -> Measures:
    """Send, and see what that costs the broker."""
    before = run.broker.cpu_seconds()
    answer = run.adapter(verb, run.contestant.task, str(run.contestant.tasks))
    return {**answer, "broker_us": 1e6 * (run.broker.cpu_seconds() - before) / run.contestant.tasks}


def flow(run: Run) -> Measures:
    """Send a workflow to a worker that waits for it; when its first part ran, when its last one had run."""
    run.adapter("fill", "noop", "1")
    with run.book, run.worker() as worker:
        run.wait_for(1, worker)
        before = run.spent(worker)
        with futures.ThreadPoolExecutor(1) as producer:
            sending = producer.submit(run.adapter, "flow", run.contestant.task, str(run.contestant.tasks))
            # One more task comes from the producer's own warm-up.
            first = 0.0
            while not sending.done():
                if not first and run.book.totals().completions > 2:
                    first = time.monotonic()
                time.sleep(0.002)
        answer = sending.result()
        run.wait_for(2 + answer["parts"], worker)
        time.sleep(SETTLE_SECONDS)
        totals, after = run.book.totals(), run.spent(worker)
    took = totals.last - answer["began"]
    # How long it took as a whole compares only where something waits for the end.
    total = {"total_seconds": answer["total_seconds"]} if "total_seconds" in answer else {}
    return {
        **total,
        "first_task_seconds": max(0.0, first - answer["began"]),
        "tasks_per_second": answer["parts"] / took,
        "worker_us": 1e6 * (after.worker - before.worker) / answer["parts"],
        "broker_us": 1e6 * (after.broker - before.broker) / answer["parts"],
        "producer_mib": answer["producer_mib"],
    }


def idle(run: Run) -> Measures:
    """The memory and the restlessness of a worker that has done one task and has nothing to do."""
    run.adapter("fill", "noop", "1")
    with run.book, run.worker() as worker:
        run.wait_for(1, worker)
        time.sleep(CALM_SECONDS)
        before = sum(worker.processes().values())
        time.sleep(WATCHED_SECONDS)
        busy = (sum(worker.processes().values()) - before) / WATCHED_SECONDS
        return {"pss_mib": worker.pss_mib(), "idle_percent": 100 * busy}


#: Around a program of `systems.starting`: how many modules it loads.
COUNTING = "import sys\nbare = len(sys.modules)\nURL = {url!r}\n{program}\nprint(len(sys.modules) - bare)"


def starting(run: Run) -> Measures:
    """From the start of an interpreter to the first application, and to the first task sent; modules loaded."""
    program = PROGRAMS[run.system.module]
    bare, _ = start(run, "")
    made, modules = start(run, program.application)
    sent, modules_sent = start(run, f"{program.application}\n{program.send}")
    return {
        "import_ms": made - bare,
        "import_modules": modules,
        "first_send_ms": sent - bare,
        "first_send_modules": modules_sent,
    }


def start(run: Run, program: str) -> tuple[float, int]:
    """Start an interpreter several times: the median of its CPU milliseconds, and its modules."""
    text = COUNTING.format(url=run.environment["BENCH_BROKER"], program=program)
    times, modules = [], 0
    for _ in range(STARTS):
        before = children_cpu()
        ended = subprocess.run(
            [str(run.system.python), "-c", text],
            text=True,
            capture_output=True,
            timeout=PRODUCER_SECONDS,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{run.contestant.label}: importing failed:\n{ended.stderr[-3000:]}")
        times.append(children_cpu() - before)
        modules = int(ended.stdout)
    return 1000 * statistics.median(times), modules


def children_cpu() -> float:
    """CPU seconds of the processes that we started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
