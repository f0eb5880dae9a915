"""Large messages, claimed by commands instead of a script.

Lua hashes every byte of every string that it meets, which costs Redis more than all else it does with a large message.
So from a list whose messages were large when last seen they are taken in two transactions that show none to Lua:

1. *Move*: RPOPLPUSH from the list into the worker's own, its claim. The replies are the messages. The rightmost
   element of a claim is the name of the list that it was taken from.
2. *Record*: HSET into `unacked`, and the script `record` for the rest, which ends the claim.

Rules
    1. Each message is in one place after each step, and handed to nobody before the second was answered.
    2. Whoever takes over from a worker (`inherit`) puts its claim back as it was: neither redelivered nor counted.
    3. A worker that was stopped between the steps for so long finds no claim, and `record` undoes the second one.
    4. Commands of a lost connection may arrive after everything was taken over. So the first step enters a worker that
       has no lease with one that is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.brokers.redis import envelope, resp
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.resp import Command
    from celery.brokers.redis.streaming import Stream

#: Bytes of a message from which on two round trips cost less than Lua does.
_LARGE = 1 << 14
#: Bytes of one claim, if messages are like those before: more than by script, as it takes two round trips.
_BYTES_AT_ONCE = 1 << 22
#: Messages of one claim: that those before were of one size promises nothing about these.
_MOST_AT_ONCE = 32


class Mover:
    """Takes large messages for one worker, one claim at a time.

    Args:
        stream: its connection.
        keys: the names.
        worker: its id.
    """

    def __init__(self, stream: Stream, keys: Keys, worker: str) -> None:
        self._stream = stream
        self._keys = keys
        self._worker = worker
        self._sizes: dict[str, int] = {}

    def learn(self, name: str, texts: Sequence[bytes]) -> None:
        """Remember how large messages from a list were."""
        size = sum(map(len, texts)) // len(texts)
        if size >= _LARGE:
            self._sizes[name] = size
        else:
            self._sizes.pop(name, None)

    def is_for(self, name: str) -> bool:
        """Whether messages of this list were large."""
        return name in self._sizes

    def most(self, name: str, limit: int) -> int:
        """How many messages to take from a list whose messages were large, of at most `limit`."""
        return max(1, min(limit, _MOST_AT_ONCE, _BYTES_AT_ONCE // self._sizes[name]))

    async def take(self, name: str, suffix: bytes, tags: Sequence[str]) -> list[bytes]:
        """Claim messages from a list, under the first of the tags; the list is forgotten when there are none.

        Args:
            name: the list.
            suffix: what ends its records.
            tags: as many as messages are wanted (`most`).

        Raises:
            OperationalError: the connection is lost, or the server refused.
        """
        texts = await self._move(name, len(tags))
        if not texts:
            self._sizes.pop(name, None)
            return []
        return texts if await self._record(texts, suffix, tags) else []

    async def _move(self, name: str, many: int) -> list[bytes]:
        claim = self._keys.claim(self._worker)
        move: Command = ("RPOPLPUSH", name, claim)
        enter: Command = ("ZADD", self._keys.workers, "NX", 0, self._worker)
        replies = await self._stream.transaction([*[move] * many, ("RPUSHX", claim, name), enter])
        return [text for text in replies[:many] if text is not None]

    async def _record(self, texts: list[bytes], suffix: bytes, tags: Sequence[str]) -> bool:
        keys = self._keys
        tags = tags[: len(texts)]
        words: list[tuple[bytes, ...]] = [(b"HSET",), (keys.unacked.encode(),)]
        for tag, text in zip(tags, texts, strict=True):
            words += ((tag.encode(),), envelope.record_pieces(text, suffix))
        # By its text: within a transaction it is too late to learn that the server does not know it.
        names = (keys.unacked, keys.index, keys.held(self._worker), keys.claim(self._worker))
        rest: Command = ("EVAL", load("record").text, 0, *names, *tags)
        try:
            _, recorded = await self._stream.transaction([resp.pack_long(words), rest])
        except Exception as error:
            self._stream.fail(error)  # whoever is next finds the claim; this worker must not begin another one
            raise
        return bool(recorded)
