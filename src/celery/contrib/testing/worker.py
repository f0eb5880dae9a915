"""A worker inside the process of a test (API-108, SIG-039).

Rules
    1. The worker is a whole one, in a thread: the same code, broker and messages as in production.
    2. `start_worker` gives the worker when it consumes (and, with the ping check, has run a task), and returns when
       its thread is gone. What made it fail is raised there, in the test's thread.
    3. It stops warm: what runs is waited for, what has not begun goes back to the queue.
    4. What the processes of a prefork pool log is logged here, by the loggers of the same name: `caplog` sees it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import logging.handlers
import os
import pickle
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.app.brokers import broker_urls
from celery.brokers.url import mask
from celery.contrib.testing import tasks
from celery.result import allow_join_result
from celery.utils.dispatch import Signal
from celery.utils.nodenames import anon_nodename
from celery.worker.worker import WorkController

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from celery.app.base import Celery
    from celery.worker.consumer import Consumer

__all__ = (
    "TestWorkController",
    "setup_app_for_worker",
    "start_worker",
    "test_worker_started",
    "test_worker_starting",
    "test_worker_stopped",
)

WORKER_LOGLEVEL = os.environ.get("WORKER_LOGLEVEL", "error")
#: Seconds in which a worker must reach its broker.
START_TIMEOUT = 30.0
#: More bytes than a datagram between processes can have.
_DATAGRAM = 1 << 20

#: The sender is the application.
test_worker_starting = Signal(name="test_worker_starting")
test_worker_started = Signal(name="test_worker_started", providing_args={"worker", "consumer"})
test_worker_stopped = Signal(name="test_worker_stopped", providing_args={"worker"})

#: Two nodes of one name would share a mailbox.
_numbers = itertools.count(1)


class TestWorkController(WorkController):
    """A worker that another thread waits for."""

    #: Not a test, whatever its name looks like.
    __test__ = False

    #: Where pool processes put log records; None without such processes.
    logger_queue: Any = None

    class QueueHandler(logging.handlers.QueueHandler):
        """Puts the records of other processes than the test's own into a queue."""

        def __init__(self, queue: Any) -> None:
            super().__init__(queue)
            owner = os.getpid()
            self.addFilter(lambda _: os.getpid() != owner)

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
            """Drop a record that does not pickle, is huge, or comes when the test is over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._up_or_failed = threading.Event()
        self.failure: BaseException | None = None
        self._known_tasks = set(self.app.tasks)
        if self.pool_cls.name == "prefork":
            self.logger_queue = _LogQueue()

    def start(self) -> None:
        """Work until stopped. What it raises is kept in `failure` too."""
        try:
            with _log_relay(self.logger_queue) if self.logger_queue is not None else contextlib.nullcontext():
                super().start()
        except BaseException as exc:
            self.failure = exc
            raise
        finally:
            self._up_or_failed.set()

    def reload(self, modules: Iterable[str] | None = None, reload: bool = False, reloader: Any = None) -> None:
        """Take in the tasks that were declared since the worker has started.

        Args:
            modules: to import first.
            reload: import those again that are imported already.
            reloader: imports a module again; default `importlib.reload`.

        Raises:
            RuntimeError: there are such tasks, and pool processes, which cannot get them.
        """
        for name in modules or ():
            if reload and name in sys.modules:
                (reloader or importlib.reload)(sys.modules[name])
            else:
                self.app.loader.import_task_module(name)
        new = sorted(set(self.app.tasks) - self._known_tasks)
        if new and not self.pool_cls.runs_here:
            raise RuntimeError(
                f"The processes of the test worker {self.hostname} do not know {', '.join(new)}: they were forked "
                "before. Declare tasks before the worker starts, or use the solo pool."
            )

    def on_consumer_ready(self, consumer: Consumer) -> None:
        """Tell the world."""
        self.hook_soon(self._announce, consumer)

    def _announce(self, consumer: Consumer) -> None:
        test_worker_started.send(sender=self.app, worker=self, consumer=consumer)
        self._up_or_failed.set()

    def ensure_started(self) -> None:
        """Wait until the worker consumes.

        Raises:
            RuntimeError: it has not reached its broker within `START_TIMEOUT` seconds.
            Exception: what has ended the worker.
        """
        if not self._up_or_failed.wait(START_TIMEOUT):
            urls = " or ".join(mask(url) for url in broker_urls(self.app, read=True))
            raise RuntimeError(
                f"The test worker {self.hostname} has not reached the broker {urls} in {START_TIMEOUT:.0f} seconds. Is "
                "the broker running? Set WORKER_LOGLEVEL=info and enable logging to see what the worker says."
            )
        if self.failure is not None:
            raise self.failure


@contextmanager
def start_worker(
    app: Celery,
    concurrency: int = 1,
    pool: str = "solo",
    loglevel: str | int = WORKER_LOGLEVEL,
    logfile: str | None = None,
    perform_ping_check: bool = True,
    ping_task_timeout: float = 10.0,
    shutdown_timeout: float = 10.0,
    **kwargs: Any,
) -> Generator[TestWorkController]:
    """Run a worker in a thread for the duration of a `with` block.

    Args:
        app: its application, which becomes the current and the default one.
        concurrency: size of the pool.
        pool: name or class of the pool.
        loglevel: of the worker; default the environment variable WORKER_LOGLEVEL, else error.
        logfile: path of its log.
        perform_ping_check: run a task (celery.ping) first, and wait for its result.
        ping_task_timeout: seconds to wait for that.
        shutdown_timeout: seconds that the worker may take to end.
        kwargs: more arguments of `WorkController`; `WorkController` itself names another class than
            `TestWorkController`.

    Raises:
        RuntimeError: the worker does not come up, does not answer, or does not end in time.
    """
    test_worker_starting.send(sender=app)
    worker: TestWorkController | None = None
    try:
        setup_app_for_worker(app, loglevel, logfile)
        worker_class = kwargs.pop("WorkController", TestWorkController)
        worker = worker_class(
            app=app,
            hostname=kwargs.pop("hostname", None) or anon_nodename(prefix=f"gen{next(_numbers)}-"),
            concurrency=concurrency,
            pool=pool,
            loglevel=loglevel,
            logfile=logfile,
            without_heartbeat=kwargs.pop("without_heartbeat", True),
            without_mingle=True,
            without_gossip=True,
            **kwargs,
        )
        with _running(worker, shutdown_timeout):
            if perform_ping_check:
                _ping(app, worker, ping_task_timeout)
            yield worker
    finally:
        test_worker_stopped.send(sender=app, worker=worker)


def setup_app_for_worker(app: Celery, loglevel: str | int, logfile: str | None) -> None:
    """Make an application ready for a worker: finalized, current and default, its logging set up."""
    app.finalize()
    app.set_current()
    app.set_default()
    app.log.already_setup = False
    app.log.setup(loglevel, logfile)


@contextmanager
def _running(worker: TestWorkController, shutdown_timeout: float) -> Generator[None]:
    thread = threading.Thread(target=_serve, args=(worker,), name=f"celery-test-{worker.hostname}", daemon=True)
    thread.start()
    try:
        worker.ensure_started()
        yield
    finally:
        worker.stop()
        thread.join(shutdown_timeout)
        if thread.is_alive():
            running = ", ".join(f"{each.name}[{each.id}]" for each in worker.requests.values()) or "none"
            raise RuntimeError(
                f"The test worker {worker.hostname} has not ended within {shutdown_timeout} seconds. Running tasks: "
                f"{running}. Where tasks need longer, raise shutdown_timeout."
            )
    if worker.failure is not None:
        raise worker.failure


def _serve(worker: TestWorkController) -> None:
    # What it raises is kept in `failure`, and raised where the test sees it.
    with contextlib.suppress(BaseException):
        worker.start()


def _ping(app: Celery, worker: TestWorkController, timeout: float) -> None:
    if app.conf.task_always_eager:
        return
    with allow_join_result():
        queue = next(iter(app.amqp.queues.consume_from))
        pong = app.tasks[tasks.ping.name].apply_async(queue=queue, ignore_result=False)
        try:
            answer = pong.get(timeout=timeout)
        except Exception as exc:
            raise RuntimeError(
                f"The test worker {worker.hostname} has not answered the ping within {timeout} seconds: {exc!r}. Is "
                "another worker consuming from its queues, or no result backend configured? perform_ping_check=False "
                "leaves this check out."
            ) from exc
    if answer != "pong":
        raise RuntimeError(f"The test worker {worker.hostname} has answered the ping with {answer!r}, not with 'pong'.")


class _LogQueue:
    """Log records on their way between processes: datagrams, so that a process that is killed leaves no lock held."""

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def put_nowait(self, record: logging.LogRecord) -> None:
        self._writing.send(pickle.dumps(record))

    def end(self) -> None:
        """Let `get` return None after what is there."""
        self._writing.send(b"")

    def get(self) -> logging.LogRecord | None:
        data = self._reading.recv(_DATAGRAM)
        record: logging.LogRecord | None = pickle.loads(data) if data else None  # noqa: S301 - of our own children
        return record

    def close(self) -> None:
        self._reading.close()
        self._writing.close()


@contextmanager
def _log_relay(queue: _LogQueue) -> Generator[None]:
    """Log here what processes forked in the block put into the queue."""
    handler = TestWorkController.QueueHandler(queue)
    root = logging.getLogger()
    root.addHandler(handler)
    thread = threading.Thread(target=_relay, args=(queue,), name="celery-test-logs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        queue.end()
        thread.join()
        queue.close()


def _relay(queue: _LogQueue) -> None:
    while (record := queue.get()) is not None:
        logging.getLogger(record.name).handle(record)
