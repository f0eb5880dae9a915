"""How a chord counts its members, once for all stores that can (wire.md 4.5).

A chord's header is a group. Each member that finishes adds its *part*; whoever adds the part that makes them complete
gets the *claim* to send the body, and only the holder of the claim does.

Rules
    1. A part counts once, by task id and position, however often its task ran.
    2. Parts may come before `begin`: a chord is complete when it has begun and as many parts are there as it has
       members, with those that `extend` added.
    3. A claim is a token with an end: it outlives the time that sending takes, and not much more. When its holder died,
       the next one who adds a part (the same part, delivered again) gets a new claim.
    4. Sending the body and `close` are one step where broker and store can do that; elsewhere the holder asks `hold`
       just before, and sends at most twice if it dies between the two.
    5. After `close` nothing is left but a mark, for some minutes, so that a part that comes once more is not counted.
    6. Who sends a header in more than one step says so first (`open`), and again and again until all is sent (`sent`).
       When that word has run out, a worker gets the claim to fail the chord (`abandoned`), unless all its members have
       finished: its producer died, and the members that it did not send would be waited for for ever.

A store that counts gives its backend a `ChordBook` (`Backend.chords`). The verbs block; the worker's main process calls
them on a thread, or does the same inside `Receiver.settle` where it shares the store. Backends without one follow the
documented hooks of `ChordHooks`: by default a task polls the header's results (`celery.chord_unlock`).
"""

from __future__ import annotations

import abc
import datetime
import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import msgspec

from celery import exceptions, states
from celery.brokers.base import ChordClaim, ChordPart, ChordStart
from celery.wire import serializers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from celery.backends.base import Backend

#: Seconds that one try of sending may take, and that all of them are waited for at most.
_ONE_TRY = 5.0
_LONGEST_HOLD = 50
_JSON = frozenset({"application/json"})
#: Parts that are read together. Other threads wait for that: 0.5 ms.
_AT_ONCE = 1000
#: Where `decode` is of backends that do not bring their own.
_OUR_DECODE = "celery.backends.base"


#: Of a retry policy: the pauses between tries.
_PAUSES = (("start", 0.0), ("step", 0.2), ("max", 0.2))


class Member(msgspec.Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True, gc=False):
    """A finished member of a header, as it was counted: a part is its JSON, with the version of the format as the tag.
    The collector does not look at them: they come by the many.
    """

    task_id: str
    state: str
    #: The value; for FAILURE and REVOKED what `Backend.exception_to_python` takes.
    value: Any


_read_all = msgspec.json.Decoder(list[Member]).decode


class ChordBook(abc.ABC):
    """What counts chords in one store. All verbs block, from any thread. All raise OperationalError."""

    #: Its chords begin with the ids of their members, and their bodies (`start_of`).
    keeps_members: ClassVar[bool] = False

    @abc.abstractmethod
    def begin(self, starts: Sequence[ChordStart]) -> None:
        """These have so many members. Beginning again is harmless until the chord is closed."""

    @abc.abstractmethod
    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        """Count parts; the claims that came of it, those held by others included (`ChordClaim.token` is "")."""

    @abc.abstractmethod
    def members(self, group_id: str) -> list[Member]:
        """The parts of a complete chord, in the order of their positions. Raises DecodeError and its kind."""

    @abc.abstractmethod
    def hold(self, claim: ChordClaim) -> bool:
        """Prolong a claim for the time that sending takes; False: it is void, another has taken it."""

    @abc.abstractmethod
    def close(self, claim: ChordClaim) -> None:
        """The body, or the failure, is sent: forget the chord. Nothing happens when the claim is void."""

    @abc.abstractmethod
    def extend(self, group_id: str) -> None:
        """One more member has been sent (`Task.add_to_chord`)."""

    def counts(self, body: Mapping[str, Any]) -> bool:  # noqa: ARG002 - others may look at it
        """Whether a chord with this body that is sent now is counted; else the hooks poll for it."""
        return True

    # Rule 6. As they are here: for a store that ends with its producers.

    def open(self, group_id: str, body: bytes, lease: float) -> bool:  # noqa: ARG002 - nobody can outlive its producer
        """The members are being sent, and will be for `lease` seconds, or I shall say so again.

        Args:
            group_id: of the header.
            body: the signature as JSON.
            lease: seconds.

        Returns:
            False when the chord is closed: it was given up, or is over.
        """
        return True

    def sent(self, group_id: str) -> None:  # noqa: B027 - as above
        """All members have been sent."""

    def abandoned(self) -> list[ChordClaim]:
        """Claims of chords that nobody looks after; each of them is given once, and again when it has ended.

        Their parts have the body. Where one has a task id its chord is complete. Else it is nobody's part, and the
        producer of the chord has died.
        """
        return []

    def disconnect(self) -> None:  # noqa: B027 - as above
        """Give up what is open. The next call opens it anew."""


class Terms(NamedTuple):
    """How long things last, in seconds."""

    #: The bookkeeping of a chord from its last part on; None: for ever (SET-138).
    life: float | None
    #: A claim, while the members are read and the body is made.
    claim: int
    #: A claim that is held: as long as sending may be retried.
    hold: int
    #: The mark of a closed chord.
    mark: int


def terms_of(conf: Any, expires: float | None) -> Terms:
    """The terms by the settings; all workers that may run members of one chord must have the same.

    Args:
        conf: of the application.
        expires: seconds that results are kept, which is what counts without `result_chord_expires`.
    """
    life = conf.result_chord_expires
    if life is None:
        life = expires
    elif isinstance(life, datetime.timedelta):
        life = life.total_seconds()
    claim = max(5, math.ceil(2 * conf.result_chord_join_timeout))
    return Terms(life or None, claim, max(claim, _sending(conf.task_publish_retry_policy)), max(2 * claim, 300))


def _sending(policy: Mapping[str, Any] | None) -> int:
    """Seconds that sending may take by a retry policy: 21 by default (wire.md 4.5, step 4)."""
    policy = policy or {}
    retries = policy.get("max_retries")
    retries = 3 if retries is None else int(retries)
    start, step, most = (float(policy.get(f"interval_{name}", default)) for name, default in _PAUSES)
    pauses = sum(min(start + step * retry, most) for retry in range(min(retries, _LONGEST_HOLD)))
    return min(math.ceil(_ONE_TRY * (retries + 1) + pauses), _LONGEST_HOLD)


def start_of(book: ChordBook, group_id: str, size: int, results: Iterable[Any], body: Mapping[str, Any]) -> ChordStart:
    """The begin of a chord.

    Args:
        book: counts it.
        group_id: of the header.
        size: of the header.
        results: of the header's members.
        body: signature.
    """
    if not book.keeps_members:
        return ChordStart(group_id, size)
    return ChordStart(group_id, size, list(leaves(results)), body_as_json(body))


def body_as_json(body: Mapping[str, Any]) -> bytes | None:
    """A body by which anybody can finish its chord; None where JSON cannot hold it.

    What is written for tasks that travel by pickle may lose its types, too.
    """
    try:
        return serializers.dumps(body, "json")[2]
    except exceptions.EncodeError:
        return None


def body_from_json(body: bytes) -> Any:
    """The other way."""
    return serializers.loads(body, "application/json", "utf-8", _JSON)


def leaves(results: Iterable[Any]) -> Iterator[str]:
    """The ids whose records are the values of a header, in the order of their positions."""
    for result in results:
        if isinstance(result, str):
            yield result
        elif hasattr(result, "results"):
            yield from leaves(result.results)
        else:
            yield result.id


def orphan(group_id: str, body: bytes, token: str) -> ChordClaim:
    """The claim of a chord whose producer has died."""
    return ChordClaim(ChordPart(group_id, "", None, states.FAILURE, b"", body), token)


def read_members(backend: Backend, parts: Iterable[bytes]) -> list[Member]:
    """Counted parts as members.

    Args:
        backend: decodes.
        parts: `[1, task id, state, value]` each, in the order of their positions.

    Raises:
        DecodeError: a part cannot be read.
    """
    members: list[Member] = []
    left = list(parts)
    for start in range(0, len(left), _AT_ONCE):
        some = left[start : start + _AT_ONCE]
        members += _read_together(backend, some) or [Member(*fields) for _, *fields in map(backend.decode, some)]
    return members


def _read_together(backend: Backend, parts: Sequence[bytes]) -> list[Member] | None:
    """The same of parts that are plain JSON, in a fifth of the time; None: each is to be read on its own."""
    kind = backend.content_type, backend.content_encoding, backend.accept
    if backend.decode.__module__ != _OUR_DECODE:
        return None
    try:
        text = b"[" + b", ".join(parts) + b"]"
        if not serializers.is_plain_json(text, *kind):
            return None
        members = _read_all(text)
    except (TypeError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    return members if len(members) == len(parts) else None
