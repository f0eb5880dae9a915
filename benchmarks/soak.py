"""Work for an hour while workers, their children and the server are killed; then count what was lost.

Two workers with late acknowledgement share a private server, or a SQLite file. Every send that `delay()` accepted is on
record, and so is every completion, in a file outside of the broker. After the last fault all that was sent must be done
within a minute. What never ran fails the soak; what ran twice is reported, and so is, for each fault, the longest time
from its end to the next completion.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from processes import Command

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import private_servers  # noqa: E402  found through the line above

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SENDS_PER_SECOND = 20
FAULT_EVERY_SECONDS = 15.0
TASK_SECONDS = (0.02, 0.05)
SETTLE_SECONDS = 60.0
WORKERS = 2
WORKER = [sys.executable, "-m", "celery", "-A", "soak_tasks", "worker", "-P", "prefork", "-c", "2", "-l", "WARNING"]
#: Longer than a lease: another worker takes over what a frozen one holds.
FROZEN_SECONDS = 18.0


class SqliteFile:
    """A broker without a server, where servers are expected."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'celery.sqlite'}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


SERVERS = {
    "redis": private_servers.PrivateRedis,
    "rabbitmq": private_servers.PrivateRabbitMQ,
    "sqlite": SqliteFile,
}


class Soak:
    """The server, the workers, and what is known of the tasks.

    Args:
        server: a running private server.
        folder: for ledger and logs.
        seed: of the order of faults, to see one again.
    """

    def __init__(self, server: private_servers.PrivateServer | SqliteFile, folder: Path, seed: int) -> None:
        self.server = server
        self.folder = folder
        self.chance = random.Random(seed)
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.environment = {"BENCH_BROKER": server.url, "BENCH_LEDGER": str(self.ledger)}
        os.environ.update(self.environment)
        self.workers = [self.new_worker(number) for number in range(WORKERS)]
        self.accepted: list[int] = []
        self.faults: collections.Counter[str] = collections.Counter()
        #: Seconds from a fault's end to the next completion, by fault.
        self.silences: dict[str, float] = {}
        self._after: tuple[str, float, int] | None = None

    def new_worker(self, number: int) -> Command:
        """Start a worker; each place has a log of its own."""
        log = self.folder / f"worker{number}.log"
        return Command(f"worker {number}", WORKER, Path(__file__).resolve().parent, self.environment, log)

    def kill_child(self) -> None:
        """Kill one process that runs tasks."""
        worker = self.chance.choice(self.workers)
        children = [pid for pid in worker.processes() if pid != worker.process.pid]
        if children:
            os.kill(self.chance.choice(children), signal.SIGKILL)

    def kill_worker(self) -> None:
        """Kill a worker with all its processes, and start another in its place."""
        self.replace(signal.SIGKILL)

    def stop_worker(self) -> None:
        """End a worker in good order, as a deployment does, and start another in its place."""
        self.replace(signal.SIGTERM)

    def replace(self, number: signal.Signals) -> None:
        """End one worker by a signal and start another."""
        place = self.chance.randrange(WORKERS)
        self.workers[place].end(number)
        self.workers[place] = self.new_worker(place)

    def freeze_worker(self) -> None:
        """Stop a worker with all its processes until others have taken over what it held, then let it go on."""
        processes = self.chance.choice(self.workers).processes()
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        for pid in processes:
            os.kill(pid, signal.SIGCONT)

    def faults_of(self, server: private_servers.PrivateServer) -> list[Callable[[], None]]:
        """What can happen to a server."""

        def restart_server() -> None:
            server.restart()

        def pause_server() -> None:
            server.pause()
            time.sleep(3)
            server.resume()

        return [restart_server, pause_server]

    def fault(self) -> None:
        """Let one of the faults happen."""
        faults: list[Callable[[], None]] = [self.kill_child, self.kill_worker, self.stop_worker, self.freeze_worker]
        if not isinstance(self.server, SqliteFile):
            faults += self.faults_of(self.server)
        chosen = self.chance.choice(faults)
        print(f"{time.strftime('%H:%M:%S')} {len(self.accepted):6d} sent  {chosen.__name__}", flush=True)
        chosen()
        self.faults[chosen.__name__] += 1
        self._after = chosen.__name__, time.monotonic(), self.ledger.stat().st_size

    def listen(self) -> None:
        """Note when work goes on after a fault."""
        if self._after is not None and self.ledger.stat().st_size > self._after[2]:
            fault, ended, _ = self._after
            self.silences[fault] = max(self.silences.get(fault, 0.0), time.monotonic() - ended)
            self._after = None

    def run(self, seconds: float) -> None:
        """Send at a steady pace, with a fault now and then."""
        import soak_tasks  # reads the environment that names the server

        began = time.monotonic()
        next_fault = began + FAULT_EVERY_SECONDS
        number = 0
        while (now := time.monotonic()) < began + seconds:
            if now >= next_fault:
                self.fault()
                next_fault = time.monotonic() + FAULT_EVERY_SECONDS
            number += 1
            self.listen()
            try:
                soak_tasks.work.delay(number, self.chance.uniform(*TASK_SECONDS))
            except Exception as error:  # noqa: BLE001  refused is an answer: it was not accepted
                print(f"  {number} was not accepted: {error!r}", flush=True)
            else:
                self.accepted.append(number)
            time.sleep(1 / SENDS_PER_SECOND)

    def finished(self) -> collections.Counter[int]:
        """How often each number was completed."""
        return collections.Counter(int(line) for line in self.ledger.read_text().split())

    def lost(self) -> list[int]:
        """What was accepted and is not done when all the time there was is over."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while (missing := sorted(set(self.accepted) - set(self.finished()))) and time.monotonic() < deadline:
            time.sleep(0.2)
        return missing

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.end(signal.SIGTERM)


def main() -> int:
    """Soak as the command line says; the number of lost tasks decides the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to send (default 60)")
    parser.add_argument("--broker", choices=SERVERS, default="redis")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="repeats the order of faults")
    options = parser.parse_args()
    print(f"{options.minutes:g} minutes on {options.broker}, --seed {options.seed}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with SERVERS[options.broker](folder) as server:
            soak = Soak(server, folder, options.seed)
            try:
                soak.run(60 * options.minutes)
                lost = soak.lost()
            finally:
                soak.close()
            twice = sum(times > 1 for times in soak.finished().values())
        if lost:
            print(*(worker.said() for worker in soak.workers), sep="\n")
    silences = ", ".join(f"{fault} {seconds:.1f} s" for fault, seconds in sorted(soak.silences.items()))
    print(f"longest silences: {silences}")
    print(f"{len(soak.accepted)} sent, {len(lost)} lost, {twice} run more than once; faults: {dict(soak.faults)}")
    if lost:
        print(f"lost: {lost[:50]}")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
