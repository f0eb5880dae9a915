"""Sending many calls at once: `Celery.send_many`, `Celery.asend_many`, and what groups are sent by.

Vocabulary
    *Item*: one signature of the list or iterable given. *Batch*: the messages of some items, which leave together.

Rules
    1. Each item takes the road of a single call (`Signature.apply_async`), with a Batch for its producer; so whatever
       an application overrides on that road counts here too. What an item has sent when it fails is taken back.
    2. Items are drawn as batches leave, so a generator is never held in memory. The first batch is small, and one
       that grows old while its items are slow to come leaves as it is.
    3. Order is kept. A batch is one call of the broker's driver, and one confirmation where the broker confirms.
    4. An item that cannot become a message stops none of the others, unless the caller says so (`on_error`); the
       caller is told at the end. A broker that stays away, beyond the retry policy, ends the call.
    5. What is sent and then not confirmed may have been sent: a retry sends it again, under the same id.
    6. Neighbours that differ in id, arguments and place in a group only are a *run*: what they have in common is worked
       out once, by the functions that a single call takes. A task with an `apply_async` of its own has none.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from celery import exceptions, signals
from celery.app.amqp import queues_of
from celery.app.outcome import Outbox
from celery.app.sending import Calls
from celery.brokers.base import Publish
from celery.canvas.signature import Signature, maybe_signature
from celery.utils.uniqueid import Ids

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.result import AsyncResult

#: Items of a batch, at most; and of the first one, which is to leave at once. Each is four times the one before it.
BATCH = 500
FIRST_BATCH = 20
#: Seconds after which a batch leaves, full or not, when the next item comes.
OLDEST = 0.05

#: What a bad item means for the others; see `send_many`.
OnError = Literal["continue", "stop", "send_nothing"]
#: Options that name another way to the broker than the application's own.
_OTHER_WAYS = ("producer", "publisher", "connection")
#: Types of values that nobody can change.
_CONSTANT = frozenset((int, float, bool, type(None)))
#: Options in which neighbours may differ, and still share all else.
_OF_EACH = frozenset(("task_id", "group_index"))
#: Options of a call that shares nothing: its times are its own, and so is the way that it is sent.
_OWN_WAY = frozenset((*_OTHER_WAYS, "countdown", "eta", "expires", "shadow", "router", "stamped_headers", "argsrepr"))


class Sent(msgspec.Struct):
    """What became of one item."""

    #: Its position in what was given.
    number: int
    #: Name of its task.
    task: str
    #: As of `apply_async`; None when it was not sent.
    result: Any
    error: Exception | None = None


class _Message(msgspec.Struct, frozen=True, gc=False):
    """A message, the item it belongs to, and how it wants to be sent."""

    item: int
    name: str
    publish: Publish
    policy: dict[str, Any] | None
    timeout: float | None


class _Run:
    """Neighbours that are calls of one task with the same options: what they share is worked out once (rule 6).

    Args:
        app: the application.
        signature: the first of them; it is sent by another call, as all are.
        task: its task; None: of a name that is not registered here.
        options: of `send_many`.
    """

    __slots__ = ("_calls", "_check", "_options", "declare", "name", "policy", "timeout")

    def __init__(
        self, app: Celery, signature: Signature[Any], task: Task[..., Any] | None, options: dict[str, Any]
    ) -> None:
        self.name = signature["task"]
        self._options = _shared(signature.options)
        self._check = None
        args, kwargs, given = signature._call((), {}, None, options)
        given = _shared(given)
        if task is not None:
            self._check = task._checker() if task._should_check() else None
            result_cls = partial(app.AsyncResult, backend=task.backend, task_name=task.name)
            given = {**task._fill_options(given), "task_type": task, "result_cls": result_cls}
        self.policy, self.timeout = app.amqp.policy(given), given.get("timeout")
        self.declare = given.get("declare")
        self._calls = Calls(app, self.name, args, kwargs, given)

    def takes(self, signature: Signature[Any]) -> bool:
        """Whether it is such a call."""
        if signature["task"] != self.name:
            return False
        mine, count = self._options, 0
        for option, value in signature["options"].items():
            if option in _OF_EACH:
                continue
            count += 1
            known = mine.get(option, _Run)
            if type(value) is str:
                if known != value:
                    return False
            # A mapping or list may be changed between two items, and equal ones may differ on the wire: 1 and True do.
            # The body of a chord is the workflow's own, and stays as it is.
            elif known is not value or (option != "chord" and type(value) not in _CONSTANT):
                return False
        return count == len(mine)

    def make(self, signature: Signature[Any], ids: Ids) -> tuple[AsyncResult[Any], Publish]:
        """Its result and its message."""
        args, kwargs, options = signature["args"], signature["kwargs"], signature["options"]
        if self._check is not None:
            self._check(*args, **kwargs)
        return self._calls.make(options.get("task_id") or ids.new(), tuple(args), kwargs, options.get("group_index"))


def _shared(options: Mapping[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option not in _OF_EACH}


class Batch(Outbox):
    """Stands in for a producer: what items send through it leaves together."""

    __slots__ = ("_app", "_ids", "_item", "_options", "_run", "_runs", "declare", "entries", "items")

    tells_when_sent = True

    def __init__(self, app: Celery, options: dict[str, Any], ids: Ids) -> None:
        super().__init__()
        self._app = app
        self._ids = ids
        self._options = options
        self._item = 0
        self._run: _Run | None = None
        #: Calls that differ are made one by one, and so are all where something listens to each, or runs in place.
        self._runs = (
            type(app).send_task is type(app)._plain_send_task
            and not app.conf.task_always_eager
            and not signals.before_task_publish.receivers
            and _OWN_WAY.isdisjoint(options)
            and _OF_EACH.isdisjoint(options)
        )
        self.items: list[Sent] = []
        self.entries: list[_Message] = []
        self.declare: list[Any] = []

    def publish(
        self,
        message: Publish,
        *,
        name: str = "",
        policy: dict[str, Any] | None = None,
        timeout: float | None = None,
        declare: Any = (),
        **_: Any,
    ) -> None:
        """Keep a message for the batch."""
        self.entries.append(_Message(self._item, name, message, policy, timeout))
        self.declare.extend(declare or ())

    def add(self, number: int, item: Any) -> Sent:
        """Have an item make its message."""
        before, begun = len(self.entries), len(self.begins)
        self._item = len(self.items)
        try:
            signature = item if type(item) is Signature else self._signature(item)
            sent = Sent(number, signature["task"], self._send(signature))
        except Exception as error:  # noqa: BLE001 - it belongs to the item, and is told at the end
            del self.entries[before:], self.begins[begun:]
            sent = Sent(number, item.get("task", "") if isinstance(item, dict) else "", None, error)
        self.items.append(sent)
        return sent

    def _signature(self, item: Any) -> Signature[Any]:
        signature = maybe_signature(item, app=self._app)
        if signature is None or not hasattr(signature, "apply_async"):
            raise TypeError(f"send_many takes signatures, not {type(item).__name__}: {item!r:.200}")
        return signature

    def _send(self, signature: Signature[Any]) -> Any:
        run = self._run
        if run is None or not run.takes(signature):
            run = self._begin_run(signature)
        if run is not None:
            result, message = run.make(signature, self._ids)
            self.entries.append(_Message(self._item, run.name, message, run.policy, run.timeout))
            return result
        if any(signature.options.get(way) for way in _OTHER_WAYS):
            return signature.apply_async(**self._options)
        return signature.apply_async(**{"producer": self, **self._options})

    def _begin_run(self, signature: Signature[Any]) -> _Run | None:
        """A run that begins with this call; None: it has to go its own way."""
        kind: Any = type(signature)
        if (
            not self._runs
            or kind.apply_async is not kind._plain_apply_async
            or not _OWN_WAY.isdisjoint(signature["options"])
        ):
            return None
        task = signature._known_type()
        if task is None:
            if signature.app is not self._app:
                return None
        elif task.name != signature["task"] or not task._calls_are_alike():
            return None
        run = self._run = _Run(self._app, signature, task, self._options)
        if run.declare:
            self.declare.extend(queues_of(run.declare))
        return run

    def fail(self, entry: _Message, error: Exception) -> None:
        """The broker's driver refused a message."""
        item = self.items[entry.item]
        item.result, item.error = None, error

    def steps(self) -> Generator[list[_Message], Exception | None, None]:
        """What to publish, call by call; to be told of each call how it ended (None: well).

        Neighbours that want to be sent alike leave in one call. An error of the driver that is not the connection's
        concerns a single message, and then nothing of the call was sent: its messages are sent one by one.
        """
        for alike in _alike(self.entries):
            error = yield alike
            if error is None:
                continue
            if len(alike) == 1:
                self.fail(alike[0], error)
                continue
            for entry in alike:
                error = yield [entry]
                if error is not None:
                    self.fail(entry, error)


def _alike(entries: list[_Message]) -> Iterator[list[_Message]]:
    start, policy, timeout = 0, None, None
    for end, entry in enumerate(entries):
        # Those of a run have the same policy: comparing two takes ten times as long.
        if entry.timeout == timeout and (entry.policy is policy or entry.policy == policy) and end - start < BATCH:
            continue
        if end:
            yield entries[start:end]
        start, policy, timeout = end, entry.policy, entry.timeout
    if entries:
        yield entries[start:]


class Batching:
    """Fills batches; says when one is to leave (rule 2)."""

    def __init__(self, app: Celery, batch: int, on_error: OnError, options: dict[str, Any]) -> None:
        if on_error not in ("continue", "stop", "send_nothing"):
            raise ValueError(f"on_error is {on_error!r}; it can be 'continue', 'stop' or 'send_nothing'.")
        if batch < 1:
            raise ValueError(f"batch is {batch!r}; a batch has one item at least.")
        self._app = app
        self._most = batch
        self._on_error = on_error
        self._options = options
        self._size = min(batch, FIRST_BATCH)
        self._index = 0
        self._born = 0.0
        self._ids = Ids()
        self.batch = Batch(app, options, self._ids)
        self.stopped = False

    def add(self, item: Any) -> bool:
        """Take an item; whether the batch is to leave before the next one is drawn."""
        batch = self.batch
        if not batch.items:
            self._born = time.monotonic()
        sent = batch.add(self._index, item)
        self._index += 1
        if sent.error is not None and self._on_error != "continue":
            self.stopped = True
            if self._on_error == "send_nothing":
                batch.entries.clear()
                batch.begins.clear()
                for known in batch.items:
                    known.result = None
            return True
        if self._on_error == "send_nothing":
            return False
        return len(batch.items) >= self._size or time.monotonic() - self._born > OLDEST

    def next(self) -> Batch:
        """The batch that leaves now; another one is begun."""
        full, self.batch = self.batch, Batch(self._app, self._options, self._ids)
        self._size = min(self._size * 4, self._most)
        return full


def send_in_batches(
    app: Celery, signatures: Iterable[Any], *, batch: int = BATCH, on_error: OnError = "continue", **options: Any
) -> Iterator[list[Sent]]:
    """Send signatures; after each batch, what became of its items.

    Args:
        app: the application.
        signatures: signatures, or their dict forms, of any kind; drawn as batches leave.
        batch: items of a batch, at most.
        on_error: see `send_many`.
        options: of `apply_async`, for every item.

    Raises:
        OperationalError: the broker stayed away for longer than the retry policy bears; what the batches before this
            one had is sent, and of this one perhaps some.
    """
    draw = Batching(app, batch, on_error, options)
    for item in signatures:
        if draw.add(item):
            yield _publish(app, draw.next())
            if draw.stopped:
                return
    if draw.batch.items:
        yield _publish(app, draw.next())


async def asend_in_batches(
    app: Celery,
    signatures: Iterable[Any] | AsyncIterable[Any],
    *,
    batch: int = BATCH,
    on_error: OnError = "continue",
    **options: Any,
) -> AsyncIterator[list[Sent]]:
    """`send_in_batches` for coroutines; takes asynchronous generators too."""
    draw = Batching(app, batch, on_error, options)
    async for item in _each(signatures):
        if draw.add(item):
            yield await _apublish(app, draw.next())
            if draw.stopped:
                return
    if draw.batch.items:
        yield await _apublish(app, draw.next())


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _publish(app: Celery, batch: Batch) -> list[Sent]:
    publisher = app.publisher
    if batch.begins and app.backend.chords is not None:
        app.backend.chords.begin(batch.begins)
    if batch.declare:
        publisher.run(lambda sender: sender.declare(batch.declare), batch.entries[0].policy)
    steps = batch.steps()
    entries = next(steps, None)
    while entries is not None:
        error = None
        first = entries[0]
        try:
            messages = [entry.publish for entry in entries]
            publisher.publish(messages, confirm=True, timeout=first.timeout, policy=first.policy)
        except exceptions.OperationalError:
            raise
        except Exception as refused:  # noqa: BLE001 - of a message, see Batch.steps
            error = refused
        else:
            _tell(app, entries)
        entries = _following(steps, error)
    return batch.items


async def _apublish(app: Celery, batch: Batch) -> list[Sent]:
    publisher = app.publisher
    if batch.begins and (book := app.backend.chords) is not None:
        import asyncio

        await asyncio.to_thread(book.begin, batch.begins)
    if batch.declare:
        await publisher.arun(lambda sender: sender.declare(batch.declare), batch.entries[0].policy)
    steps = batch.steps()
    entries = next(steps, None)
    while entries is not None:
        error = None
        first = entries[0]
        try:
            messages = [entry.publish for entry in entries]
            await publisher.apublish(messages, confirm=True, timeout=first.timeout, policy=first.policy)
        except exceptions.OperationalError:
            raise
        except Exception as refused:  # noqa: BLE001 - of a message, see Batch.steps
            error = refused
        else:
            _tell(app, entries)
        entries = _following(steps, error)
    return batch.items


def _tell(app: Celery, entries: list[_Message]) -> None:
    if signals.after_task_publish.receivers:
        for entry in entries:
            app.amqp.sent(entry.name, entry.publish)


def _following(
    steps: Generator[list[_Message], Exception | None, None], error: Exception | None
) -> list[_Message] | None:
    try:
        return steps.send(error)
    except StopIteration:
        return None


class _Tally:
    """Results in order and errors by index, from batches."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: dict[int, Exception] = {}
        self._first_task = ""

    def add(self, items: list[Sent]) -> None:
        self.results += [item.result for item in items]
        for item in items:
            if item.error is not None:
                if not self.errors:
                    self._first_task = item.task
                self.errors[item.number] = item.error

    def told(self, error: Exception) -> Exception:
        """The error of a broker that stayed away, with what was sent before."""
        error.results = self.results  # type: ignore[attr-defined]  # as of SendManyError, on an exception of kombu's
        error.add_note(f"{len(self.results)} calls of send_many had been dealt with before.")
        return error

    def end(self) -> list[Any]:
        if self.errors:
            index, error = next(iter(self.errors.items()))
            raise exceptions.SendManyError(
                f"{len(self.errors)} of {len(self.results)} calls could not be sent; the first is number {index}, "
                f"{self._first_task or 'of no task'}: {type(error).__name__}: {error}",
                results=self.results,
                errors=self.errors,
            ) from error
        return self.results


def send_many(app: Celery, signatures: Iterable[Any], **options: Any) -> list[Any]:
    """See `Celery.send_many`."""
    tally = _Tally()
    try:
        for items in send_in_batches(app, signatures, **options):
            tally.add(items)
    except exceptions.OperationalError as error:
        raise tally.told(error) from error.__cause__
    return tally.end()


async def asend_many(app: Celery, signatures: Iterable[Any] | AsyncIterable[Any], **options: Any) -> list[Any]:
    """See `Celery.asend_many`."""
    tally = _Tally()
    try:
        async for items in asend_in_batches(app, signatures, **options):
            tally.add(items)
    except exceptions.OperationalError as error:
        raise tally.told(error) from error.__cause__
    return tally.end()
