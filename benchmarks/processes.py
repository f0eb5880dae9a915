"""A command with all the processes that it starts: their CPU time and memory, their end; read from /proc.

A command is started as a session of its own, and whatever it forks stays in that session, whoever its parent becomes.
CPU time counts the ended children that were waited for, too, so nothing is lost when processes are replaced.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

STOP_SECONDS = 20.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """A process at one moment."""

    pid: int
    parent: int
    session: int
    #: of itself and of its ended children
    cpu_seconds: float


def stats() -> Iterator[Stat]:
    """All processes of the machine that can be seen."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended while we looked
            # The name, in parentheses, may hold anything; what follows is numbers (proc(5)).
            fields = path.read_text().rpartition(")")[2].split()
            cpu = sum(int(field) for field in fields[11:15]) / TICKS_PER_SECOND
            yield Stat(int(path.parent.name), int(fields[1]), int(fields[3]), cpu)


def session_cpu(leader: int) -> dict[int, float]:
    """CPU seconds of each process in a session."""
    return {stat.pid: stat.cpu_seconds for stat in stats() if stat.session == leader}


def tree_cpu(root: int) -> float:
    """CPU seconds of a process and all its descendants, whatever sessions they made."""
    found = {stat.pid: stat for stat in stats()}
    total, members = 0.0, [root]
    children: dict[int, list[int]] = {}
    for stat in found.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    while members:
        pid = members.pop()
        total += found[pid].cpu_seconds if pid in found else 0.0
        members += children.get(pid, [])
    return total


def parent_of(pid: int) -> int:
    """The process that is the parent of another."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class Command:
    """A running command, ended with all its processes when the ``with`` block is left.

    Args:
        name: for messages.
        arguments: the program and its arguments.
        folder: working directory.
        environment: variables beside those of this process.
        log: file that takes all that it prints.
        stop: how it is told to end.
    """

    def __init__(
        self,
        name: str,
        arguments: list[str],
        folder: Path,
        environment: dict[str, str],
        log: Path,
        stop: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self.stop = stop
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                arguments,
                cwd=folder,
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
            raise RuntimeError(f"{self.name} ended:\n{self.said()}")

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def processes(self) -> dict[int, float]:
        """Its processes, and the CPU seconds of each with its ended children."""
        return session_cpu(self.process.pid)

    def pss_mib(self) -> float:
        """Memory of all its processes, shared pages divided among those that share them; MiB."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def end(self, number: signal.Signals) -> None:
        """Send a signal to its main process, wait, and kill what is left of it after 20 s."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        # Nothing of it is left, as it should be; if anything is, it ends here.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end(self.stop)
