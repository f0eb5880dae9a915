"""What a result backend needs to be run through the conformance suite, and words for its tests.

The list is explicit: a backend that is in it and cannot be imported is an error. Each says what it can do, and a test
says what it is about (`only_with`, `only_without`): pytest makes it for the backends that fit, and for no others.

Three take part in a test: the *asker* (`Bench.backend`), whose application has sent the task; the *worker*, who stores
(`Bench.store`); a *reader* (`Bench.reader`), who is anybody where anybody may look a record up, else the asker.
"""

from __future__ import annotations

import asyncio
import gc
import uuid
import warnings
from types import SimpleNamespace
from typing import NamedTuple

from celery import Celery

# -- Capabilities

#: What was stored can be read.
RECORDS = "records"
#: Anybody can look a record up, any number of times; without it, it is a message to the asker, who reads it once.
LOOKUP = "lookup"
#: Processes look up and store the same records.
PROCESSES = "processes"
#: It keeps files or connections open from one use to the next.
CONNECTIONS = "connections"
#: Records are gone after `result_expires`, those too that have been read.
EXPIRY = "expiry"
#: Groups are saved and restored.
GROUPS = "groups"
#: Chords may be started.
CHORDS = "chords"
#: It counts the members of chords itself.
COUNTS = "counts"
#: It counts members that finish before their chord begins, as members of chords of Celery 5.7 may.
EARLY_PARTS = "early parts"
#: A worker's main process stores through `write`, in batches.
BATCHES = "batches"

_STORE = frozenset({RECORDS, LOOKUP, PROCESSES, CONNECTIONS, EXPIRY, GROUPS, CHORDS})
_BATCHED = _STORE | {BATCHES, COUNTS, EARLY_PARTS}
_MESSAGES = frozenset({RECORDS, BATCHES})


class Store(NamedTuple):
    """A backend to run."""

    #: The fixture that says where it is, for the two URLs to come.
    place: str
    can: frozenset[str]
    backend: str
    broker: str = "memory://"
    servers: tuple[str, ...] = ()


STORES = {
    "memory": Store("unused_name", _BATCHED - {PROCESSES, CONNECTIONS}, "cache+memory://{}"),
    "sqlite": Store("sqlite_path", _BATCHED, "sqlite:///{}"),
    "redis": Store("redis_url", _BATCHED, "{}", servers=("redis",)),
    "database-sqlite": Store("sqlite_path", _STORE | {COUNTS}, "db+sqlite:///{}"),
    "database-postgres": Store("postgres_url", _STORE | {COUNTS}, "db+{}", servers=("postgres",)),
    "database-mariadb": Store("mariadb_url", _STORE | {COUNTS}, "db+{}", servers=("mariadb",)),
    "rpc-rabbitmq": Store("rabbitmq_url", _MESSAGES, "rpc://", broker="{}", servers=("rabbitmq",)),
    "rpc-redis": Store("redis_url", _MESSAGES, "rpc://", broker="{}", servers=("redis",)),
    "third-party": Store("tmp_path", _STORE - {CONNECTIONS, EXPIRY}, "third_party:Folder://{}"),
    "disabled": Store("unused_name", frozenset({BATCHES}), "disabled://"),
}

#: No test waits longer than this for what must come at once, in seconds.
SOON = 10.0


class Request(SimpleNamespace):
    """What a backend is told of the attempt: attributes, and `get`."""

    def get(self, name, default=None):
        return getattr(self, name, default)


class Bench:
    """One backend on a store of the test's own."""

    def __init__(self, name: str, store: Store, place: object) -> None:
        self.name = name
        self.can = store.can
        self.url = store.backend.format(place)
        self.broker = store.broker.format(place)
        self.apps = []
        #: Nobody of another test finishes its chords.
        self.queue = str(uuid.uuid4())
        self.backend = self.make()
        self.worker = self.make()
        self.reply_to = self.asks()

    def make(self, **settings):
        """Another instance on the same store, as another process would have."""
        app = Celery("conformance", broker=self.broker, backend=self.url, set_as_current=False)
        app.conf.update(task_default_queue=self.queue, **settings)
        self.apps.append(app)
        return app.backend

    def asks(self) -> str:
        """What `apply_async` does for the backend before it sends a task; where its results should go."""
        self.backend.on_task_call(None, "")
        return self.backend.app.thread_oid

    def request(self, **fields) -> Request:
        """What the worker knows of a task that the asker has sent."""
        return Request(reply_to=self.reply_to, **fields)

    def store(self, task_id, value, state, traceback=None, by=None, **fields):
        """Store a state as a worker does: through `write` where records are messages. Any thread without a loop."""
        worker = by or self.worker
        if LOOKUP in self.can or RECORDS not in self.can:
            worker.store_result(task_id, value, state, traceback, request=self.request(**fields))
        else:
            asyncio.run(write(worker, [(task_id, value, state, traceback, self.request(**fields))]))

    def reader(self):
        """Who may read what has been stored: anybody; else the asker, once it has come. Any thread without a loop."""
        if LOOKUP in self.can:
            return self.make()
        # One queue keeps its order: what was stored before this has come when this has.
        last = str(uuid.uuid4())
        self.store(last, None, "SUCCESS")
        self.backend.wait_for(last, timeout=SOON)
        return self.backend

    def close(self):
        """Give up connections, also those that a backend keeps for each thread and ends with itself."""
        for app in self.apps:
            app.close()
        self.backend = self.worker = None
        self.apps.clear()
        if self.name == "redis" or self.name.startswith("database"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                gc.collect()


async def write(backend, records) -> None:
    """Have a batch of records written by the worker's loop."""
    await backend.open_writer()
    try:
        await backend.write([backend.prepare_write(*record) for record in records])
    finally:
        await backend.close_writer()
