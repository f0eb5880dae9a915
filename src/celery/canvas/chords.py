"""Chords: a group, the *header*, and a *body* that is called once with the list of its values (CANVAS-046..063).

Who counts is the result store (`celery.backends.chords`); every message of a header brings the body along, so that the
worker whose part is the last one can send it. The number of parts is written down just before the last message of the
header leaves: without it nobody can think the header complete.

What is set on a chord, or given to `apply_async`, is for both its header and its body, except what says when
(countdown, eta), which is for the header, and what comes after (link, link_error, chain) or says where the chord is in
something greater (group, an outer chord), which is for the body.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from celery import _state, exceptions
from celery.app.outcome import Outbox
from celery.backends.chord_producers import Sending
from celery.backends.chords import start_of
from celery.canvas.algebra import CHAIN, GROUP, after_group, completions, ends_in_group, header_of, kind_of, size_known
from celery.canvas.composed import Composed, as_signature, clone, eldest
from celery.canvas.groups import Placed, group, members_from
from celery.canvas.nesting import limits_depth
from celery.canvas.sending import send_members
from celery.canvas.signature import Signature, as_list
from celery.utils.imports import symbol_by_name
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from celery import result
    from celery.app.base import Celery

R = TypeVar("R")
Sig = Signature[Any]

#: Options that are the body's alone, and the header's alone; all others are for both.
_OF_BODY = frozenset(("task_id", "group_id", "group_index", "chord", "chain", "link", "link_error"))
_OF_HEADER = frozenset(("countdown", "eta", "producer", "publisher", "connection", "router", "add_to_parent"))
#: Messages that leave together (`celery.app.bulk`), at most.
_ONE_STEP = 500
#: How often chord_unlock looks, where the store does not count.
_OF_POLLING = frozenset(("interval", "max_retries"))


@Signature.register_type(name="chord")
class _chord(Composed[R]):  # noqa: N801 - the documented name
    """A header and a body: `chord(header, body)()`, or `chord(header)(body)`.

    Args:
        header: signatures: a list, a generator, a group, the steps of a chain, or a single one.
        body: signature of what is called with the list of their values.
        options: of `apply_async`.
    """

    __module__ = "celery.canvas"

    @overload
    def __init__(self, header: Any, body: Signature[R], *args: Any, **options: Any) -> None: ...
    @overload
    def __init__(self: _chord[Any], header: Any, body: Any = None, *args: Any, **options: Any) -> None: ...

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: str = "celery.chord",
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        app: Celery | None = None,
        **options: Any,
    ) -> None:
        fields = {"kwargs": dict(kwargs or {}), "header": header_from(header, app)}
        fields["body"] = None if body is None else as_signature(body, app)
        super().__init__(task, args, fields, subtask_type="chord", app=app, **options)

    def _read_members(self) -> None:
        fields, header, body = self.kwargs, self.kwargs.get("header", []), self.kwargs.get("body")
        fields.setdefault("kwargs", {})
        if isinstance(header, Mapping):
            header = as_signature(header, self._app)
        elif size_known(header):
            header = type(header)(map(as_signature, header, repeat(self._app)))
        fields["header"] = header
        fields["body"] = None if body is None else as_signature(body, self._app)

    def _clone_members(self) -> None:
        fields = self.kwargs
        header, body = fields["header"], fields["body"]
        if isinstance(header, Signature):
            fields["header"] = header.clone()
        elif size_known(header):
            fields["header"] = type(header)(map(clone, header))
        fields["body"] = body and body.clone()

    @property
    def body(self) -> Any:
        """What is called with the values."""
        return self.kwargs["body"]

    @body.setter
    def body(self, value: Any) -> None:
        self.kwargs["body"] = value

    @property
    def app(self) -> Celery:
        """Its application: its own, or that of its first member, or of its body."""
        members = self.tasks
        if self._app is None and self.body is not None and not (size_known(members) and members):
            return cast("Celery", self.body.app)
        return super().app

    def __length_hint__(self) -> int:
        return sum(map(completions, self.tasks))

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body if it is given."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    # -- freezing

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Sig | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> Any:
        """Fix the ids of all members and of the body, which gets the place; the body's result.

        Members do not get the body, so that a chord that waits for its turn does not carry a copy for each
        (CANVAS-080): they get it, and their group, when they are sent.
        """
        header, body = self._header(), self._body()
        header_result = header.freeze(root_id=root_id, parent_id=parent_id)
        frozen = body.freeze(_id or self.options.get("task_id"), group_id, chord, root_id, None, group_index)
        self.options["task_id"] = header.id  # where 5.7 looks for it when it runs a chain
        eldest(frozen).parent = header_result
        return frozen

    _freeze = freeze

    def _header(self) -> group[Any]:
        """The header as a group, which it is from now on."""
        header = self.kwargs["header"]
        if not isinstance(header, group):
            header = self.kwargs["header"] = group(header, app=self._app)
        return header

    def _body(self) -> Any:
        body = self.body
        if body is None:
            raise exceptions.ImproperlyConfigured(
                f"The chord {self!r} has no body: give it one with chord(header, body), chord(header)(body) or `|`."
            )
        return body

    # -- sending

    @limits_depth
    def apply_async(  # type: ignore[override]  # every option by name
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> result.AsyncResult[R]:
        """Send the header; the result of the body (a GroupResult if that is a group), whose parent is the header's.

        Args:
            args: come before those of the header's members that are not immutable.
            kwargs: override theirs; `body` is the body to use.
            task_id: id of the body.
            options: of `apply_async`; see the module.

        Raises:
            NotImplementedError: the result backend cannot do chords.
        """
        kwargs = dict(kwargs or {})
        given = kwargs.pop("body", None)
        chord = self.clone()
        if given is not None:
            chord.body = as_signature(given, self._app).clone()
        options = {**self.options, **{name: value for name, value in options.items() if value is not None}}
        if task_id is not None:
            options["task_id"] = task_id
        chord._body()
        if chord.app.conf.task_always_eager:
            return chord.apply(args, kwargs, **options)
        sent = chord._send(tuple(args or ()), {**self.kwargs["kwargs"], **kwargs}, options)
        return cast("result.AsyncResult[R]", sent)

    async def aapply_async(self, *args: Any, **kwargs: Any) -> Any:
        """`apply_async` for coroutines."""
        import asyncio

        return await asyncio.to_thread(self.apply_async, *args, **kwargs)

    def run(self, header: Any, body: Any, partial_args: Any = (), app: Any = None, **options: Any) -> Any:
        """Send this header and this body."""
        chord: _chord[Any] = _chord(header, body, app=app or self._app)
        return chord._send(tuple(partial_args or ()), options.pop("kwargs", None) or {}, {**self.options, **options})

    def _send(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]) -> Any:
        """Send a copy that is ours to change."""
        app = self.app
        app.backend.ensure_chords_allowed()
        polling = {name: options.pop(name) for name in _OF_POLLING & options.keys()}
        self._settle_body(options)
        header, body = self._header(), self.body
        gid = header.options.get("task_id")
        if gid is None:
            gid = header.options["task_id"] = uuid()
        result = body.freeze(
            options.get("task_id"), options.get("group_id") or gid, options.get("chord"), options.get("root_id"),
            None, options.get("group_index"),
        )  # fmt: skip
        of_members = {**header.options, **{name: value for name, value in options.items() if name not in _OF_BODY}}
        of_members.pop("task_id")
        producer = of_members.pop("producer", None)
        members = Placed(header.kwargs["tasks"], gid, self._app, args, kwargs)
        begin = _Beginning(app, gid, members, body, producer, polling)
        of_members |= {"chord": body, "add_to_parent": False}
        with begin.watched():
            send_members(app, members, before_last=begin, producer=producer, **of_members)
        result.parent = app.GroupResult(gid, members.results)
        if not members.size:  # nothing to wait for: the body runs at once (CANVAS-048)
            now = {name: options[name] for name in ("root_id", "parent_id", *_OF_HEADER) if name in options}
            body.apply_async(([],), **now)
        else:
            self._remember(result, options)
        return result

    def _settle_body(self, options: dict[str, Any]) -> None:
        """Give the body what is the body's."""
        body = self.body
        shared = {name: value for name, value in options.items() if name not in _OF_BODY | _OF_HEADER}
        shared.pop("root_id", None)
        shared.pop("parent_id", None)
        body.options.update(shared)
        for callback in as_list(options.get("link")):
            body.link(callback)
        for errback in as_list(options.get("link_error")):
            body.link_error(errback)
        rest = options.get("chain")
        if rest:
            self.body = followed(body, rest)

    @staticmethod
    def _remember(result: Any, options: Mapping[str, Any]) -> None:
        frame = _state.worker_frame()
        if options.get("add_to_parent", True) and frame is not None and frame.task.trail:
            frame.request.children.append(result)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> result.EagerResult[R]:
        """Run the header, then the body, here (CANVAS-075)."""
        apply_chord = symbol_by_name("celery.canvas.eager:apply_chord")
        return cast("result.EagerResult[R]", apply_chord(self, args, kwargs, propagate, body, options))

    # -- links

    def link(self, callback: Any) -> Any:
        """Send `callback` after the body (CANVAS-054); returns it."""
        return self._body().link(callback)

    def link_error(self, errback: Any) -> Any:
        """Tell `errback` when the body fails, or cannot run; returns it.

        With the setting `task_allow_error_cb_on_chord_header` every member of the header is linked to a copy of it too.
        """
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for member in self._header()._kept():
                for one in as_list(errback):
                    member.link_error(one.clone() if isinstance(one, Signature) else one)
        else:
            warnings.warn(
                "task_allow_error_cb_on_chord_header is off: error callbacks of a chord are told of its body only.",
                exceptions.CPendingDeprecationWarning,
                stacklevel=2,
            )
        self._body().link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Say of every member of the header whether it takes further arguments."""
        for member in self._header()._kept():
            member.set_immutable(immutable)

    # -- other

    def __repr__(self) -> str:
        return cast(str, symbol_by_name("celery.canvas.shown:show_chord")(self.tasks, self.body))


chord = _chord


class _Beginning:
    """Called when the size of a header is known: the chord begins to count."""

    def __init__(
        self, app: Celery, group_id: str, members: Placed, body: Sig, producer: Any, polling: dict[str, Any]
    ) -> None:
        self._app = app
        self._group_id = group_id
        self._members = members
        self._body = body
        self._producer = producer
        self._polling = polling
        book = app.backend.chords
        #: What counts it; settled before anything is sent.
        self._book = book if book is not None and book.counts(body) else None
        #: Members leave before all are known, or one by one.
        self._in_steps = members.lazy or producer is not None
        self._sending: Sending | None = None

    def watched(self) -> AbstractContextManager[Any]:
        """While the header is sent: workers fail the chord when its sender dies, and leaves others to wait."""
        book = self._book
        if book is None or isinstance(self._producer, Outbox):
            return nullcontext()
        self._sending = Sending(book, self._group_id, self._body)
        if self._in_steps:
            self._sending.start()
        return self._sending

    def __call__(self) -> None:
        app, members = self._app, self._members
        backend = app.backend
        if not members.size:
            return
        if any(hasattr(result, "results") for result in members.results):
            # The body gets the values in the shape of the header.
            app.GroupResult(self._group_id, members.expected(app)).save(backend)
        outbox = self._producer if isinstance(self._producer, Outbox) else None
        if self._book is None:
            polling = self._polling if outbox is None else {**self._polling, "producer": outbox}
            backend.apply_chord((self._group_id, members.expected(app)), self._body, **polling)
            return
        start = start_of(self._book, self._group_id, members.size, members.results, self._body)
        if outbox is not None:
            outbox.begin(start)
        else:
            if self._sending is not None and (self._in_steps or members.size > _ONE_STEP):
                self._sending.start()
            self._book.begin([start])


def header_from(given: Any, app: Any) -> Any:
    """The header of a chord, in every form it may be given in (CANVAS-047)."""
    if isinstance(given, Mapping) and kind_of(given) in (CHAIN, GROUP):
        return header_of(as_signature(given, app))
    return members_from(given, app)


def followed(body: Sig, rest: Iterable[Any]) -> Sig:
    """A body and what comes after it, which is in reverse order."""
    steps = [as_signature(step, body._app) for step in rest]
    kind = kind_of(body)
    if kind == CHAIN:
        body.kwargs["tasks"] = [*body.kwargs["tasks"], *reversed(steps)]
        return body
    if ends_in_group(body):
        body = after_group(body, steps.pop())
    if steps:
        body.options["chain"] = [*steps, *as_list(body.options.get("chain"))]
    return body
