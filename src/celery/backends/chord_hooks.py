"""The chord hooks of a backend: what third parties override, and what they may call (CANVAS-051, 057, 058; API-064).

Three ways to know that all members of a header have finished:

    a book             the store counts parts (`Backend.chords`, `celery.backends.chords`); workers use it themselves,
                       and the hooks do the same for others who call them
    a counter          a key/value store adds one for each member (`implements_incr`), and whoever makes it the size of
                       the header, which was saved, reads the records (`CountingHooks`)
    a look             anywhere else a task looks at the records from time to time (`celery.chord_unlock`), routed as
                       the body is, so that a worker that may send it can also run it

Who finds the header complete sends the body, or fails it, by `celery.app.chords`.
"""

from __future__ import annotations

import sys
import uuid
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.chords import Member, body_as_json, leaves, start_of
from celery.brokers.base import ChordPart, ChordStart
from celery.exceptions import ChordError
from celery.utils.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from celery.app.base import Celery
    from celery.backends.asynchronous import Meta
    from celery.backends.chords import ChordBook

logger = get_logger(__name__)

#: Options of a body that say where it goes.
_ADDRESS = ("queue", "exchange", "routing_key", "exchange_type", "priority", "headers")
#: Of a registered body, where its signature does not say.
_OF_TASK = ("queue", "priority")
#: Seconds that whoever counted the last member has to finish the chord.
_FINISHING = 30.0
#: Records looked up at once while looking whether all are there.
_LOOK = 500


class ChordHooks:
    """Chords on a store that does not count: the reference of the hooks."""

    app: Celery
    serializer: str
    encode: Callable[[Any], Any]
    encode_result: Callable[[Any, str], Any]
    get_many_meta: Callable[[Sequence[str]], list[Meta]]
    wait_for_many: Callable[..., Iterator[Meta]]

    @property
    def chords(self) -> ChordBook | None:
        """What counts chords in this store; None: the hooks do."""
        return None

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError where chords cannot work. Called before anything of a chord is sent."""

    def apply_chord(self, header_result_args: tuple[str, Sequence[Any]], body: Any, **kwargs: Any) -> None:
        """A chord begins: what has to exist before its last member may finish is made here.

        Args:
            header_result_args: id and results of the header's group.
            body: signature.
            kwargs: of `fallback_chord_unlock`.
        """
        self.ensure_chords_allowed()
        group_id, results = header_result_args
        book = self.chords
        if book is None or not book.counts(body):
            self.fallback_chord_unlock(self.app.GroupResult(group_id, results), body, **kwargs)
        else:
            book.begin([start_of(book, group_id, _size(results), results, body)])

    def fallback_chord_unlock(
        self, header_result: Any, body: Any, countdown: float = 1, producer: Any = None, **kwargs: Any
    ) -> None:
        """Have a task look at the header's results until all are there, and finish the chord then.

        Args:
            header_result: the header's group.
            body: signature.
            countdown: seconds until the first look.
            producer: sends it; None: the application.
            kwargs: `interval`, seconds between two looks (None: `result_chord_retry_interval`), and `max_retries`
                (None: no end).
        """
        options = {name: value for name in _ADDRESS if (value := body.options.get(name)) is not None}
        known = self.app.tasks.get(body.task)
        for name in _OF_TASK if known is not None else ():
            if (value := getattr(known, name, None)) is not None:
                options.setdefault(name, value)
        fields = {
            "interval": kwargs.get("interval"),
            "max_retries": kwargs.get("max_retries"),
            "result": [result.as_tuple() for result in header_result.results],
            "_chord_unlock_exchange_type": options.get("exchange_type", "direct"),
        }
        unlock = self.app.tasks["celery.chord_unlock"]
        unlock.apply_async(
            (header_result.id, body), fields, countdown=countdown, producer=producer, route_name=body.task, **options
        )

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:  # noqa: ARG002 - a hook
        """A member of a header has finished: its result is stored.

        Args:
            request: of the attempt: `id`, `group`, `group_index`, and the body in `chord`.
            state: SUCCESS, FAILURE or REVOKED.
            result: its value or exception.
            kwargs: nothing.
        """
        book, body = self.chords, request.chord
        if book is None or not request.group or not body:
            return
        payload = self.encode([1, request.id, state, self.encode_result(result, state)])
        payload = payload.encode() if isinstance(payload, str) else payload
        part = ChordPart(request.group, request.id, request.group_index, state, payload, body_as_json(body))
        for claim in book.add([part]):
            if claim.token:
                self._chord_app("end")(self.app, claim, body, self._last(request))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """How many members of the header have to finish."""
        if self.chords is not None:
            self.chords.begin([ChordStart(group_id, chord_size)])

    def add_to_chord(self, chord_id: str, result: Any) -> None:  # noqa: ARG002 - in Celery's signature
        """One more member is sent to a header that runs (CANVAS-073)."""
        if self.chords is None:
            raise NotImplementedError(f"{type(self).__name__} does not support add_to_chord: it does not count members")
        self.chords.extend(chord_id)

    def chord_error_from_stack(self, callback: Any, exc: BaseException | None = None) -> None:
        """Fail a chord by its body: its record, its error callbacks, and what would have come after it.

        Args:
            callback: the body.
            exc: why; None: the exception that is being handled.
        """
        error = exc or sys.exception() or ChordError("Unknown error")
        current = self.app.current_task
        last = self._last(None if current is None else current.request)
        self._chord_app("apply")(self.app, self._chord_app("fail")(self.app, callback, error, last))

    # -- for who has found a header complete

    def finish_chord(self, header_result: Any, body: Any, request: Any, outbox: Any = None) -> None:
        """Send the body of a chord with the values of its header, or fail it, now.

        Records that are late are waited for, for `result_chord_join_timeout` seconds.

        Args:
            header_result: the header's group.
            body: signature.
            request: of the task that does it.
            outbox: of its attempt, which takes the body's messages; None: they are sent now.
        """
        try:
            members = self._join(header_result)
        except Exception as exc:
            logger.exception("The results of chord %s cannot be read", header_result.id)
            self.chord_error_from_stack(body, ChordError(f"Join error: {exc!r}"))
            return
        nested = any(hasattr(result, "results") for result in header_result.results)
        shape = header_result if nested else None
        completion = self._chord_app("finish")(self.app, members, shape, body, self._last(request))
        if outbox is not None:
            outbox.begins.extend(completion.begins)
            outbox.messages.extend(completion.follow)
            completion = completion._replace(begins=(), follow=())
        self._chord_app("apply")(self.app, completion)

    def chord_is_over(self, group_id: str) -> bool:  # noqa: ARG002 - who does not count does not know
        """Whether a chord that was begun needs nobody to look at it any more."""
        return False

    def header_is_complete(self, header_result: Any) -> bool:
        """Whether all members have finished, by their records: looks at some, and at more only when these have."""
        ids = list(leaves(header_result.results))
        return all(
            meta["status"] in states.READY_STATES
            for start in range(0, len(ids), _LOOK)
            for meta in self.get_many_meta(ids[start : start + _LOOK])
        )

    def _join(self, header_result: Any) -> list[Member]:
        ids = list(leaves(header_result.results))
        found = {meta["task_id"]: meta for meta in self.get_many_meta(ids) if meta["status"] in states.READY_STATES}
        late = [task_id for task_id in ids if task_id not in found]
        if late:
            for meta in self.wait_for_many(late, timeout=self.app.conf.result_chord_join_timeout):
                found[meta["task_id"]] = meta
        return [Member(task_id, found[task_id]["status"], found[task_id]["result"]) for task_id in ids]

    def _last(self, request: Any) -> Any:
        """Whose name the body is sent in."""
        finisher = self._chord_app("Finisher")
        if request is None:
            return finisher(str(uuid.uuid4()))
        return finisher(request.id, request.root_id, request.reply_to)

    def _chord_app(self, name: str) -> Any:
        return self.app._load(f"celery.app.chords:{name}")


class CountingHooks(ChordHooks):
    """Chords on a key/value store that can add one: `incr`, where `implements_incr` says so."""

    implements_incr: bool
    incr: Callable[[Any], int]
    expire: Callable[[Any, float], Any]
    delete: Callable[[Any], Any]
    expires: float | None
    get_key_for_chord: Callable[[str], Any]
    restore_group: Callable[..., Any]
    save_group: Callable[[str, Any], Any]
    delete_group: Callable[[str], None]

    def apply_chord(self, header_result_args: tuple[str, Sequence[Any]], body: Any, **kwargs: Any) -> None:
        """Save the header, where members are counted."""
        if self.chords is not None or not self.implements_incr:
            super().apply_chord(header_result_args, body, **kwargs)
            return
        self.ensure_chords_allowed()
        self._apply_chord_incr(header_result_args, body, **kwargs)

    def _apply_chord_incr(self, header_result_args: tuple[str, Sequence[Any]], body: Any, **kwargs: Any) -> None:  # noqa: ARG002 - overridden by stores that must create their counter
        group_id, results = header_result_args
        self.save_group(group_id, self.app.GroupResult(group_id, results))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Count a member; the last one finishes the chord."""
        group_id = request.group
        if self.chords is not None or not self.implements_incr:
            super().on_chord_part_return(request, state, result, **kwargs)
            return
        if not group_id or not request.chord:
            return
        body = self.app.signature(request.chord)
        try:
            header_result = self.restore_group(group_id)
        except Exception as exc:
            logger.exception("Chord %s: its header cannot be read", group_id)
            self.chord_error_from_stack(body, ChordError(f"Cannot restore group: {exc!r}"))
            return
        if header_result is None:
            self.chord_error_from_stack(body, ChordError(f"GroupResult {group_id} no longer exists"))
            return
        key = self.get_key_for_chord(group_id)
        count, size = self.incr(key), request.chord.get("chord_size") or _size(header_result.results)
        if count < size:
            if self.expires:
                self.expire(key, self.expires)
        elif count > size:
            # The header is still here: who counted the last one is just finishing the chord, or has died.
            logger.warning("Chord %s: %s finished after all %s members had been counted", group_id, request.id, size)
            self.fallback_chord_unlock(header_result, body, countdown=_FINISHING)
        elif self.header_is_complete(header_result):
            self.finish_chord(header_result, body, request)
        else:
            # One ran twice, and was counted twice.
            self.fallback_chord_unlock(header_result, body)

    def finish_chord(self, header_result: Any, body: Any, request: Any, outbox: Any = None) -> None:
        """As above; where members are counted nothing of the chord is left then."""
        counted = self.chords is None and self.implements_incr
        # Sent now: as soon as the header is forgotten nobody sends it any more.
        super().finish_chord(header_result, body, request, None if counted else outbox)
        if counted:
            self.delete_group(header_result.id)
            self.delete(self.get_key_for_chord(header_result.id))

    def chord_is_over(self, group_id: str) -> bool:
        """Whether its header is forgotten, where members are counted."""
        return self.chords is None and self.implements_incr and self.restore_group(group_id, cache=False) is None


def _size(results: Iterable[Any]) -> int:
    return sum(1 for _ in leaves(results))
