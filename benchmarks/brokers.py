"""The brokers of the runs: servers of our own, so that nobody else's work is in their CPU time.

Each kind is a context manager; `fresh` gives an empty place in it and says, in variables for `adapter.py`, where that
is; `cpu_seconds` is what its processes have used so far. Redis writes no file (for all alike), RabbitMQ is as its
package sets it up, PostgreSQL is the shared server with a database of our own, SQLite is a file.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import processes

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import private_servers  # noqa: E402  found through the line above
import tenancy  # noqa: E402

if TYPE_CHECKING:
    from typing import Self

_numbers = itertools.count(1)


class Broker:
    """A broker, with a folder of its own, while the ``with`` block lasts."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    def fresh(self) -> dict[str, str]:
        """An empty place for one run: ``BENCH_BROKER``, ``BENCH_BACKEND``."""
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        """CPU time of the server so far; 0 where there is none."""
        return 0.0

    def new_folder(self) -> Path:
        """Somewhere to write."""
        folder = self.folder / str(next(_numbers))
        folder.mkdir()
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stack.close()


class Redis(Broker):
    """A new server for each run."""

    def __init__(self) -> None:
        super().__init__()
        self.server: private_servers.PrivateRedis | None = None

    def fresh(self) -> dict[str, str]:
        if self.server is not None:
            self.server.kill()
        self.server = private_servers.PrivateRedis(self.new_folder(), appendonly="no")
        self.stack.callback(self.server.kill)
        self.server.start()
        return {"BENCH_BROKER": self.server.url, "BENCH_BACKEND": self.server.url}

    def cpu_seconds(self) -> float:
        if self.server is None or self.server.process is None:
            return 0.0
        return sum(processes.session_cpu(self.server.process.pid).values())


class NodeAsPackaged(private_servers.PrivateRabbitMQ):
    """A private RabbitMQ with the schedulers that it has by default."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""}


class RabbitMQ(Broker):
    """One node, with a new vhost for each run; the node takes seconds to start."""

    def __init__(self) -> None:
        super().__init__()
        self.server = self.stack.enter_context(NodeAsPackaged(self.new_folder()))
        self.vhost = ""

    def fresh(self) -> dict[str, str]:
        if self.vhost:
            self.server.ctl("delete_vhost", self.vhost)
        self.vhost = f"run{next(_numbers)}"
        self.server.ctl("add_vhost", self.vhost)
        self.server.ctl("set_permissions", "-p", self.vhost, "guest", ".*", ".*", ".*")
        return {"BENCH_BROKER": self.server.url.removesuffix("//") + f"/{self.vhost}", "BENCH_BACKEND": "rpc://"}

    def cpu_seconds(self) -> float:
        assert self.server.process is not None, "started in __init__"
        return sum(processes.session_cpu(self.server.process.pid).values())


class Sqlite(Broker):
    """A file, without any server."""

    def fresh(self) -> dict[str, str]:
        url = f"sqlite:///{self.new_folder() / 'celery.sqlite'}"
        return {"BENCH_BROKER": url, "BENCH_BACKEND": url}


class Postgres(Broker):
    """A database of our own in the shared server; its CPU time is that of the whole server."""

    def __init__(self) -> None:
        super().__init__()
        self.database = contextlib.ExitStack()
        self.stack.push(self.database)
        self.postmaster = 0

    def fresh(self) -> dict[str, str]:
        import psycopg  # only who uses the server has to have it

        self.database.close()
        url = self.database.enter_context(tenancy.postgres_database())
        with psycopg.connect(url) as connection:
            self.postmaster = processes.parent_of(connection.info.backend_pid)
        return {"BENCH_BROKER": url, "BENCH_BACKEND": ""}

    def cpu_seconds(self) -> float:
        return processes.tree_cpu(self.postmaster)


BROKERS: dict[str, type[Broker]] = {"redis": Redis, "rabbitmq": RabbitMQ, "sqlite": Sqlite, "postgres": Postgres}
