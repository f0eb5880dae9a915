"""How an idle worker is handed a message: it blocks for one, on a connection of its own.

Vocabulary
    A *wait* is a BRPOPLPUSH from one list, the one of the highest step of the queue that was consumed first, into a
    list of the worker's own. What it gives *came*, and is then *recorded* as held, as `claim` would have done it.

Rules
    1. What came is delivered at once. Its record goes with the next command on the other connection, the settlement
       of a short task for one, and after `_RECORDED_WITHIN` at the latest. So no command of ours overtakes it. Where
       that settlement is its own, which acknowledges and stores a result at most, it takes the place of the record.
    2. Redis serves who blocked first, peers in BRPOP among them, and only one: not all of an idle fleet wake up.
    3. A wait takes up the room of one message. Where there is none left it is ended by CLIENT UNBLOCK; what came in
       that moment is ours, and is there for the next who wants something.
    4. The rightmost element of the list is what ends the records of its source. So whoever takes over from this
       worker (`inherit`) records what had come, counts it as held, and leaves a text in place of the list: a
       BRPOPLPUSH into a text fails, and its source keeps the message. So nothing follows a worker that is gone,
       neither by a wait that is still blocked nor by one that was under way.
    5. A list is set up before it is waited for, and enters a worker that has no lease with one that is over (as in
       `celery.brokers.redis.moving`). It is set up again when somebody had taken over while we were only late.
    6. Both connections are to one process of a server, by its own word, and end together.
    7. A wait lasts `_LONGEST`, which is less than any lease has left. One that is not answered by then means a
       half-open connection. So what a server hands to somebody who is not there comes back.
    8. Who is refused (rights, no memory) is told of news instead, and asks again when the caller does.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.brokers.base import Verdict
from celery.brokers.redis import resp, streaming
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.brokers.base import Settlement
    from celery.brokers.redis.address import Address
    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.resp import Command
    from celery.brokers.redis.settling import ResultStore
    from celery.brokers.redis.streaming import Stream

logger = logging.getLogger(__name__)

#: Seconds that one wait lasts (rule 7).
_LONGEST = 5.0
#: Seconds after its beginning when it should have been answered.
_OVERDUE = 10.0
#: Seconds in which the record of what came is sent, should nothing else be. A loop counts in milliseconds.
_RECORDED_WITHIN = 0.002
#: Seconds after which the server has begun a wait that was just sent, most likely.
_AGAIN = 0.01
#: What its script says of a message that it recorded.
_RECORDED = 1
#: What tells one server from another, and from itself after a restart.
_IDENTITY = (("CLIENT", "ID"), ("INFO", "server"))
_PROCESS = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


class Waiting:
    """Waits for one worker, one message at a time. Make it with `connect`.

    Args:
        own: the connection that blocks.
        client: its number at the server.
        stream: the connection of all else.
        keys: the names.
        worker: its id.
        token: begins its delivery tags.
        changed: called when a wait was answered, or another one may begin.
        database: of the broker.
    """

    def __init__(
        self, own: Stream, client: int, stream: Stream, keys: Keys, worker: str, token: str,
        changed: Callable[[], None], database: int,
    ) -> None:  # fmt: skip
        self._own = own
        self._client = client
        self._stream = stream
        self._list = keys.waiting(worker)
        self._enter: Command = ("ZADD", keys.workers, "NX", 0, worker)
        self._record_names = (keys.unacked, keys.index, keys.held(worker), self._list)
        self._tag_prefix = f"{token}.w"
        self._next_tag = 0
        self._changed = changed
        self._database = database
        self._loop = asyncio.get_running_loop()
        #: What is waited for, or was last.
        self.queue = ""
        #: What the list is set up for, and what waits for it.
        self._source = ""
        self._block: tuple[bytes, ...] = ()
        #: When the wait began that is not answered; 0: none.
        self._began = 0.0
        self._ending = False
        #: What came, with its tag: (tag, text). Kept until `take`.
        self._came: tuple[str, bytes] | None = None
        #: Why waiting was refused, until `forgive`.
        self.refusal: Exception | None = None
        #: Records that are not answered yet.
        self._recording = 0
        #: The last one: its tag, and what takes it back while it is not written.
        self._record_of: tuple[str, object] = "", None
        #: Whether something came before the records of two others were answered, until the caller has seen it.
        self.crowded = False
        #: How the next record names its script: by its text, until the server is known to know it.
        self._script = ("EVAL", load("came").text)

    # -- waiting

    @property
    def open(self) -> bool:
        """Whether a wait is not answered yet."""
        return self._began > 0

    @property
    def busy(self) -> bool:
        """Whether a wait is not answered yet, and will be."""
        return self._began > 0 and self._stream.failure is None

    @property
    def room(self) -> int:
        """How many messages it has, or may get at any moment."""
        return 1 if self._began or self._came is not None else 0

    def begin(self, queue: str, source: str, suffix: bytes) -> None:
        """Wait for a message of this list, unless the wait before is not over or what it gave was not taken.

        Args:
            queue: its name.
            source: one of its lists.
            suffix: what ends its records.
        """
        if self._began or self._came is not None or self.refusal or self._own.failure:
            return
        if self._recording and source != self._source:
            return  # what its records are made of is still in the list; it is said when it is not
        self._began = self._loop.time()
        self._ending = False
        self.queue = queue
        if source == self._source:
            self._own.ask(self._block, self._answered)
        else:
            self._source = ""
            commands = (("MULTI",), ("DEL", self._list), ("RPUSH", self._list, suffix), self._enter, ("EXEC",))
            self._own.ask(commands, lambda replies: self._set_up(source, replies))

    def _set_up(self, source: str, replies: list[Any]) -> None:
        try:
            for reply in (*replies, *self._own.check(replies[-1])):
                self._own.check(reply)
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured) as error:
            self._refused(error)
            return
        self._source = source
        self._block = (resp.pack(("BRPOPLPUSH", source, self._list, _LONGEST)),)
        if self._ending:
            self._began = 0.0
            self._changed()
        else:
            self._own.ask(self._block, self._answered)

    def _answered(self, replies: list[Any]) -> None:
        reply = replies[0]
        self._began = 0.0
        if isinstance(reply, resp.ReplyError):
            if not str(reply).startswith("WRONGTYPE"):
                self._refused(reply)
                return
            self._source = ""  # somebody has taken over from us: rule 5
        elif reply is not None:
            tag = f"{self._tag_prefix}{self._next_tag:09d}"
            self._next_tag += 1
            self._came = tag, reply
            self.crowded = self._recording > 1
            self._recording += 1
            self._record(*self._script, tag)
        self._changed()

    def _refused(self, error: Exception) -> None:
        logger.debug("No wait for messages: %s", error)
        self._began = 0.0
        self.refusal = error
        self._changed()

    def forgive(self) -> None:
        """Try again what was refused (rule 8). A wait that is not answered for too long fails the connection."""
        self.refusal = None
        if self._began and self._loop.time() - self._began > _OVERDUE:
            # A process that stood still has not read the answer yet: uvloop looks at timers before it reads.
            self._loop.call_later(_AGAIN, self._give_up, self._began)

    def _give_up(self, began: float) -> None:
        if self._began == began:
            self._stream.fail("the server does not answer a wait")

    def end(self) -> None:
        """Let the wait be answered now."""
        if self._began and not self._ending:
            self._ending = True
            self._unblock()

    def _unblock(self) -> None:
        if self._began and self._ending and self._source and self._stream.failure is None:
            self._stream.ask((("CLIENT", "UNBLOCK", self._client),), self._unblocked)

    def _unblocked(self, replies: list[Any]) -> None:
        if isinstance(replies[0], resp.ReplyError):
            self.refusal = replies[0]
        elif not replies[0]:
            self._loop.call_later(_AGAIN, self._unblock)  # it is answered, or was not there yet

    # -- what came

    @property
    def came(self) -> bool:
        """Whether there is something to take."""
        return self._came is not None

    def take(self) -> tuple[str, bytes] | None:
        """What came: tag and text; None: nothing."""
        came, self._came = self._came, None
        return came

    def _record(self, command: str, script: str, tag: str) -> None:
        def answered(replies: list[Any]) -> None:
            if self._spoke_again(replies[0]):
                self._record(*self._script, tag)

        words = (command, script, 0, *self._record_names, tag)
        self._record_of = tag, self._stream.ask((words,), answered, within=_RECORDED_WITHIN)

    def _spoke_again(self, reply: Any) -> bool:
        """Hear the reply to a record; whether it has to be said again, by the script's text."""
        if not isinstance(reply, resp.ReplyError):
            self._recording -= 1
            self._script = ("EVALSHA", load("came").sha)
            if not self._recording and not self._began:
                self._changed()
            return False
        if str(reply).startswith("NOSCRIPT") and not self._stream.asked:
            self._script = ("EVAL", load("came").text)
            return True
        self._stream.fail(reply)  # what it holds goes back to its queue, unless it was settled
        return False

    async def settle(self, batch: Sequence[Settlement], store: ResultStore | None) -> bool | None:
        """Settle what came last, in place of its record. Gives whether it was still ours; None: nothing was settled.

        Args:
            batch: what is to be settled. Something is done only when it is one settlement, and one that does no more
                than acknowledge and store a result.
            store: where results go.

        Raises:
            OperationalError: nothing is known to be applied.
        """
        if len(batch) != 1 or (result := self._lone(batch[0], store)) is None:
            return None
        tag, question = self._record_of
        if not self._stream.withdraw(question):
            return None
        again = True
        while again:
            reply = await self._stream.send(*self._script, 0, *self._record_names, tag, *result)
            again = self._spoke_again(reply)
        if isinstance(reply, resp.ReplyError):
            self._stream.check(reply)
        return None if reply == _RECORDED else bool(reply)

    def _lone(self, settlement: Settlement, store: ResultStore | None) -> tuple[str | bytes | int, ...] | None:
        """The result that a settlement stores, as words; None: it does more than that."""
        receipt = settlement.delivery.receipt
        if receipt is None or receipt.tag != self._record_of[0] or settlement.verdict is not Verdict.ACK:
            return None
        if settlement.follow or settlement.begins or settlement.parts or settlement.closes or settlement.after_start:
            return None
        if not settlement.results:
            return ("", "", "")
        if store is None or store.address.database != self._database or len(settlement.results) != 1:
            return None
        result = settlement.results[0]
        return store.prefix + result.task_id, store.life(result.state), result.payload

    def close(self) -> None:
        """Disconnect."""
        self._own.close()


async def connect(
    address: Address, stream: Stream, keys: Keys, worker: str, token: str, changed: Callable[[], None]
) -> Waiting | None:
    """Open a connection that waits; None where it may not, or cannot reach the very server of the other one.

    Args:
        address: where.
        stream: the connection of all else; fails when this one does.
        keys: the names.
        worker: its id.
        token: begins its delivery tags.
        changed: called when a wait was answered, or another one may begin.
    """
    waiting: Waiting | None = None

    def ended() -> None:
        if waiting is not None:
            stream.fail("the connection that waits for messages was lost")

    try:
        own = await streaming.connect(address, _no_push, ended)
        try:
            async with asyncio.timeout(address.connect_timeout):
                client, info = await own.pipeline(_IDENTITY)
                _, other, _ = await stream.pipeline((*_IDENTITY, ("CLIENT", "UNBLOCK", client)))
            if _process(info) != _process(other):
                raise exceptions.OperationalError("another server answers")  # noqa: TRY301 - as all that stands in the way
        except BaseException:
            own.close()
            raise
    except (exceptions.OperationalError, exceptions.ImproperlyConfigured, TimeoutError) as error:
        logger.info("No connection waits for messages, news are told instead: %s", error)
        return None
    waiting = Waiting(own, client, stream, keys, worker, token, changed, address.database)
    return waiting


def _process(info: Any) -> bytes:
    found = _PROCESS.search(info if isinstance(info, bytes) else bytes(info, "utf-8"))
    if found is None:
        raise exceptions.OperationalError("the server does not say who it is")
    return found[1]


def _no_push(_push: list[Any]) -> None:
    """Nothing was asked for that is told by a push."""
