"""Settlements as arguments of the script `settle`: pure.

The order of a batch matters only for what goes back to the front of a queue: of three messages returned together
the first received must be pushed last, so returns are applied after all else and backwards (rule 2 of
`celery.brokers.base`).
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celery.brokers.base import ChordClaim, Settlement, Verdict
from celery.brokers.redis import dead, envelope
from celery.brokers.redis.address import Address
from celery.brokers.redis.chords import ChordStore, score_of
from celery.brokers.redis.keys import DELAYED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.base import Delivery, ResultWrite
    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.routing import Posting

#: Begins a list of settlements that acknowledge and keep a result, for the script.
STORED = "stored"
#: Begins a list of those whose tasks are members of one chord besides; each has as many settlements as this, at most.
COUNTED = "counted"
_AT_ONCE = 1000
_ACK = Verdict.ACK  # looked up once: finding a member of an enumeration takes Python 3.11 0.1 us
_BACK = (Verdict.RETURN, Verdict.LOST)
#: `ResultStore.chord_terms` without a store.
NO_CHORDS = ("", "", "", "", "")


class Receipt(msgspec.Struct, gc=False):
    """Our handle of a recorded delivery."""

    tag: str
    #: The envelope as it lay in the queue.
    text: bytes


class ResultStore(msgspec.Struct, frozen=True):
    """How a Redis result backend stores a record, for a receiver that does it in the same transaction."""

    address: Address
    #: Put before a task id, it gives the key.
    prefix: str
    #: Seconds, None: for ever.
    expires: int | None
    failure_expires: int | None
    #: How it counts chords.
    chords: ChordStore | None = None

    @property
    def chord_terms(self) -> tuple[str | int, ...]:
        """What the script is told of all chords."""
        return NO_CHORDS if self.chords is None else (*self.chords.counting, self.chords.terms.mark)

    def life(self, state: str) -> int | str:
        """Seconds that a record of this state is kept; "" for ever."""
        seconds = self.failure_expires if state == "FAILURE" else self.expires
        return seconds or ""


class Plan(NamedTuple):
    """A batch, ready for the script."""

    arguments: list[str | bytes | int | float]
    #: In the order of the arguments.
    settlements: list[Settlement]

    def told(self, reply: tuple[list[int], list[tuple[int, int, bytes]]]) -> list[Delivery]:
        """Tell settlements of their claims. Gives the deliveries that were no longer ours.

        Args:
            reply: of the script.
        """
        refused, claims = reply
        for settlement in self.settlements:
            if settlement.claims:  # of an earlier try
                settlement.claims = []
        for position, number, token in claims:
            settlement = self.settlements[position]
            settlement.claims.append(ChordClaim(settlement.parts[number], token.decode()))
        return [self.settlements[position].delivery for position in refused]


def plan(
    batch: Sequence[Settlement],
    postings: Sequence[Posting | None],
    keys: Keys,
    *,
    store: ResultStore | None,
    visibility_timeout: float,
) -> Plan:
    """Lay a batch out for the script.

    Args:
        batch: the settlements.
        postings: for each of them all that follows, as one posting; None: nothing.
        keys: the names.
        store: where results go.
        visibility_timeout: seconds; what is delayed is recorded as received so long before it is due.
    """
    paired: list[tuple[Settlement, Posting | None]] = []
    done: list[Settlement] = []
    kept, counted = _Kept(store), _Counted(store)
    for pair in zip(batch, postings, strict=True):
        settlement, posting = pair
        receipt = settlement.delivery.receipt
        if posting is not None or not _only_done(settlement):
            paired.append(pair)
        elif settlement.parts:
            if receipt is None or not counted.take(settlement):
                paired.append(pair)
        elif not settlement.results:
            if receipt is not None:
                done.append(settlement)
        elif receipt is None or not kept.take(settlement):
            paired.append(pair)
    back = [pair for pair in paired if pair[0].verdict in _BACK]
    if back:
        paired = [pair for pair in paired if pair[0].verdict not in _BACK] + back[::-1]
    chords = store.chords if store else None
    plain = len(done)
    done += kept.settlements() + counted.settlements()
    arguments: list[str | bytes | int | float] = [plain, len(done)]
    arguments += [settlement.delivery.receipt.tag for settlement in done]
    arguments += kept.arguments() + counted.arguments()
    for settlement, posting in paired:
        receipt = settlement.delivery.receipt
        verdict = settlement.verdict
        if receipt is None:
            # A fan-out copy: nothing of it is in the store, so only its consequences are left to apply.
            arguments += (0, "")
        else:
            arguments += (2 if verdict is Verdict.LOST else int(verdict), receipt.tag)
        of_chords = _chord_consequences(settlement, chords) if chords else []
        if posting is None and not settlement.results and not of_chords:
            arguments.append(0)
        else:
            consequences = of_chords + _consequences(settlement.results, posting, store)
            arguments.append(len(consequences))
            arguments += consequences
        if receipt is not None and verdict > Verdict.START:
            arguments += _destination(settlement, receipt, keys, visibility_timeout)
    return Plan(arguments, done + [settlement for settlement, _ in paired])


def _only_done(settlement: Settlement) -> bool:
    """Whether it acknowledges, and asks for nothing but results and to be counted in chords. What was started may have
    its START in this batch, which comes first.
    """
    return settlement.verdict is _ACK and not settlement.after_start and not (settlement.begins or settlement.closes)


class _Alike(msgspec.Struct):
    """Settlements that acknowledge and keep one result, and are alike in all but that."""

    #: Before and behind their number.
    head: tuple[str | int, ...]
    terms: tuple[str, ...]
    settlements: list[Settlement]
    #: Key and record of each.
    records: list[str | bytes]
    #: Of members of a chord: the words that they are counted by; and what is added: score and part of each, or only
    #: parts, where these are kept as they come.
    words: list[str]
    parts: list[str | bytes]

    def arguments(self) -> list[str | bytes | int | float]:
        """As the script takes them."""
        return [*self.head, len(self.settlements), *self.terms, *self.records, *self.words, *self.parts]


class _Kept:
    """Settlements that acknowledge and keep one result, as lists of those that are alike."""

    def __init__(self, store: ResultStore | None) -> None:
        self._store = store
        self._lists: list[_Alike] = []
        #: By what they have in common: those that have room.
        self._open: dict[Any, _Alike] = {}

    def take(self, settlement: Settlement) -> bool:
        """Whether it is one of them."""
        store = self._store
        if store is None or len(settlement.results) != 1:
            return False
        result = settlement.results[0]
        alike = self._open.get(result.state) or self._begin(result.state, STORED, store.life(result.state))
        alike.settlements.append(settlement)
        alike.records += (store.prefix + result.task_id, result.payload)
        return True

    def _begin(self, common: Any, name: str, life: int | str, *terms: str) -> _Alike:
        alike = self._open[common] = _Alike((name, life), terms, [], [], [], [])
        self._lists.append(alike)
        return alike

    def arguments(self) -> list[str | bytes | int | float]:
        """The lists, for the script."""
        return [argument for alike in self._lists for argument in alike.arguments()]

    def settlements(self) -> list[Settlement]:
        """What was taken, in the order of the arguments."""
        return [settlement for alike in self._lists for settlement in alike.settlements]


class _Counted(_Kept):
    """Those whose task is a member of a chord besides, as lists of the members of one chord."""

    #: Begins the token of each list.
    _token = ""

    def take(self, settlement: Settlement) -> bool:
        """Whether it is one of them."""
        store = self._store
        if store is None or store.chords is None or len(settlement.results) != 1 or len(settlement.parts) != 1:
            return False
        result, part = settlement.results[0], settlement.parts[0]
        common = part.group_id, result.state
        alike = self._open.get(common)
        if alike is None or len(alike.settlements) == _AT_ONCE:
            self._token = self._token or uuid.uuid4().hex
            token = f"{self._token}.{len(self._lists)}"  # no two lists have the same
            alike = self._begin(common, COUNTED, store.life(result.state), store.chords.key(part.group_id), token)
        score = score_of(part)
        alike.settlements.append(settlement)
        alike.records += (store.prefix + result.task_id, result.payload)
        alike.words.append(f"{part.task_id}:{score}")
        alike.parts += (score, part.payload) if store.chords.ordered else (part.payload,)
        return True


def _consequences(
    results: Sequence[ResultWrite], posting: Posting | None, store: ResultStore | None
) -> list[str | bytes | int | float]:
    pushes, channels = (posting.pushes, posting.channels) if posting else ([], [])
    arguments: list[str | bytes | int | float] = [len(pushes)]
    for name, text in pushes:
        arguments += (name, text)
    arguments.append(len(channels))
    for name, text in channels:
        arguments += (name, text)
    if store is None:
        assert not results, "results are given only to a receiver that shares their store"
    arguments.append(len(results))
    for result in results if store else ():
        assert store is not None
        arguments += (store.prefix + result.task_id, store.life(result.state), result.payload)
    return arguments


def _chord_consequences(settlement: Settlement, chords: ChordStore) -> list[str | bytes | int | float]:
    closes, begins, parts = settlement.closes, settlement.begins, settlement.parts
    if closes is None and not begins and not parts:
        return []
    arguments: list[str | bytes | int | float] = ["chords", 0 if closes is None else 1]
    if closes is not None:
        arguments += (chords.key(closes.part.group_id), closes.token)
    arguments.append(len(begins))
    for start in begins:
        arguments += (chords.key(start.group_id), start.size)
    arguments.append(len(parts))
    for part in parts:
        arguments += chords.part(part, uuid.uuid4().hex)
    return arguments


def _destination(
    settlement: Settlement, receipt: Receipt, keys: Keys, visibility_timeout: float
) -> tuple[str | bytes | int | float, ...]:
    """The arguments that belong to a verdict other than ACK and START."""
    delivery, verdict = settlement.delivery, settlement.verdict
    if verdict is Verdict.DELAY:
        return (DELAYED + receipt.tag, repr((settlement.until or 0.0) - visibility_timeout))
    if verdict is Verdict.DEAD:
        return (keys.dead(delivery.queue), dead.write(receipt.text, settlement.reason), dead.KEPT)
    name = keys.lane(delivery.queue, keys.step(delivery.envelope.properties.get("priority")))
    return (name, envelope.marked(receipt.text, failed=verdict is Verdict.LOST))
