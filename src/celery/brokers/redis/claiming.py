"""How a worker takes messages out of its queues, and how it waits for them at no cost.

Vocabulary
    A *lane* is one list that is taken from: that of one step of one queue. A *claim* takes messages out of the lanes
    and records them as held, in one script. A *look* is an EXISTS over the lanes, which the server was asked to track
    (`CLIENT TRACKING`, opt-in): it tells us, once, when one of them changes. *News* is whatever suggests that there is
    something to claim.

Rules
    1. A claim goes out when somebody waits and there is news; one at a time. It stays ours, whoever waits when it is
       answered: its reply is kept until somebody takes it in.
    2. A look goes out with the claim, behind it. A list that is filled before the look is seen by it, one that is
       filled afterwards is told by a push. So it takes no second claim to learn that there is no more.
    3. After a claim that gave all it was asked for there is more, most likely: the next one goes without a look.
    4. Any number of queues and steps wait so at once, a peer blocked in BRPOP is served as ever, and no message is in
       nobody's care at any moment.
    5. Where a server does not track for us (an ACL, a proxy), we claim every `_POLL` seconds instead.
    6. While messages come one by one, a worker waits for those of one list on another connection, and does not look at
       it: `celery.brokers.redis.waiting`. A claim that gives more than one ends that, or one that comes so soon after
       others that two have no record yet; some claims in a row that give one or none begin it again. The list
       is the most urgent one of the queue that was consumed first: one that does not change, as each change is a look.
       A claim may go out beside a wait, for one message less than is wanted.
    7. Lists whose messages were large are claimed from otherwise: `celery.brokers.redis.moving`. Such a claim gives a
       few megabytes, which take time to move. So where it gave all that it was asked for, and there is room for more,
       the next one goes out as it is taken in, and the server moves messages while those before go on to children.
       Together they give no more than whoever receives has room for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from celery.brokers.redis import envelope, resp
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.moving import Mover
    from celery.brokers.redis.streaming import Stream
    from celery.brokers.redis.waiting import Waiting

#: Seconds between two claims where the server does not tell us about changes.
_POLL = 0.05
#: And where it does: a notice cannot get lost, but a bound costs nothing.
_LOOK_AGAIN = 5.0
#: Messages taken by one claim, so that no single one holds the server up.
_MOST_AT_ONCE = 1000
#: Bytes of messages after which a claim takes no more, for the same reason.
_BYTES_AT_ONCE = 1 << 20
#: After so many claims that gave one message or none, messages come one by one.
_ALONE = 32
_TRACK = resp.pack(("CLIENT", "CACHING", "YES"))


class _Lane(NamedTuple):
    """One list that is claimed from."""

    queue: str
    name: str
    suffix: bytes


class Claimed(NamedTuple):
    """A message that is ours."""

    queue: str
    tag: str
    text: bytes


class _Claim:
    """A claim that will be sent, or was, and its replies when they are here."""

    def __init__(self, lanes: list[_Lane], limit: int, first: int, large: int | None) -> None:
        self.lanes = lanes
        self.limit = limit
        #: Number of its first tag.
        self.first = first
        #: Position of the first lane that has large messages.
        self.large = large
        #: The command; of no use where there are large messages.
        self.packed = b""
        self.looks = False
        #: And not at the list that is waited for.
        self.around = False
        #: Of the claim; with a look: of the claim, the wish to be told, the look.
        self.replies: list[Any] | None = None
        #: So many of these are asked for.
        self.most = 0
        #: Instead of replies, where it takes more than one round trip.
        self.moving: asyncio.Task[list[Any]] | None = None

    @property
    def answered(self) -> bool:
        """Whether it can be taken in."""
        return self.replies is not None or (self.moving is not None and self.moving.done())


class Claims:
    """Claims of one worker over one connection.

    Args:
        stream: the connection.
        keys: the names.
        worker: its id.
        token: begins its delivery tags.
        mover: claims large messages.
        strategy: `round_robin`, or a fixed order: `priority`, `sorted`.
        tracked: whether the server tells of changed lists.
        arrived: called when a claim was answered.
    """

    def __init__(
        self,
        stream: Stream,
        keys: Keys,
        worker: str,
        token: str,
        mover: Mover,
        *,
        strategy: str,
        tracked: bool,
        arrived: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._keys = keys
        self._names = (keys.unacked, keys.index, keys.held(worker))
        self._tag_prefix = f"{token}."
        self._next_tag = 0
        self._mover = mover
        self._strategy = strategy
        self._tracked = tracked
        self._arrived = arrived
        self._order: list[str] = []
        self._lanes: list[_Lane] | None = None
        #: By name, what is taken from: queue, and what ends its records.
        self.sources: dict[str, tuple[str, bytes]] = {}
        #: Of what whoever waits wants, so many come without a claim (`celery.brokers.redis.keeping`).
        self.reserved = 0
        self._look: tuple[bytes, bytes] = (b"", b"")
        #: What is waited for (rule 6), and the look at all else.
        self._awaited: _Lane | None = None
        self._look_around: tuple[bytes, bytes] = (b"", b"")
        #: Where that can be done.
        self.waiting: Waiting | None = None
        self._leaving = False
        #: So many claims in a row gave one message at most.
        self._alone = _ALONE
        #: What whoever waits wants; 0: nobody waits.
        self._wanted = 0
        self._news = False
        #: The last claim gave all it was asked for.
        self._full = False
        #: The last claim gave all large messages that it asked for.
        self._goes_on = False
        self._claim: _Claim | None = None
        #: What goes out when there is news, made while nobody waits for it: a fortieth of a lone round trip.
        self._next: _Claim | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._remind()

    # -- what is claimed from

    def add(self, queue: str) -> None:
        """Take from this queue too."""
        if queue not in self._order:
            self._order.append(queue)
        if self._strategy == "sorted":
            self._order.sort()
        self._changed()
        self.tell()

    def remove(self, queue: str) -> None:
        """Take no more from this queue."""
        self._order.remove(queue)
        self._changed()

    def __bool__(self) -> bool:
        return bool(self._order)

    def _changed(self) -> None:
        self._lanes = None
        lists = [name for queue in self._order for name in self._keys.lists(queue)]
        self._look = (_TRACK, resp.pack(("EXISTS", *lists)))
        self.sources = {
            name: (queue, envelope.record_suffix(queue)) for queue in self._order for name in self._keys.lists(queue)
        }
        if self._awaited is None or self._awaited.queue not in self._order:
            if self.waiting is not None:
                self.waiting.end()
            self._awaited = None
            if self._order:
                queue = self._order[0]
                self._awaited = _Lane(queue, self._keys.lists(queue)[0], envelope.record_suffix(queue))
        if self._awaited is not None:
            others = [name for name in lists if name != self._awaited.name]
            self._look_around = (_TRACK, resp.pack(("EXISTS", *(others or lists))))

    # -- asking

    def want(self, limit: int) -> None:
        """Somebody waits for up to so many messages; 0: nobody does."""
        self._wanted = min(limit, _MOST_AT_ONCE)
        self._go()
        if not limit:
            if self.waiting is not None and self.waiting.open:
                asyncio.get_running_loop().call_soon(self._unwanted)
        elif limit > self.reserved and self._order and self._claim is None and not self._waits:
            self._next = self._made()

    def _unwanted(self) -> None:
        """Who waited may have come back at once."""
        if self.waiting is not None and not self._wanted:
            self.waiting.end()

    def tell(self) -> None:
        """There may be something to claim."""
        self._news = True
        self._go()

    def stop(self) -> None:
        """Send no more claims."""
        self._wanted = 0
        if self._timer is not None:
            self._timer.cancel()
        if self.waiting is not None:
            self.waiting.end()

    @property
    def under_way(self) -> bool:
        """Whether a claim or a wait is not answered yet."""
        if self.waiting is not None and self.waiting.busy:
            return True
        return self._claim is not None and not self._claim.answered and self._stream.failure is None

    @property
    def empty(self) -> bool:
        """Whether all lists were empty when last seen, and no news has come since."""
        if self._waits and not (self.waiting is not None and self.waiting.open):
            return False
        return self._tracked and not self._news and self._claim is None and bool(self._order)

    def spare(self, room: int) -> int:
        """Of the room for so many messages, what neither was promised to others nor may be taken up by a wait."""
        if self.waiting is not None and self.waiting.room:
            room = min(room, self._wanted - self.waiting.room)
        return room - self.reserved

    def leaves(self) -> bool:
        """Whether what is not consumed any more is still waited for. Then `arrived` is called when that is over."""
        waiting = self.waiting
        self._leaving = waiting is not None and waiting.busy and waiting.queue not in self._order
        return self._leaving

    def waited(self) -> None:
        """A wait was answered, or another one may begin."""
        waiting = self.waiting
        assert waiting is not None
        if waiting.crowded:
            waiting.crowded = False
            self._alone = 0
        self._news = self._news or not self._waits  # then the look must be at all lists
        if waiting.came or self._leaving or not self._wanted:
            self._arrived()
        self._go()

    def _remind(self) -> None:
        if self._stream.failure is not None:
            return
        self._timer = asyncio.get_running_loop().call_later(_LOOK_AGAIN if self._tracked else _POLL, self._remind)
        if self.waiting is not None:
            self.waiting.forgive()
        self.tell()

    def _go(self) -> None:
        if not (self._wanted and self._order) or self._claim is not None or self._stream.failure:
            return
        if not self._news:
            if self._limit > 0 and self._waits and self.waiting is not None and self._awaited is not None:
                self.waiting.begin(*self._awaited)
            return
        if self._limit <= 0:
            if self.waiting is not None:
                self.waiting.end()
            return
        self._news = False
        claim = self._claim = self._made()
        self._next = None
        self._next_tag += claim.limit
        if claim.large is None:
            self._send(claim)
        else:
            claim.moving = asyncio.create_task(self._move(claim, claim.large))
            claim.moving.add_done_callback(self._moved)

    @property
    def _waits(self) -> bool:
        """Whether one list is waited for, not looked at."""
        return self._alone >= _ALONE and self.waiting is not None and self.waiting.refusal is None

    @property
    def _limit(self) -> int:
        """How many may be claimed now."""
        return self._wanted - self.reserved - (self.waiting.room if self.waiting is not None else 0)

    def _made(self) -> _Claim:
        """The next claim, ready to be sent."""
        limit, made = self._limit, self._next
        if made is not None and made.limit == limit and made.lanes is self._lanes:
            return made
        if self._lanes is None:
            self._lanes = [
                _Lane(queue, self._keys.lane(queue, step), envelope.record_suffix(queue))
                for step in self._keys.steps
                for queue in self._order
            ]
        large = next((at for at, lane in enumerate(self._lanes) if self._mover.is_for(lane.name)), None)
        claim = _Claim(self._lanes, limit, self._next_tag, large)
        if large is None:
            claim.packed = resp.pack(("EVALSHA", load("claim").sha, 0, *self._arguments(claim, claim.lanes)))
        return claim

    def _send(self, claim: _Claim) -> None:
        claim.looks = self._tracked and not self._full

        def answered(replies: list[Any]) -> None:
            claim.replies = replies
            self._arrived()

        claim.around = self._waits
        look = self._look_around if claim.around else self._look
        self._stream.ask((claim.packed, *look) if claim.looks else (claim.packed,), answered)

    def _arguments(self, claim: _Claim, lanes: Sequence[_Lane]) -> tuple[Any, ...]:
        limits = (claim.limit, _BYTES_AT_ONCE, self._tag_prefix, claim.first)
        return (*self._names, *limits, len(lanes), *[lane.name for lane in lanes], *[lane.suffix for lane in lanes])

    async def _move(self, claim: _Claim, large: int) -> list[Any]:
        """Claim where a lane has large messages: what the script gives, of the lanes before it, of it, or of all."""
        if large:
            found = await self._stream.run(load("claim"), *self._arguments(claim, claim.lanes[:large]))
            if found:
                return cast("list[Any]", found)
        _, name, suffix = claim.lanes[large]
        most = claim.most = self._mover.most(name, claim.limit)
        tags = [self._tag(number) for number in range(claim.first, claim.first + most)]
        texts = await self._mover.take(name, suffix, tags)
        if texts:
            return [large, texts]
        return cast("list[Any]", await self._stream.run(load("claim"), *self._arguments(claim, claim.lanes)))

    def _moved(self, moving: asyncio.Task[list[Any]]) -> None:
        if not moving.cancelled():
            moving.exception()  # nobody may be there to be told
        self._arrived()

    # -- what it gave

    def take_in(self) -> list[Claimed]:
        """What the claim that was answered has given, if there is one, and what came by waiting.

        Raises:
            OperationalError: the server refused.
        """
        claim = self._claim
        found = self._found(claim) if claim is not None and claim.answered else None
        claimed = [] if claim is None or found is None else self._taken(claim, found)
        if self.waiting is not None and (came := self.waiting.take()):
            queue = self.waiting.queue
            self._mover.learn(self._keys.lists(queue)[0], [came[1]])
            # First: the wait began before the claim, and its list is the most urgent one.
            claimed.insert(0, Claimed(queue, *came))
        return claimed

    def go_on(self, room: int) -> None:
        """Claim again at once, after large messages (rule 7).

        Args:
            room: of the one who receives, less what he is given now.
        """
        if self._goes_on and room > 0:
            self._goes_on = False
            self._wanted = room
            self._go()
            self._wanted = 0

    def _taken(self, claim: _Claim, found: list[Any]) -> list[Claimed]:
        claimed: list[Claimed] = []
        served: dict[str, None] = {}
        for at in range(0, len(found), 2):
            queue, name, _ = claim.lanes[found[at]]
            served[queue] = None
            self._mover.learn(name, found[at + 1])
            for text in found[at + 1]:
                claimed.append(Claimed(queue, self._tag(claim.first + len(claimed)), text))
        self._full = len(claimed) == claim.limit
        self._goes_on = 0 < len(claimed) == claim.most
        if (not claim.looks and (claimed or self._tracked)) or (claim.around and self._full):
            self._news = True
        if len(claimed) > 1:
            self._news = self._news or self._waits  # the look must be at all lists
            self._alone = 0
        elif claim.looks:
            self._alone += 1
        self._turn(served)
        return claimed

    def _found(self, claim: _Claim) -> list[Any] | None:
        """Pairs of lane and messages; None: it was sent once more."""
        self._claim = None
        if claim.moving is not None:
            return claim.moving.result()
        assert claim.replies is not None
        first = claim.replies[0]
        if isinstance(first, resp.ReplyError) and str(first).startswith("NOSCRIPT"):
            self._claim, claim.replies = claim, None
            claim.packed = resp.pack(("EVAL", load("claim").text, 0, *self._arguments(claim, claim.lanes)))
            self._send(claim)
            return None
        found, *looked = (self._stream.check(reply) for reply in claim.replies)
        if looked and looked[-1]:
            self._news = True
        return cast("list[Any]", found)

    def _turn(self, served: dict[str, None]) -> None:
        """Queues take turns: those that were served come last."""
        if self._strategy != "round_robin" or len(self._order) < 2:
            return
        for queue in served:
            if queue in self._order:
                self._order.remove(queue)
                self._order.append(queue)
                self._lanes = None

    def _tag(self, number: int) -> str:
        return f"{self._tag_prefix}{number:09d}"
