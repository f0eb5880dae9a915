"""One side of a comparison: an interpreter, its producers and its worker, with the worker's CPU time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from typing import Self

HERE = Path(__file__).resolve().parent
#: Processes that run tasks; the same on both sides.
CONCURRENCY = 2
STOP_SECONDS = 20.0
PRODUCER_SECONDS = 600.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Side(NamedTuple):
    """An implementation under test."""

    name: str
    #: interpreter of the environment that it is installed in
    python: Path

    def run(self, *arguments: str, environment: dict[str, str], text: str | None = None) -> dict[str, Any]:
        """Run `adapter.py` to its end; what it printed.

        Raises:
            RuntimeError: it failed; carries what it said.
        """
        command = [str(self.python), "adapter.py", *arguments]
        ended = subprocess.run(
            command,
            cwd=HERE,
            env={**os.environ, **environment},
            input=text,
            text=True,
            capture_output=True,
            timeout=PRODUCER_SECONDS,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"{self.name}: adapter.py {' '.join(arguments)} failed:\n{ended.stderr[-3000:]}")
        answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return answer


class Worker:
    """A worker of one side, alive inside the ``with`` block.

    Args:
        side: whose worker.
        environment: what `tasks.py` reads.
        log: file that takes all that it prints.
        app: the module that holds its application.
    """

    def __init__(self, side: Side, environment: dict[str, str], log: Path, app: str = "tasks") -> None:
        self.side = side
        self.log = log
        command = [str(side.python), "-m", "celery", "-A", app, "worker"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--pool", "prefork", "--concurrency", str(CONCURRENCY), "--loglevel", "WARNING"],
                cwd=HERE,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """See that it lives.

        Raises:
            RuntimeError: it ended; carries the end of its log.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.side.name}: the worker ended:\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def processes(self) -> dict[int, float]:
        """Its processes, which are those of its session, and the CPU seconds of each with its ended children."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                # The name, in parentheses, may hold anything; what follows is numbers (proc(5)).
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if int(fields[3]) == self.process.pid:
                found[int(stat.parent.name)] = sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND
        return found

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far, the ended ones included."""
        return sum(self.processes().values())

    def end(self, number: signal.Signals) -> None:
        """Send a signal to its main process, wait, and kill what is left of it after 20 s."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        # Nothing of it is left, as it should be; if anything is, it ends here.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end(signal.SIGTERM)
