"""Mixed fleets: workers and clients of this Celery ("ours") and of Celery 5.7.0 ("theirs"), all running `project`.

A *side* is one of the two. A `Fleet` is a broker, a result store, names of its own in them, and a ledger; it starts
workers and clients of either side. The worker of a side consumes a queue of its own, so that a test chooses who runs
what, and the one that both share.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

HERE = Path(__file__).parent
#: What must come at once may take this long on a busy machine, in seconds.
SOON = 30.0


def wait_until(condition, what, seconds=SOON):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


class Client:
    """Sends tasks and reads results, in the interpreter of its side."""

    def __init__(self, process, log):
        self.process = process
        self.log = log
        self.answers = selectors.DefaultSelector()
        self.answers.register(process.stdout, selectors.EVENT_READ)

    def do(self, expression):
        """The value of an expression in the names of `project`, as JSON has it."""
        self.process.stdin.write(json.dumps(expression) + "\n")
        self.process.stdin.flush()
        assert self.answers.select(2 * SOON), f"no answer to {expression}:\n{self.log.read_text()[-3000:]}"
        line = self.process.stdout.readline()
        assert line, self.log.read_text()[-3000:]
        answer = json.loads(line)
        assert "error" not in answer, f"{expression}\n{answer['error']}"
        return answer["value"]


class Worker:
    """A worker's processes, which are those of its session."""

    def __init__(self, process, log):
        self.process = process
        self.log = log

    def said(self):
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def wait_end(self):
        """Its exit status."""
        try:
            return self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there:\n{self.said()}") from None


class Fleet:
    """See the module's text."""

    def __init__(self, broker, backend, folder, celery57, **transport_options):
        self.name = f"mixed-{uuid.uuid4().hex[:8]}"
        self.broker = broker
        self.backend = backend
        self.folder = folder
        self.pythons = {"ours": sys.executable, "theirs": str(celery57)}
        self.options = transport_options
        self.processes = []
        (folder / "ledger").touch()

    def _start(self, side, argv, **options):
        # Neither side may find the other's package through the environment of the test.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY", "PYTHON"))}
        environment |= {
            "PYTHONPATH": str(HERE),
            "INTEROP_FOLDER": str(self.folder),
            "INTEROP_NAME": self.name,
            "INTEROP_BROKER": self.broker,
            "INTEROP_BACKEND": self.backend,
            "INTEROP_TRANSPORT_OPTIONS": json.dumps(self.options),
            "C_FORCE_ROOT": "1",
        }
        log = self.folder / f"{side}-{len(self.processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [self.pythons[side], *argv], env=environment, cwd=self.folder, stderr=output, start_new_session=True,
                **{"stdout": output, **options},
            )  # fmt: skip
        self.processes.append(process)
        return process, log

    def client(self, side):
        """Start a client."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return Client(*self._start(side, [str(HERE / "client.py")], **pipes))

    def worker(self, side, *argv):
        """Start a worker with one child; `wait_ready` says when it consumes."""
        queues = f"{self.name},{self.name}-{side},{self.name}-urgent-{side}"
        program = ["-m", "celery", "-A", "project", "worker", "-l", "INFO"]
        return Worker(*self._start(side, [*program, "-n", f"{side}@host", "-c", "1", "-Q", queues, *argv]))

    def wait_ready(self, worker, side, times=1):
        """Return when the worker of a side consumes (for the n-th time)."""

        def ready():
            assert worker.process.poll() is None, worker.said()
            return len(self.noted("ready", self.name, side)) >= times

        wait_until(ready, worker.said)

    def ledger(self):
        """All that tasks did: event, key, node."""
        # A reader may see the beginning of a line that is just being written.
        written, _, _ = (self.folder / "ledger").read_text().rpartition("\n")
        return [line.split() for line in written.splitlines()]

    def noted(self, event, key, node=None):
        """Nodes that put this on record."""
        return [who for what, about, who in self.ledger() if (what, about) == (event, key) and node in (None, who)]

    def wait_noted(self, event, key):
        """The nodes, as soon as there is one."""
        return wait_until(lambda: self.noted(event, key), f"{event} {key}")

    def wait_until_time(self, moment):
        """Return at a moment, in unix seconds."""
        time.sleep(max(0.0, moment - time.time()))

    def open_gate(self, key):
        """Let the tasks go on that wait at it."""
        (self.folder / f"gate-{key}").touch()

    def kill(self, process):
        """SIGKILL to all processes of a worker, as when the machine goes away."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self):
        """Kill what is left."""
        for process in self.processes:
            self.kill(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
