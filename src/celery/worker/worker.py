"""The worker program: one event loop that owns all I/O, and a pool that runs tasks.

Its stages, and what ends each:

    prepare   in the thread that called `start`, before any loop or thread exists: all is imported, and the pool forks
    run       pool up, consumer connected; until a stop is asked for, or the broker stays away for too long
    drain     warm: nothing new is taken, what has not begun goes back, what runs is waited for and settled
              soft: the same, for `worker_soft_shutdown_timeout` seconds at most
              cold: what runs is killed; early-acknowledged tasks end as RETRY, late ones go back
    close     pool, mailbox, connections

A stop may be asked for from a signal handler, another thread, or a remote command; a colder one overrides a warmer.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from celery import _state, exceptions, signals, states
from celery.app import trace
from celery.app.brokers import broker_urls, driver
from celery.brokers.base import Settlement, Verdict
from celery.concurrency import get_implementation
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.utils.nodenames import default_nodename, host_format, worker_direct
from celery.wire.serializers import resolve_accept
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import ControlMailbox
from celery.worker.leaving import Leaving
from celery.worker.request import record_of
from celery.worker.strategy import check_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from celery.app.base import Celery
    from celery.concurrency.base import Pool
    from celery.worker.request import Request

__all__ = ("WorkController",)

logger = get_logger(__name__)

#: Seconds that a warm stop waits for code of users on the side thread.
_LAST_HOOKS = 5.0


class Stop(enum.IntEnum):
    """How to end; the greater overrides."""

    NO = 0
    WARM = 1
    SOFT = 2
    COLD = 3


class WorkController:
    """A worker. See the stages above.

    Making one reads the options, of which None is the setting, and starts nothing.

    Args:
        app: the application; default the current one.
        hostname: node name; default celery@<host>. Expands %h, %n, %d.
        pool: name or class of the pool.
        concurrency: number of children; None or 0: one per processor; "auto": what this process may use.
        queues: consume only these.
        exclude_queues: consume all but these.
        include: modules to import.
        purge: delete what waits in the queues first.
        task_events: send task events.
        time_limit: hard limit in seconds, for tasks without one.
        soft_time_limit: the same for the soft one.
        max_tasks_per_child: attempts after which a child is replaced.
        max_memory_per_child: KiB after which a child is replaced.
        prefetch_multiplier: reservations per child; None: as the setting says, or adaptive where it says nothing.
        pool_start_method: fork or spawn.
        loglevel: for `request.loglevel`.
        logfile: for `request.logfile`.
        options: others, kept in `options`.

    Raises:
        ImproperlyConfigured: a queue is unknown, the pool cannot be imported.
    """

    app: Celery = None  # type: ignore[assignment]  # set by subclasses made by the app, or by the argument
    exitcode: int | None = None
    #: Unix seconds.
    started_at = 0.0
    pool: Pool = None  # type: ignore[assignment]  # made by start()
    consumer: Consumer = None  # type: ignore[assignment]  # made by start()
    _stop = Stop.NO
    _stop_changed: asyncio.Event | None = None
    _progress: asyncio.Event | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _error: BaseException | None = None
    _hurried = False
    #: Since a stop was asked for.
    _leaving: Leaving | None = None

    def __init__(
        self,
        app: Celery | None = None,
        hostname: str | None = None,
        *,
        pool: Any = None,
        concurrency: int | str | None = None,
        queues: str | Iterable[str] | None = None,
        exclude_queues: str | Iterable[str] | None = None,
        include: Iterable[str] | None = None,
        purge: bool = False,
        task_events: bool | None = None,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        prefetch_multiplier: int | None = None,
        pool_start_method: str | None = None,
        loglevel: Any = None,
        logfile: str | None = None,
        **options: Any,
    ) -> None:
        self.app = app or self.app or _state.get_current_app()
        conf = self.app.conf
        self.hostname = default_nodename(hostname) if not hostname else host_format(default_nodename(hostname))
        self.options = options
        self.loglevel, self.logfile = loglevel, logfile
        self.purge_first = purge
        self.task_events = conf.worker_send_task_events if task_events is None else task_events
        self.time_limit = time_limit or conf.task_time_limit
        self.soft_time_limit = soft_time_limit or conf.task_soft_time_limit
        self.prefetch_multiplier: int | None = prefetch_multiplier or (
            conf.worker_prefetch_multiplier if conf.value_set_for("worker_prefetch_multiplier") else None
        )
        self.concurrency = _concurrency(concurrency or conf.worker_concurrency)
        self.pool_cls = get_implementation(pool or conf.worker_pool)
        self.pool_options = {
            "max_tasks_per_child": max_tasks_per_child or conf.worker_max_tasks_per_child,
            "max_memory_per_child": max_memory_per_child or conf.worker_max_memory_per_child,
            "start_method": pool_start_method or "fork",
            "async_concurrency": conf.worker_async_concurrency,
            "proc_alive_timeout": conf.worker_proc_alive_timeout,
            "time_limit": self.time_limit,
            "soft_time_limit": self.soft_time_limit,
            "loglevel": loglevel,
            "logfile": logfile,
        }
        self.accept = resolve_accept(conf.accept_content)
        self.state = state
        self.log_received = trace.LOG_RECEIVED
        self.mailbox = ControlMailbox(self)
        #: Set when the first connection consumes.
        self.ready = threading.Event()
        self.stopped = threading.Event()
        self._hooks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="celery-hooks")
        self._background: set[asyncio.Task[Any]] = set()
        self._import(include)
        self._choose_queues(queues, exclude_queues)

    def _import(self, include: Iterable[str] | None) -> None:
        app = self.app
        if include:
            app.conf.include = (*app.conf.include, *include)
        if not app.loader.worker_initialized:  # as the command has it by now
            app.loader.import_default_modules()
        app.finalize()
        app.conf.check()
        check_numbers(app.tasks.values())

    def _choose_queues(self, queues: Any, exclude: Any) -> None:
        known = self.app.amqp.queues
        try:
            known.select(queues)
            known.deselect(exclude)
        except KeyError as exc:
            raise exceptions.ImproperlyConfigured(
                f"Trying to select queue {exc.args[0]!r}, which is not in task_queues, and "
                "task_create_missing_queues is off."
            ) from None
        if self.app.conf.worker_direct:
            known.select_add(worker_direct(self.hostname))

    # -- life

    def start(self) -> None:
        """Work until stopped. Blocks; `exitcode` is set afterwards.

        Raises:
            OperationalError: the broker stayed away for as long as the settings say.
        """
        self.started_at = time.time()
        self.on_before_init()
        signals.worker_init.send(sender=self)
        self.pool = self.pool_cls(
            self.app,
            concurrency=self.concurrency,
            hostname=self.hostname,
            events=_Events(self),
            options=self.pool_options,
        )
        self.concurrency = self.pool.concurrency
        self._load()
        self.pool.prepare()
        try:
            if self.pool.runs_here:
                self._start_beside()
            else:
                self._run_loop()
        finally:
            self._hooks.shutdown(wait=False, cancel_futures=True)
            self.stopped.set()
            if self._stop is not Stop.COLD:
                signals.worker_shutdown.send(sender=self)
        if self._error is not None:
            raise self._error

    def _load(self) -> None:
        """Import what the loop is going to need while what is written to still belongs to all processes: importing
        writes to a MiB of what was there before. What cannot be imported is told when it is needed.
        """
        with contextlib.suppress(exceptions.ImproperlyConfigured, ImportError):
            _loop_factory()
            broker = driver(broker_urls(self.app, read=True)[0])
            _ = broker.Receiver, broker.Sender

    def _start_beside(self) -> None:
        """The pool needs this thread (solo): the loop runs on another."""
        pool: Any = self.pool

        def brain() -> None:
            self.app.set_current()
            try:
                self._run_loop()
            finally:
                pool.release()

        thread = threading.Thread(target=brain, name="celery-worker", daemon=True)
        thread.start()
        pool.serve_here()
        thread.join()

    def _run_loop(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as exc:  # noqa: BLE001 - told by start(), in the thread that waits there
            self._error = exc
            self.exitcode = 1

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_changed = asyncio.Event()
        self._progress = asyncio.Event()
        if self._stop:
            self._stop_changed.set()
        if self.purge_first:
            self._purge()
        self.consumer = Consumer(self)
        await self.pool.start()
        consuming = asyncio.create_task(self.consumer.run())
        stopping = asyncio.create_task(self._stop_changed.wait())
        try:
            await asyncio.wait([consuming, stopping], return_when=asyncio.FIRST_COMPLETED)
            if consuming.done():
                consuming.result()
            await self._drain(consuming)
        finally:
            consuming.cancel()
            stopping.cancel()
            await asyncio.gather(consuming, stopping, return_exceptions=True)
            await self._close()

    async def _drain(self, consuming: asyncio.Task[None]) -> None:
        consumer = self.consumer
        self._leaving = Leaving(consumer.settler, consumer.connected)
        self._hurry()
        await self._leaving.told(consumer.pause())
        deadline = None
        while self._stop < Stop.COLD:
            consumer.give_back_waiting()
            if not consumer.requests and not consumer.handover.busy:
                break
            if self._stop is Stop.SOFT and deadline is None:
                timeout = self.app.conf.worker_soft_shutdown_timeout
                logger.warning("Initiating Soft Shutdown, terminating in %s seconds", timeout)
                deadline = time.monotonic() + timeout
            if deadline is not None and time.monotonic() >= deadline:
                self._stop = Stop.COLD
                break
            await self._next_progress(0.1 if deadline is None else min(0.1, max(0.0, deadline - time.monotonic())))
        if self._stop is Stop.COLD:
            self._hurry()
            self.pool.look()
            await consumer.verbs.cancel_running()
            self._cancel_running()
            if not self.pool.runs_here:  # where it does, its end is ours: after the last words
                await self.pool.terminate()
        consumer.verbs.give_back()
        if await self._leaving.settled(consuming):
            self.exitcode = self.exitcode or 1

    async def _next_progress(self, seconds: float) -> None:
        assert self._progress is not None
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._progress.wait(), seconds)

    def _cancel_running(self) -> None:
        """ROUTE-061: what was acknowledged ends as RETRY, what was not goes back."""
        consumer = self.consumer
        for request in list(consumer.requests.values()):
            if request.acks_late or not request.settled_start:
                settlement = Settlement(request.delivery, Verdict.RETURN)
            else:
                error = exceptions.Retry("the worker was shut down")
                results: Any = ()
                if self.app.backend.async_writer and not request.ignores_result:
                    results = record_of(self.app, request.context(), states.RETRY, error)
                settlement = Settlement(request.delivery, Verdict.ACK, results=results, after_start=True)
            consumer.settler.add([settlement])
        consumer.requests.clear()

    async def _close(self) -> None:
        with contextlib.suppress(exceptions.OperationalError, OSError, TimeoutError):
            if self._stop is Stop.COLD or self._error is not None:
                await self.pool.terminate()
            else:
                await self.pool.stop()
                # They run in order: when this one's turn comes, the others have had theirs.
                await asyncio.wait_for(self.run_hook(int), _LAST_HOOKS)
        for task in self._background:
            task.cancel()
        await self.consumer.settler.close()
        if self.exitcode is None:
            self.exitcode = 0

    def _purge(self) -> None:
        names = list(self.app.amqp.queues.consume_from)
        erased = self.app.publisher.run(lambda sender: sum(sender.purge(name) for name in names))
        if erased:
            print(f"purge: Erased {erased} {'message' if erased == 1 else 'messages'} from the queue.\n", flush=True)  # noqa: T201 - the documented output

    # -- stopping

    def request_stop(self, how: str = "warm", exitcode: int = 0) -> None:
        """Ask for a stop: "warm", "soft" or "cold". Any thread; signal handlers too."""
        wanted = Stop[how.upper()]
        self._stop = max(self._stop, wanted)
        if self.exitcode is None or exitcode:
            self.exitcode = exitcode
        loop, changed = self._loop, self._stop_changed
        if loop is not None and changed is not None and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)
                loop.call_soon_threadsafe(self._hurry)
                loop.call_soon_threadsafe(self.on_progress)

    def hurry(self) -> None:
        """A warm stop was asked for again: wait for nothing that is away. Any thread; signal handlers too."""
        self._hurried = True
        self.request_stop()

    def _hurry(self) -> None:
        """On the loop: tell those who wait for what is away."""
        leaving = self._leaving
        if leaving is not None:
            leaving.hurried = self._hurried or self._stop is Stop.COLD
            self.pool.leave(hurried=leaving.hurried)

    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:  # noqa: ARG002 - in Celery's signature
        """Warm shutdown."""
        self.request_stop("warm", exitcode or 0)

    def terminate(self, in_sighandler: bool = False) -> None:  # noqa: ARG002 - in Celery's signature
        """Cold shutdown."""
        self.request_stop("cold", 1)

    # -- what parts tell and ask

    def on_before_init(self, **kwargs: Any) -> None:
        """Called first. For subclasses."""

    def on_consumer_ready(self, consumer: Consumer) -> None:
        """Called when the first connection consumes. For subclasses."""

    def on_ready(self) -> None:
        """A connection consumes."""
        if self.ready.is_set():
            return
        self.ready.set()
        self.on_consumer_ready(self.consumer)
        logger.info("%s ready.", self.hostname)
        if signals.worker_ready.receivers:
            self.hook_soon(signals.worker_ready.send, sender=self.consumer)

    def on_progress(self) -> None:
        """A request is no longer in the pool."""
        if self._progress is not None:
            self._progress.set()

    @property
    def requests(self) -> dict[int, Request]:
        """What is in the pool, by job number."""
        return self.consumer.requests if self.consumer is not None else {}

    async def run_hook(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run code of users on the side thread, in order, and await it."""
        return await asyncio.get_running_loop().run_in_executor(self._hooks, lambda: function(*args, **kwargs))

    def hook_soon(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Run code of users on the side thread, in order; its errors are logged."""
        self.spawn(self._logged(function, args, kwargs))

    async def _logged(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            await self.run_hook(function, *args, **kwargs)
        except Exception:
            logger.exception("%r raised", function)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine of the worker's own beside the rest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def info(self) -> dict[str, Any]:
        """For `inspect stats`."""
        return {
            "total": dict(self.state.total),
            "pid": os.getpid(),
            "clock": str(self.app.clock.value),
            "uptime": int(time.time() - self.started_at),
            "pool": self.pool.info(),
        }


class _Events:
    """The pool's events, passed on to the consumer that is made after the pool."""

    def __init__(self, worker: WorkController) -> None:
        self._worker = worker

    def finished(self, outcomes: Any) -> None:
        self._worker.consumer.finished(outcomes)

    def started(self, jobs: Any) -> None:
        self._worker.consumer.started(jobs)

    def lost(self, job: int, loss: Any) -> None:
        self._worker.consumer.lost(job, loss)

    def expired(self, jobs: Any) -> None:
        self._worker.consumer.ending.expired(jobs)

    def grown(self) -> None:
        self._worker.consumer.grown()

    def end(self, request: Any, signum: int, *, again: bool, record: bool = True) -> None:
        self._worker.consumer.ending.end(request, signum, again=again, record=record)


def _concurrency(wanted: int | str | None) -> int:
    """SET-204."""
    if wanted in (None, 0, "0"):
        return os.cpu_count() or 1
    if wanted == "auto":
        return max(1, min(len(os.sched_getaffinity(0)), _quota()))
    try:
        return int(wanted)
    except ValueError:
        raise exceptions.ImproperlyConfigured(
            f"worker_concurrency is {wanted!r}; it must be a non-negative integer or 'auto'."
        ) from None


def _quota() -> int:
    """Processors that the control group grants, rounded up; a great many where it sets no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return 1 << 16 if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return 1 << 16


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = symbol_by_name("uvloop:new_event_loop")
    except (ImportError, AttributeError):
        return None
    return factory
