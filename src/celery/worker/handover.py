"""Deliveries of tasks that bring a strategy of their own: `Task.Strategy`, as in celery-batches.

Rules
    1. What the worker decides by itself (refused, revoked, expired, not due yet) never reaches such a strategy. What is
       to run does, as a `Message`, on the side thread where all code of users runs.
    2. The strategy answers for the message: until it acknowledges or rejects it, the message counts as reserved. A
       worker that stops waits for handlers and for calls in the pool; then what is still held goes back.
    3. A message dies with its connection: the broker delivers it again, and settling the old one has no effect.

`Handover` is what such a strategy sees as the worker's consumer: with a pool that runs functions and a timer, and
otherwise the consumer itself.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.app.task import Task
from celery.brokers.base import Verdict
from celery.concurrency.calls import CallPool
from celery.utils.log import get_logger
from celery.wire.protocol import read_task
from celery.worker.strategy import Action, Decision

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.brokers.base import Delivery
    from celery.wire.protocol import TaskMessage
    from celery.worker.consumer.consumer import Consumer

logger = get_logger(__name__)

#: Messages that strategies may hold before the worker takes no more.
MOST_HELD = 10_000


class Message:
    """A message as strategies know it (kombu's form). Whatever protocol it came in, its parts are those of protocol 2.

    Settling it is thread-safe, and counts once.
    """

    def __init__(self, handover: Handover, delivery: Delivery, read: TaskMessage) -> None:
        envelope = delivery.envelope
        self._handover = handover
        self.delivery = delivery
        self.headers = read.headers
        self.body = envelope.body
        self.payload: list[Any] = [read.args, read.kwargs, read.embed]
        self.properties = envelope.properties
        self.content_type = envelope.content_type
        self.content_encoding = envelope.content_encoding
        self.delivery_info = delivery.info
        #: Whether it was acknowledged, rejected or given back.
        self.acknowledged = False

    def decode(self) -> Any:
        """The body, read: arguments, keyword arguments, what follows."""
        return self.payload

    def ack(self, multiple: bool = False) -> None:  # noqa: ARG002 - in kombu's signature
        """Done with it."""
        self._settle(Verdict.ACK)

    def reject(self, requeue: bool = False) -> None:
        """Refuse it: to the dead queue, or back to be delivered last."""
        self._settle(Verdict.REQUEUE if requeue else Verdict.DEAD)

    def requeue(self) -> None:
        """Give it back."""
        self._settle(Verdict.RETURN)

    def ack_log_error(self, logger: Any = None, errors: Any = None, multiple: bool = False) -> None:  # noqa: ARG002 - in kombu's signature
        """As `ack`; connection errors never reach the caller."""
        self.ack()

    def reject_log_error(self, logger: Any = None, errors: Any = None, requeue: bool = False) -> None:  # noqa: ARG002 - in kombu's signature
        """As `reject`; connection errors never reach the caller."""
        self.reject(requeue)

    def _settle(self, verdict: Verdict) -> None:
        if not self.acknowledged:
            self.acknowledged = True
            self._handover.settle(self, verdict)


class Timer:
    """Calls functions later, on the side thread. Any thread may ask. Durations in seconds."""

    def __init__(self, hook: Callable[..., None], on_loop: Callable[..., None]) -> None:
        self._hook = hook
        self._on_loop = on_loop

    def call_after(self, secs: float, fun: Callable[..., Any], args: Any = (), kwargs: Any = None, **_: Any) -> Entry:
        """Call once."""
        return self._enter(Entry(secs, lambda: fun(*args, **(kwargs or {})), repeats=False))

    def call_repeatedly(
        self, secs: float, fun: Callable[..., Any], args: Any = (), kwargs: Any = None, **_: Any
    ) -> Entry:
        """Call again and again, until cancelled."""
        return self._enter(Entry(secs, lambda: fun(*args, **(kwargs or {})), repeats=True))

    def cancel(self, entry: Entry) -> None:
        """Never call it again."""
        entry.cancel()

    def _enter(self, entry: Entry) -> Entry:
        self._on_loop(self._arm, entry)
        return entry

    def _arm(self, entry: Entry) -> None:
        asyncio.get_running_loop().call_later(entry.seconds, self._due, entry)

    def _due(self, entry: Entry) -> None:
        if entry.cancelled:
            return
        self._hook(entry)
        if entry.repeats:
            self._arm(entry)


class Entry:
    """A call that waits for its time."""

    def __init__(self, seconds: float, function: Callable[[], Any], *, repeats: bool) -> None:
        self.seconds = seconds
        self.repeats = repeats
        self.cancelled = False
        self._function = function

    def __call__(self) -> None:
        if not self.cancelled:
            self._function()

    def cancel(self) -> None:
        """Never call it again."""
        self.cancelled = True


class Handover:
    """The consumer, as strategies that tasks bring see it."""

    #: Who would be told of events.
    event_dispatcher = None

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.app = consumer.app
        self.hostname = consumer.hostname
        hook = consumer.worker.hook_soon
        self.pool = CallPool(consumer.pool, hook)
        self.timer = Timer(hook, self.pool.on_loop)
        self._names = frozenset(name for name, task in self.app.tasks.items() if task.Strategy != Task.Strategy)
        self._handlers: dict[str, Any] = {}
        self._held: set[Message] = set()
        #: Messages that handlers are at work on.
        self._handling = 0

    @property
    def connection_errors(self) -> tuple[type[BaseException], ...]:
        """What a lost connection raises. Looked up when asked for: kombu defines the first, and is dear to import."""
        return exceptions.OperationalError, OSError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def __contains__(self, task_name: str) -> bool:
        return task_name in self._names

    def __len__(self) -> int:
        """Messages that strategies hold."""
        return len(self._held)

    @property
    def full(self) -> bool:
        """Whether strategies hold all that they may."""
        return len(self._held) >= MOST_HELD

    @property
    def busy(self) -> bool:
        """Whether a worker that stops has to wait: for a handler, or for a call in the pool."""
        return self._handling > 0 or len(self.pool) > 0

    # -- on the loop

    def take(self, delivery: Delivery, decision: Decision) -> None:
        """Hand a delivery to the strategy of its task."""
        assert decision.task is not None
        task = decision.task
        try:
            read = read_task(delivery.envelope, self._consumer.worker.accept, self.app.timezone)
        except Exception as exc:  # noqa: BLE001 - whatever a message does to us becomes its refusal
            error = exceptions.InvalidTaskError(str(exc))
            refusal = Decision(Action.REFUSE, decision.headers, task, error=error, reason=f"cannot be read: {exc}")
            self._consumer._refuse(delivery, refusal)
            return
        self._consumer.worker.state.total[task.name] += 1
        message = Message(self, delivery, read)
        self._held.add(message)
        self._handling += 1
        self._consumer.worker.hook_soon(self._handle, task, message)

    def abandon(self) -> None:
        """The connection is gone: rule 3."""
        self._held.clear()

    # -- on the side thread

    def _handle(self, task: Task[..., Any], message: Message) -> None:
        try:
            handler = self._handlers.get(task.name)
            if handler is None:
                handler = self._handlers[task.name] = task.start_strategy(self.app, self)
            handler(message, None, message.ack_log_error, message.reject_log_error, [])
        except Exception:
            logger.exception("The strategy of %s failed; its message goes to the dead queue", task.name)
            message.reject()
        finally:
            self.pool.on_loop(self._handled)

    def settle(self, message: Message, verdict: Verdict) -> None:
        """A strategy is done with a message. Any thread."""
        self.pool.on_loop(self._settle, message, verdict)

    def run(self, message: Message) -> None:
        """Run the message's task after all, as if it had no strategy of its own. Any thread."""
        message.acknowledged = True
        self.pool.on_loop(self._run, message)

    def _handled(self) -> None:
        self._handling -= 1

    def _settle(self, message: Message, verdict: Verdict) -> None:
        if message in self._held:
            self._held.discard(message)
            self._consumer.settler.settlement(message.delivery, verdict, reason="rejected by the task's strategy")
            self._consumer._take_more()

    def _run(self, message: Message) -> None:
        if message in self._held:
            self._held.discard(message)
            now = time.time()
            self._consumer.take_decided(message.delivery, self._consumer.strategy.decide(message.delivery, now), now)
