"""Groups: calls that run beside each other (CANVAS-036..045).

A group's members have its id, and positions in the order in which they are written. Members of a group inside a group
belong to the outer one; so do those of a group that is the last step of a member, which is how a chord counts them.

Members may come from a generator. It is drawn while they are sent and nothing is kept but their results, so it gives
them once; asking such a group for its members before it was sent (`tasks`, `len`, `freeze`, `|` does not) keeps them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from celery import _state
from celery.canvas.algebra import (
    CHAIN,
    GROUP,
    TASK,
    completions,
    give,
    is_nothing,
    kind_of,
    laid_out,
    size_known,
    unrolled,
)
from celery.canvas.composed import Composed, as_signature
from celery.canvas.nesting import limits_depth
from celery.canvas.sending import send_members
from celery.canvas.signature import Signature, as_list
from celery.utils.functional import is_list
from celery.utils.imports import symbol_by_name
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from celery import result
    from celery.app.base import Celery

R = TypeVar("R")
Sig = Signature[Any]


@Signature.register_type()
class group(Composed[list[R]]):  # noqa: N801 - the documented name
    """Calls that run beside each other; the result is a GroupResult.

    Args:
        tasks: signatures, or one list, generator or group of them.
        options: of `apply_async`, for all members.
    """

    __module__ = "celery.canvas"

    @overload
    def __init__(self, *tasks: Signature[R], **options: Any) -> None: ...
    @overload
    def __init__(self, *tasks: Iterable[Signature[R]], **options: Any) -> None: ...
    @overload
    def __init__(self: group[Any], *tasks: Any, **options: Any) -> None: ...

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.pop("app", None)
        members: Any = members_from(tasks[0] if len(tasks) == 1 else tasks, app)
        super().__init__("celery.group", (), {"tasks": members}, subtask_type="group", app=app, **options)

    @property
    def app(self) -> Celery:
        """Its application, or that of its first member: in a thread the current application may be another."""
        members = self.tasks
        if self._app is None and isinstance(members, Drawn) and (first := members.first()) is not None:
            return first.app
        return super().app

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True  # a group without members is a group

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send all members, with these arguments before their own."""
        return self.apply_async(partial_args, **options)

    if TYPE_CHECKING:

        def delay(self, *partial_args: Any, **partial_kwargs: Any) -> result.GroupResult[R]: ...  # type: ignore[override]  # a GroupResult is no AsyncResult

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
        """Fix the ids of all members; a GroupResult.

        Args:
            _id: id of the group, when it has none yet.
            group_id: the outer group that its members belong to.
            chord: body of the chord that counts them; kept once, in the options of the group.
            root_id: the task that began the workflow.
            parent_id: the task that sends it.
            group_index: position of its first member in the outer group.
        """
        options = self.options
        gid = options.get("task_id")
        if gid is None:
            gid = options["task_id"] = _id or uuid()
        place = {"group_id": group_id, "chord": chord, "root_id": root_id, "parent_id": parent_id}
        options.update((name, value) for name, value in place.items() if value is not None)
        if group_index is not None:
            options["group_index"] = group_index
        members = self.kwargs["tasks"] = list(flat(self.tasks, self._app))
        results = []
        position = options.get("group_index") or 0
        for member in members:
            # Their own group they get when they are sent: 5.7 counts a chord by another id if they have one now.
            results.append(member.freeze(None, options.get("group_id"), None, root_id, parent_id, position))
            position += completions(member)
        return self._result(gid, results)

    _freeze = freeze

    def _result(self, gid: str, results: list[Any]) -> Any:
        if len(results) == 1 and hasattr(results[0], "results"):
            return results[0]  # CANVAS-040
        return self.app.GroupResult(gid, results)

    # -- sending

    @limits_depth
    def apply_async(  # type: ignore[override]  # a GroupResult is no AsyncResult
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> result.GroupResult[R]:
        """Send all members; nothing is sent when one of them cannot be (of a generator: nothing more).

        Args:
            args: come before those of the members that are not immutable.
            kwargs: override theirs.
            add_to_parent: inside a task, the GroupResult becomes one of its children.
            producer: as of `Task.apply_async`.
            link: not for groups.
            link_error: not for groups.
            options: of `apply_async`, for all members.

        Raises:
            TypeError: `link` or `link_error` was given (CANVAS-042).
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        options = {**self.options, **{name: value for name, value in options.items() if value is not None}}
        gid = options.pop("task_id", None) or uuid()
        add_to_parent = options.pop("add_to_parent", add_to_parent)
        members = Placed(
            self.kwargs["tasks"], options.pop("group_id", None) or gid, self._app, tuple(args or ()), kwargs
        )
        members.position = options.pop("group_index", None) or 0
        sent = self._result(gid, send_members(app, members, producer=producer, add_to_parent=False, **options))
        frame = _state.worker_frame()
        if add_to_parent and frame is not None and frame.task.trail:
            frame.request.children.append(sent)
        return cast("result.GroupResult[R]", sent)

    async def aapply_async(self, *args: Any, **kwargs: Any) -> Any:
        """`apply_async` for coroutines."""
        import asyncio

        return await asyncio.to_thread(self.apply_async, *args, **kwargs)

    def apply(  # type: ignore[override]  # as apply_async
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> result.GroupResult[R]:
        """Run all members here, one after the other (CANVAS-075)."""
        apply_group = symbol_by_name("celery.canvas.eager:apply_group")
        return cast("result.GroupResult[R]", apply_group(self, args, kwargs, options))

    # -- links and options of members

    def set_immutable(self, immutable: bool) -> None:
        """Say of every member whether it takes further arguments."""
        for member in self._kept():
            member.set_immutable(immutable)

    def link(self, sig: Any) -> Any:
        """Link the first member to a copy that takes no arguments (CANVAS-043). To link all of them, use a chord."""
        members = self._kept()
        if not members:
            raise ValueError("A group without members cannot be linked to anything.")
        return members[0].link(sig.clone().set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Link every member to a copy of an error callback (CANVAS-043); these copies."""
        return tuple(member.link_error(errback.clone()) for member in self._kept() for errback in as_list(sig))

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group[R]:
        """Have members begin later and later: countdowns of `start`, `start + step`, ... seconds; anew at `stop`."""
        countdown = start
        for member in self._kept():
            member.set(countdown=countdown)
            countdown += step
            if stop is not None and countdown >= stop:
                countdown = start
        return self

    def _kept(self) -> Sequence[Sig]:
        if not size_known(self.tasks):
            self.kwargs["tasks"] = list(self.tasks)
        return cast("Sequence[Sig]", self.tasks)

    # -- other

    def __repr__(self) -> str:
        return cast(str, symbol_by_name("celery.canvas.shown:show_group")(self))


class Drawn:
    """Members that come from a generator: drawn once, or kept when somebody asks for them."""

    def __init__(self, source: Iterable[Any], app: Any) -> None:
        self._source: Iterator[Any] | None = iter(source)
        self._app = app
        self._items: list[Sig] | None = None

    def draw(self) -> Iterator[Sig]:
        """The members, which are then forgotten.

        Raises:
            RuntimeError: they were drawn before.
        """
        if self._items is not None:
            return iter(self._items)
        source, self._source = self._source, None
        if source is None:
            raise RuntimeError(
                "The members of this group came from a generator, and have been sent. To send them again, make the "
                "group again, or of a list."
            )
        return (as_signature(member, self._app) for member in source)

    def first(self) -> Sig | None:
        """The first member, which stays to be drawn; None: there is none, or all were sent."""
        if self._items is None and self._source is not None:
            first = next(self._source, None)
            self._source = itertools.chain(() if first is None else (first,), self._source)
            return None if first is None else as_signature(first, self._app)
        return self._items[0] if self._items else None

    def each(self, change: Callable[[Sig], Sig]) -> Drawn:
        """These members, each changed when it is drawn."""
        return Drawn(map(change, self.draw()), self._app)

    def _kept(self) -> list[Sig]:
        if self._items is None:
            self._items = list(self.draw())
        return self._items

    def __iter__(self) -> Iterator[Sig]:
        return iter(self._kept())

    def __len__(self) -> int:
        return len(self._kept())

    def __getitem__(self, index: Any) -> Any:
        return self._kept()[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, Drawn) else other)

    __hash__ = None  # type: ignore[assignment]  # as any sequence that can change

    def __json__(self) -> list[Sig]:
        return self._kept()

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self._kept(),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class Placed:
    """Members on their way: each gets its id and its place when it is drawn, and what it completes is counted."""

    def __init__(self, members: Any, group_id: str, app: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> None:
        self._members = members
        self._group_id = group_id
        self._app = app
        self._given = (args, kwargs) if args or kwargs else None
        self.position = 0
        #: How many parts the members drawn so far make (CANVAS-053).
        self.size = 0
        #: Of the members drawn so far; of a task its id, until it is sent.
        self.results: list[Any] = []

    @property
    def lazy(self) -> bool:
        """Whether it is not known yet how many there are."""
        return isinstance(self._members, Drawn) and self._members._items is None

    def __iter__(self) -> Iterator[Sig]:
        members = self._members.draw() if isinstance(self._members, Drawn) else self._members
        for member in flat(members, self._app):
            placed = member.clone()
            if kind_of(placed) == TASK:
                options, parts = placed.options, 1
                if options.get("task_id") is None:
                    options["task_id"] = uuid()
                self.results.append(options["task_id"])
                options.setdefault("group_id", self._group_id)
                options["group_index"] = self.position
            else:
                parts = completions(placed)
                self.results.append(placed.freeze(None, self._group_id, None, None, None, self.position))
            if self._given is not None:
                give(placed, *self._given)
            self.position += parts
            self.size += parts
            yield placed

    def expected(self, app: Celery) -> list[Any]:
        """Results of the members drawn so far, sent or not."""
        return [app.AsyncResult(result) if isinstance(result, str) else result for result in self.results]


def members_from(given: Any, app: Any) -> Any:
    """The members of a group, in every form they may be given in (CANVAS-036)."""
    if isinstance(given, Mapping):
        return given["kwargs"]["tasks"] if kind_of(given) == GROUP else [as_signature(given, app)]
    if isinstance(given, Drawn):
        return given
    if not is_list(given) or hasattr(given, "apply_async"):  # a promise of a task looks like anything
        return [as_signature(given, app)]
    if not hasattr(given, "__len__"):
        return Drawn(given, app)
    members = [as_signature(member, app) for member in given]
    return tuple(members) if isinstance(given, tuple) else members


def flat(members: Iterable[Sig], app: Any) -> Iterator[Sig]:
    """Members in order, with those of groups inside in their place (CANVAS-039); what is empty is left out."""
    for member in members:
        sig = member if isinstance(member, Signature) else as_signature(member, app)
        if kind_of(sig) == CHAIN:
            steps = laid_out(sig.kwargs["tasks"], app=app)
            if len(steps) == 1 and kind_of(steps[0]) == GROUP:
                sig = unrolled(steps[0])
        if is_nothing(sig):
            continue
        if kind_of(sig) == GROUP:
            yield from flat(_with_options(sig), app)
        else:
            yield sig


def _with_options(inner: Sig) -> Iterator[Sig]:
    """Members of a group inside a group, with its options."""
    options = {name: value for name, value in inner.options.items() if name not in _OWN}
    for member in inner["kwargs"]["tasks"]:
        yield member.clone(**{**options, **member.options}) if options else member


#: Options that are the group's and not its members'.
_OWN = frozenset(("task_id", "group_id", "group_index", "chord", "root_id", "parent_id", "reply_to"))
