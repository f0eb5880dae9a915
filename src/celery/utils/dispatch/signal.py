"""Signals: places in a program where others may hook in (SIG-001 to SIG-003).

Vocabulary and rules:

* A **receiver** is a callable that takes ``**kwargs``. It is held weakly unless asked otherwise, so that connecting a
  method does not keep its object alive.
* A **sender** is who a receiver listens to: compared by identity, strings (task and node names) by value; None means
  everyone. A task not made yet (a promise) becomes the sender when it is made.
* A **connection** is identified by the receiver (or ``dispatch_uid``) and the sender; the same one is kept once.
* **Sending** calls the receivers in the order of connection. One that raises is logged and its exception is its
  response; the others are called all the same.

The list of connections is replaced, never changed, so sending takes no lock. A receiver's death only raises a flag,
because the collector may report it in the middle of anything; the next send or connect clears up.
"""
from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, overload

from celery.local import PromiseProxy, Proxy
from celery.utils.functional import fun_accepts_kwargs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ("Signal",)

F = TypeVar("F", bound="Callable[..., Any]")

#: Seconds between the attempts of a receiver connected with ``retry``: doubled from the first to the last.
_RETRY_FIRST, _RETRY_LAST = 0.2, 30.0


def _identity(obj: Any) -> Any:
    if isinstance(obj, Proxy):
        obj = obj._get_current_object()
    if obj is None or isinstance(obj, str | bytes):
        return obj
    function = getattr(obj, "__func__", None)
    return id(obj) if function is None else (id(obj.__self__), id(function))


def _log_failure(text: str, *args: Any) -> None:
    import logging  # signals are part of `import celery`, a failing receiver is not

    logging.getLogger(__name__).error(text, *args, exc_info=True)  # noqa: LOG014 - called from handlers


class _Persistent:
    """A receiver that is called until it succeeds."""

    def __init__(self, receiver: Callable[..., Any]) -> None:
        self.receiver = receiver

    def __call__(self, **named: Any) -> Any:
        delay = _RETRY_FIRST
        while True:
            try:
                return self.receiver(**named)
            except Exception:  # noqa: BLE001 - any failure is to be tried again
                _log_failure("Signal receiver %r raised; it is called again in %.1f s", self.receiver, delay)
            time.sleep(delay)
            delay = min(delay * 2, _RETRY_LAST)


class Signal:
    """A place to hook in.

    Args:
        providing_args: Names of the arguments that receivers get, for documentation.
        use_caching: Accepted for compatibility; sending needs no cache.
        name: What to show in logs.
    """

    #: Connections as ``((receiver identity, sender identity), reference or callable)``; empty: sending does nothing.
    receivers: list[tuple[tuple[Any, Any], Any]]

    def __init__(
        self,
        providing_args: Iterable[str] | None = None,
        use_caching: bool = False,  # noqa: ARG002 - part of the documented signature
        name: str | None = None,
    ) -> None:
        self.name = name
        self.providing_args = set(providing_args or ())
        self.receivers = []
        self._lock = threading.Lock()
        self._has_dead = False

    @overload
    def connect(
        self, receiver: F, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> F: ...

    @overload
    def connect(
        self, receiver: None = None, sender: Any = None, weak: bool = True, dispatch_uid: Any = None,
        retry: bool = False,
    ) -> Callable[[F], F]: ...  # fmt: skip

    def connect(
        self, receiver: F | None = None, sender: Any = None, weak: bool = True, dispatch_uid: Any = None,
        retry: bool = False,
    ) -> F | Callable[[F], F]:  # fmt: skip
        """Call ``receiver`` whenever the signal is sent; usable as a decorator, with or without arguments.

        Args:
            receiver: Callable taking ``**kwargs``; left out, a decorator is returned.
            sender: Only listen to this sender.
            weak: Forget the receiver when nothing else refers to it.
            dispatch_uid: Identity of the connection instead of the receiver's own.
            retry: Call a failing receiver again, with growing pauses, until it succeeds; implies a strong reference.

        Returns:
            The receiver.

        Raises:
            ValueError: The receiver does not take ``**kwargs``.
        """

        def decorate(fun: F) -> F:
            if isinstance(sender, PromiseProxy) and not sender.__evaluated__():
                sender.__then__(self._connect, fun, sender, weak, dispatch_uid, retry)
            else:
                self._connect(fun, sender, weak, dispatch_uid, retry)
            return fun

        return decorate if receiver is None else decorate(receiver)

    def _connect(self, receiver: Callable[..., Any], sender: Any, weak: bool, dispatch_uid: Any, retry: bool) -> None:
        if not fun_accepts_kwargs(receiver):
            raise ValueError(f"Signal receiver {receiver!r} must accept keyword arguments (**kwargs).")
        key = self._key(receiver, sender, dispatch_uid)
        held: Any
        if retry:
            held = _Persistent(receiver)
        elif weak:
            make_ref = weakref.WeakMethod if hasattr(receiver, "__func__") else weakref.ref
            held = make_ref(receiver, self._note_death)
        else:
            held = receiver
        with self._lock:
            self._bury()
            if all(known != key for known, _ in self.receivers):
                self.receivers = [*self.receivers, (key, held)]

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool | None = None,  # noqa: ARG002 - part of the documented signature
        dispatch_uid: Any = None,
    ) -> bool:
        """Undo `connect` with the same receiver (or ``dispatch_uid``) and sender; tell whether there was one."""
        key = self._key(receiver, sender, dispatch_uid)
        with self._lock:
            kept = [entry for entry in self.receivers if entry[0] != key]
            found = len(kept) < len(self.receivers)
            self.receivers = kept
        return found

    def has_listeners(self, sender: Any = None) -> bool:
        """Tell whether sending from ``sender`` would call anyone."""
        return bool(self.receivers) and bool(self._live(sender))

    def send(self, sender: Any, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call the receivers connected to ``sender`` with ``signal``, ``sender`` and the arguments given.

        Returns:
            Pairs of receiver and response; the response of a receiver that raised is the exception (and is logged).
        """
        if not self.receivers:
            return []
        responses = []
        for receiver in self._live(sender):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as exc:  # noqa: BLE001 - a receiver must not break the sender
                _log_failure("Signal receiver %r of %s raised: %r", receiver, self.name, exc)
                response = exc
            responses.append((receiver, response))
        return responses

    send_robust = send

    def _live(self, sender: Any) -> list[Callable[..., Any]]:
        if self._has_dead:
            with self._lock:
                self._bury()
        wanted = _identity(sender)
        live = []
        for (_, listens_to), held in self.receivers:
            if listens_to is None or listens_to == wanted:
                receiver = held() if isinstance(held, weakref.ref) else held
                if receiver is not None:
                    live.append(receiver)
        return live

    def _note_death(self, _ref: Any) -> None:
        self._has_dead = True

    def _bury(self) -> None:
        if self._has_dead:
            self._has_dead = False
            self.receivers = [
                entry for entry in self.receivers if not isinstance(entry[1], weakref.ref) or entry[1]() is not None
            ]

    @staticmethod
    def _key(receiver: Any, sender: Any, dispatch_uid: Any) -> tuple[Any, Any]:
        return (_identity(receiver) if dispatch_uid is None else dispatch_uid, _identity(sender))

    def __repr__(self) -> str:
        return f"<Signal: {self.name} providing_args={sorted(self.providing_args)}>"
