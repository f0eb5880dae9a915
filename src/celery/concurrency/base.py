"""What a pool promises the worker (architecture: one brain per node, in batches).

Vocabulary
    *Job*: one attempt to be made: a number and an envelope. *Child*: a process (or, in solo, a thread) that runs
    jobs. *Lane*: a child's way in: the sync lane runs one job at a time on the child's main thread, the async lane
    many at once on its event loop. *Slot*: one running position in shared memory, written by the child only: which
    job, since when. *Tick*: the worker's look at the slots, every few milliseconds while something runs.

Rules
    1. `submit` never blocks and never fails: a job ends in exactly one of `finished`, `lost` or `expired`.
    2. The pool hands a lane at most `HANDOUT` seconds of measured work, one job of a task that it has not measured.
       A lane that got stuck behind a long job gives back what it has not begun.
    3. `started` is told at most once per job, by a tick that found it running; a job that begins and ends between
       two ticks is only `finished`.
    4. When a child dies, the jobs that its slots show are `lost`; those that it never began go to other children.
    5. A lost child is replaced, at once, as long as the pool runs, and `grown` is told when the new one is up; a child
       that cannot come up (it dies before its first sign of life, again and again) is reported with a growing pause
       between tries, and ends the worker if there never was one.
    6. Time limits: the soft one raises in the task, the hard one kills the child (in the async lane the task is
       cancelled first, and the child killed a second later if it has not ended).
    7. A job that is past its expiry when a child would begin it is not begun, and told as `expired`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from celery import exceptions
from celery.wire.envelope import Envelope
from celery.wire.sealed import open_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.outcome import Outcome
    from celery.brokers.base import Delivery

#: Seconds of measured work that a lane may hold.
HANDOUT = 0.020
#: Seconds between two looks at the slots, while anything runs.
TICK = 0.005


class Job(msgspec.Struct, array_like=True, gc=False):
    """One attempt to be made. Travels to the child in batches."""

    #: Unique in this worker, ever growing, from 1.
    number: int
    #: The message, or the text of one that is still closed.
    message: Envelope | bytes
    #: exchange, routing_key, priority, redelivered: `request.delivery_info` (API-044); the text of a closed one tells.
    delivery_info: dict[str, Any] | None
    #: Set for the aftermath of an attempt whose child died or was killed: hooks and effects of its failure are run
    #: instead of the task: (exception class name in celery.exceptions, its arguments).
    aftermath: tuple[str, list[Any]] | None = None
    #: Soft and hard time limit in seconds, for the async lane, which keeps them itself.
    limits: tuple[float | None, float | None] | None = None
    #: From then on it may not begin, in unix seconds.
    expires: float | None = None
    #: Set for a function that is called instead of a task (`celery.concurrency.calls`).
    call: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of its message, roughly."""
        message = self.message
        return len(message) if isinstance(message, bytes) else len(message.body)

    def open(self) -> tuple[Envelope, dict[str, Any]]:
        """The message and its `request.delivery_info`. Raises UnreadableError."""
        if isinstance(self.message, Envelope):
            return self.message, self.delivery_info or {}
        opened = open_text(self.message)
        return opened.envelope, opened.info


def job_of(
    number: int,
    delivery: Delivery,
    aftermath: tuple[str, list[Any]] | None = None,
    limits: tuple[float | None, float | None] | None = None,
    expires: float | None = None,
) -> Job:
    """A job; a message that is closed stays so until a child has it."""
    if delivery.text is not None:
        return Job(number, delivery.text, None, aftermath, limits, expires)
    return Job(number, delivery.envelope, delivery.info, aftermath, limits, expires)


def exception_of(aftermath: tuple[str, list[Any]]) -> Exception:
    """The exception that a Job's aftermath names."""
    name, args = aftermath
    cls: type[Exception] = getattr(exceptions, name)
    return cls(*args)


class Handling(NamedTuple):
    """How the pool shall treat a job; stays in the worker."""

    #: Name of the task, for measuring.
    task: str
    #: It is a coroutine function: async lane.
    is_async: bool = False
    #: Seconds, or None.
    soft_limit: float | None = None
    hard_limit: float | None = None


class Lost(NamedTuple):
    """Why an attempt has no outcome."""

    #: "worker-lost" | "time-limit" | "terminated"
    reason: str
    #: For people: "signal 9 (SIGKILL)", "exit code 1".
    detail: str
    #: For a time limit: seconds.
    limit: float | None = None
    pid: int = 0


class PoolEvents(Protocol):
    """What a pool tells the worker, on the event loop, without awaiting."""

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """These attempts are over."""

    def started(self, jobs: Sequence[tuple[int, int, float]]) -> None:
        """(job, pid, wall time of its start): found running by a tick."""

    def lost(self, job: int, loss: Lost) -> None:
        """The attempt began and will have no outcome."""

    def expired(self, jobs: Sequence[int]) -> None:
        """These have not begun, as it was too late for them."""

    def grown(self) -> None:
        """A child came up: there is more room than before."""

    def end(self, request: Any, signum: int, *, again: bool, record: bool = True) -> None:
        """Somebody wants an attempt of the worker's to end (`celery.worker.ending`). Any thread."""


class Pool(abc.ABC):
    """Runs jobs. One event loop; every method but `prepare` is called on it."""

    #: As `-P` names it.
    name: str
    #: Runs jobs on the thread that started the worker (`serve_here`), whose event loop then is on another.
    runs_here = False

    def __init__(
        self, app: Any, *, concurrency: int, hostname: str, events: PoolEvents, options: dict[str, Any]
    ) -> None:
        """Build, start nothing.

        Args:
            app: the application, finalized.
            concurrency: number of children.
            hostname: node name.
            events: whom to tell.
            options: max_tasks_per_child, max_memory_per_child (KiB), start_method (fork, spawn), loglevel, logfile,
                async_concurrency, proc_alive_timeout.
        """
        self.app = app
        self.concurrency = concurrency
        self.hostname = hostname
        self.events = events
        self.options = options

    def prepare(self) -> None:  # noqa: B027 - most pools have nothing to do here
        """Called in the main thread before any event loop or thread exists: the place to fork."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Bring up the children; returns when each can take jobs. Raises WorkerLostError when none comes up."""

    @abc.abstractmethod
    def submit(self, jobs: Sequence[tuple[Job, Handling]]) -> None:
        """Run these, as soon as lanes are free."""

    @abc.abstractmethod
    def look(self) -> None:
        """Tell now what has started since the last tick."""

    @abc.abstractmethod
    def room(self) -> int:
        """How many more jobs would keep the lanes busy for about `HANDOUT`, beyond those submitted and unfinished.

        What adaptive prefetch asks; may be negative.
        """

    def idle(self) -> int:
        """How many more jobs could begin at once."""
        return 0

    @abc.abstractmethod
    def withdraw(self, job: int) -> bool:
        """Take back a job that no child has begun: True, and it will be neither finished nor lost."""

    @abc.abstractmethod
    def kill(self, job: int, signal: int) -> bool:
        """Signal the child that runs the job; False when it does not run. Its end is told by `lost` ("terminated")."""

    def told(self, job: int) -> None:  # noqa: B027 - pools that cannot be overtaken need not know
        """That it has started is stored: the task may tell states of its own."""

    def leave(self, *, hurried: bool) -> None:  # noqa: B027 - pools whose children store nothing need not know
        """The worker stops: children wait for a store that is away only for a while, or, `hurried`, not at all."""

    @abc.abstractmethod
    def info(self) -> dict[str, Any]:
        """For `inspect stats` (CTL-028): implementation, max-concurrency, processes, timeouts..."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Let children finish what they run, give back nothing; then end them. The worker has drained before."""

    @abc.abstractmethod
    async def terminate(self) -> None:
        """Kill the children now."""


class BasePool(abc.ABC):
    """A pool as third parties know it: what `consumer.pool` is for a strategy that a task brings."""

    @property
    @abc.abstractmethod
    def num_processes(self) -> int:
        """How many children there are."""

    @abc.abstractmethod
    def apply_async(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        *,
        accept_callback: Callable[..., Any] | None = None,
        callback: Callable[..., Any] | None = None,
        error_callback: Callable[..., Any] | None = None,
        timeout: float | None = None,
        **_options: Any,
    ) -> None:
        """Call a function in a child. Function, arguments and what comes of it are pickled.

        Args:
            target: what to call, with `args` and `kwargs`.
            args: by position.
            kwargs: by name.
            accept_callback: called as (pid, unix seconds of the start) when a child has begun.
            callback: called with what the function returned.
            error_callback: called with the exception; `WorkerLostError` when the child died.
            timeout: seconds after which the child is killed.

        Raises:
            PicklingError: it cannot be sent to a child.
        """
