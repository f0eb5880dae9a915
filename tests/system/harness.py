"""Real workers in processes of their own, and a ledger of what their tasks did.

*Stage*: a broker, a result store, a folder, an application to send with. Its workers run `project`. Nothing here knows
what a worker is made of: it starts ``celery worker``, reads its log, looks at its processes, and sends it signals.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from celery import Celery
from celery.brokers.base import Publish
from celery.brokers.topology import Queue

HERE = Path(__file__).parent
#: What must come at once may take this long on a busy machine, in seconds.
SOON = 20.0
#: Faults come in full size, as by `make soak`: the numbers of `docs/guarantees.md` are what `measured` says then.
FULL = bool(os.environ.get("FULL_SIZE"))


def size(short, full):
    """How much of something there is."""
    return full if FULL else short


def measured(stage, what, **numbers):
    """Say what came of a fault; `pytest -s` shows it."""
    print(f"\nmeasured on {stage.name}: {what}: {numbers}", flush=True)


def wait_until(condition, what, seconds=SOON):
    """The first true value of `condition()`, asked every few milliseconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.005)
    return value


class Entry(NamedTuple):
    """A line of the ledger."""

    event: str
    key: str
    pid: int
    time: float


class Ledger:
    """What tasks did."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def entries(self, event=None, key=None):
        """Those of an event, of a key."""
        # A reader may see the beginning of a line that is just being written.
        written, _, _ = self.path.read_text().rpartition("\n")
        rows = (line.split() for line in written.splitlines())
        found = (Entry(event, key, int(pid), float(at)) for event, key, pid, at in rows)
        return [each for each in found if event in (None, each.event) and key in (None, each.key)]

    def wait(self, event, key=None, times=1, seconds=SOON):
        """The entries, as soon as there are so many."""

        def enough():
            found = self.entries(event, key)
            return found if len(found) >= times else None

        return wait_until(enough, lambda: f"{times} of {event} {key}, but {self.entries(event, key)[-3:]}", seconds)

    def counts(self, event):
        """How often, by key."""
        return Counter(entry.key for entry in self.entries(event))


class WorkerProcess:
    """A worker and all its processes, which are those of its session."""

    def __init__(self, stage, number, argv, settings):
        self.log = stage.folder / f"worker-{number}.log"
        self.node = f"w{number}@{stage.queue}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY")}
        environment |= {
            "SYSTEM_BROKER": stage.broker,
            "SYSTEM_BACKEND": stage.backend,
            "SYSTEM_LEDGER": str(stage.ledger.path),
            "SYSTEM_CONF": json.dumps({**stage.settings, **settings}),
            "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "celery", "-A", "project", "worker", "-l", "INFO", "-n", self.node, *argv]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=stage.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self.process.pid
        #: Nothing of it is left, and its number may be another's.
        self.gone = False

    def said(self):
        """Its log."""
        return self.log.read_text(errors="replace")

    def wait_said(self, text, seconds=SOON):
        """Return when it has said this."""

        def spoken():
            assert text in (said := self.said()) or self.process.poll() is None, said[-3000:]
            return text in said

        wait_until(spoken, lambda: f"{text!r} in\n{self.said()[-3000:]}", seconds)

    def wait_ready(self):
        """Return when it consumes."""
        self.wait_said(" ready.", 40)
        return self

    def processes(self):
        """(pid, parent's pid, state) of its processes."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.pid and fields[0] not in "ZX":
                    found.append((int(stat.parent.name), int(fields[1]), fields[0]))
        return found

    def nursery(self):
        """The process that forks the others."""
        (pid,) = [pid for pid, parent, _ in self.processes() if parent == self.pid]
        return pid

    def children(self):
        """Processes that run tasks: those that have no children themselves. A nursery that has none yet is none."""
        found = self.processes()
        parents = {parent for _, parent, _ in found}
        nurseries = [pid for pid, parent, _ in found if parent == self.pid]
        if len(nurseries) > 1:  # spawned: there is no nursery
            nurseries = []
        return [pid for pid, _, _ in found if pid != self.pid and pid not in parents and pid not in nurseries]

    def memory(self):
        """Resident bytes of its main process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def tell(self, number):
        """Send its main process a signal."""
        self.process.send_signal(number)

    def wait_end(self, seconds=SOON):
        """Its exit status; nothing of it is left then."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.said()[-3000:]}") from None
        wait_until(lambda: not self.processes(), lambda: self.processes(), 5)
        self.gone = True
        return status

    def stop(self, number=signal.SIGTERM):
        """Signal, and its exit status."""
        self.tell(number)
        return self.wait_end()

    def kill(self):
        """SIGKILL to all its processes, as when the machine goes away."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
            self.gone = True


class Stage:
    """A broker with a queue of one's own, its workers, and an application to send with."""

    def __init__(self, name, broker, backend, folder, **settings):
        self.name = name
        self.broker = broker
        self.backend = backend
        self.folder = folder
        self.queue = f"system-{uuid.uuid4().hex[:8]}"
        self.settings = {"task_default_queue": self.queue, **settings}
        self.ledger = Ledger(folder / "ledger")
        self.workers = []
        self.app = Celery(broker=broker, backend=backend, set_as_current=False)
        self.app.conf.update(self.settings)

    def start(self, *argv, **settings):
        """Start a worker, and do not wait for it."""
        worker = WorkerProcess(self, len(self.workers), argv or ("-c", "2"), settings)
        self.workers.append(worker)
        return worker

    def worker(self, *argv, **settings):
        """A worker that consumes."""
        return self.start(*argv, **settings).wait_ready()

    def send(self, task, *args, **options):
        """Send one of the project's tasks."""
        return self.app.send_task(f"project.{task}", args, **options)

    def send_all(self, task, arguments, **options):
        """Send a task for each tuple of arguments."""
        return [self.send(task, *args, **options) for args in arguments]

    def publish(self, envelopes):
        """Send messages as they are."""
        queue = Queue(self.queue)
        batch = [Publish(envelope, "", self.queue, queue) for envelope in envelopes]
        self.app.publisher.run(lambda sender: sender.publish(batch, confirm=True))

    def key(self):
        """A word that nobody else uses."""
        return uuid.uuid4().hex[:12]

    def open_gate(self, name):
        """Let the tasks go on that wait at it."""
        (self.folder / f"gate-{name}").touch()

    def waiting(self):
        """Messages that wait in the queue."""
        return self.app.publisher.run(lambda sender: sender.length(self.queue))

    def dead(self):
        """What the queue has refused."""
        return self.app.publisher.run(lambda sender: sender.dead_letters(self.queue))

    def close(self):
        """Kill what is left."""
        for worker in self.workers:
            worker.kill()
        self.app.close()


class Census:
    """What was sent, and what the ledger says about it."""

    def __init__(self, stage):
        self.stage = stage
        self.keys = []

    def send(self, task, count, *args, **options):
        """Send `count` tasks."""
        keys = [self.stage.key() for _ in range(count)]
        for key in keys:
            self.stage.send(task, key, *args, **options)
            self.keys.append(key)
        return keys

    def lost(self, event="end"):
        """How many have not ended."""
        counts = self.stage.ledger.counts(event)
        return [key for key in self.keys if not counts[key]]

    def twice(self, event="end"):
        """Those that ended more than once."""
        counts = self.stage.ledger.counts(event)
        return [key for key in self.keys if counts[key] > 1]

    def wait_none_lost(self, seconds, event="end"):
        """Return when all have ended."""
        wait_until(lambda: not self.lost(event), lambda: f"{len(self.lost(event))} lost", seconds)
