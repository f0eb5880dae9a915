"""A producer that sends a header in many steps keeps the store told (rule 6 of `celery.backends.chords`).

While it lives a thread says so again in good time, however long the next member takes to come. When it has died, or has
given up half way with an error, workers fail the chord. One that was stopped for longer than its word is good finds its
chord failed, and sends no more.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec

from celery import exceptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from celery.backends.chords import ChordBook

#: Seconds that a producer's word is good for; it is renewed three times within them.
LEASE = 18.0


class Sending:
    """The sending of one header, as a context. It costs nothing until `start`.

    Args:
        book: counts the chord.
        group_id: of the header.
        body: signature.
    """

    def __init__(self, book: ChordBook, group_id: str, body: Mapping[str, Any]) -> None:
        self._book = book
        self._group_id = group_id
        self._body = body
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """What follows takes more than one step; to be said again before the last one.

        Raises:
            ChordError: workers have failed the chord in the meantime.
            OperationalError: the store cannot be reached.
        """
        known = self._say(LEASE)
        if self._thread is None:
            # One of this id may have been over before we began.
            self._thread = threading.Thread(target=self._renew, name="celery-header", daemon=True)
            self._thread.start()
        elif not known:
            raise exceptions.ChordError(f"Chord {self._group_id} was given up: nothing was heard of its sender")

    def _say(self, seconds: float) -> bool:
        # Arguments of kinds that JSON does not know are not needed to fail a body.
        return self._book.open(self._group_id, msgspec.json.encode(self._body, enc_hook=repr), seconds)

    def _renew(self) -> None:
        while not self._over.wait(LEASE / 3):
            with contextlib.suppress(exceptions.OperationalError):  # the next try may find the store again
                self._say(LEASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        if error is None:
            self._book.sent(self._group_id)
        else:
            with contextlib.suppress(exceptions.OperationalError):  # it ends by itself, only later
                self._say(0.0)
