"""What a worker sends to itself: what follows a task stays with the worker that ran it, claimed as it is sent.

A step of a chain goes to the queue that it came from, as a rule, and an idle worker that settles it is the first to be
told. It would read back what it has just written; of a long chain that is most of its work. So where nothing else
waits, the settlement puts such a message into `unacked` instead of the list. To everybody else this looks as if this
worker had won the claim: the message has a tag of its own, an index entry, and is in the worker's held set.

Rules
    1. Kept is a message that alone follows an acknowledged delivery, goes to one list that this worker takes from, and
       is to run at once. What goes to many is for many workers; so is what is more than could begin here now.
    2. And only when all those lists were empty when last seen, and no notice has come since. So it overtakes nothing,
       whatever its priority, but what was sent while that notice is under way.
    3. One transaction: HSET of the records; `settle`, which enters a kept message in the index where it would have
       pushed it, or does not if the settlement is refused or void; `kept`, which removes what was not entered. So the
       bytes of a message are shown to no script (`celery.brokers.redis.moving` says why).
    4. What was entered is delivered, also when the rest of the batch failed: it is sent. When the connection is lost
       before the reply, it goes back to its queue with all else that this worker holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.brokers.base import Verdict
from celery.brokers.redis import envelope, resp
from celery.brokers.redis.claiming import Claimed
from celery.brokers.redis.routing import Posting
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.brokers.base import Settlement
    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.scripts import Script
    from celery.brokers.redis.streaming import Stream


def choose(
    batch: Sequence[Settlement],
    postings: Sequence[Posting | None],
    sources: Mapping[str, tuple[str, bytes]],
    most: int,
) -> list[int]:
    """Which of these settlements have a message that may be kept (rule 1): their positions.

    Args:
        batch: the settlements.
        postings: what follows each of them.
        sources: by name, the lists that this worker takes from.
        most: how many may be kept.
    """
    chosen: list[int] = []
    for at, posting in enumerate(postings):
        if len(chosen) >= most:
            break
        if posting is not None and _may_be_kept(batch[at], posting, sources):
            chosen.append(at)
    return chosen


def _may_be_kept(settlement: Settlement, posting: Posting, sources: Mapping[str, tuple[str, bytes]]) -> bool:
    if len(posting.pushes) != 1 or posting.channels or len(settlement.follow) != 1:
        return False
    # Of a delivery that was never recorded nothing says that this worker still has its lease.
    if settlement.verdict is not Verdict.ACK or settlement.delivery.receipt is None:
        return False
    publish = settlement.follow[0]
    waits = publish.until is not None or publish.envelope.headers.get("eta")
    return not waits and posting.pushes[0][0] in sources


class Keeper:
    """Keeps messages for one worker.

    Args:
        stream: its connection.
        keys: the names.
        worker: its id.
        token: begins its delivery tags.
    """

    def __init__(self, stream: Stream, keys: Keys, worker: str, token: str) -> None:
        self._stream = stream
        self._names = keys.unacked, keys.index
        #: Stands for a list in what `settle` pushes: what goes there is the tag of a message that is kept.
        self._held = keys.held(worker)
        self._prefix = f"{token}.kept."
        self._last = 0

    def keep(
        self,
        batch: Sequence[Settlement],
        postings: list[Posting | None],
        sources: Mapping[str, tuple[str, bytes]],
        most: int,
    ) -> list[Claimed]:
        """The messages to keep. Their postings name tags from now on, in place of lists and texts."""
        kept: list[Claimed] = []
        for at in choose(batch, postings, sources, most):
            posting = postings[at]
            assert posting is not None
            ((name, text),) = posting.pushes
            self._last += 1
            tag = f"{self._prefix}{self._last:09d}"
            kept.append(Claimed(sources[name][0], tag, text))
            postings[at] = Posting([(self._held, tag.encode())], [])
        return kept

    async def settle(
        self, script: Script, arguments: Sequence[Any], kept: Sequence[Claimed]
    ) -> tuple[Any, list[Claimed]]:
        """Settle, and record what is kept (rule 3).

        Args:
            script: settles.
            arguments: for it.
            kept: from `keep`.

        Returns:
            The script's reply, or its error; and what is ours.

        Raises:
            OperationalError: nothing is known to be applied.
        """
        unacked, index = self._names
        words: list[tuple[bytes, ...]] = [(b"HSET",), (unacked.encode(),)]
        for queue, tag, text in kept:
            words += ((tag.encode(),), envelope.record_pieces(text, envelope.record_suffix(queue)))
        record = resp.pack_long(words)
        sort = resp.pack(("EVAL", load("kept").text, 0, unacked, index, *[each.tag for each in kept]))
        for call in (("EVALSHA", script.sha), ("EVAL", script.text)):
            commands = ("MULTI",), record, (*call, 0, *arguments), sort, ("EXEC",)
            _, reply, tags = (await self._stream.pipeline(commands))[-1]
            # A script that the server does not know has done nothing, and the records are gone again.
            if not (isinstance(reply, resp.ReplyError) and str(reply).startswith("NOSCRIPT")):
                break
        ours = set(self._stream.check(tags))
        return reply, [each for each in kept if each.tag.encode() in ours]
