"""A call as a value: a task's name, its arguments and its options (API-074..077, wire.md 1.5).

Vocabulary
    *Partial*: a signature that has only some of the arguments; those given when it is called come first (API-077).
    *Immutable*: it takes no further arguments, results of earlier steps among them; options still merge.
    *Frozen*: its id is fixed, so that results can be spoken of before anything is sent. Every call of a frozen
    signature has that id; each call of another one gets a new id.
    *Links*: signatures sent after success (`link`) or failure (`link_error`), in the options.

It is a dict of exactly the six keys that travel, so every serializer writes it as it is; the task and the application
it belongs to are attributes, which do not travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Never, Self, TypeVar, cast, overload

from celery import _state
from celery.canvas.nesting import NestingError, is_deep
from celery.utils.imports import symbol_by_name
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from celery import result
    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.canvas.composed import Composed
    from celery.canvas.groups import group

__all__ = ("Signature", "maybe_signature", "maybe_subtask", "signature", "subtask")

R = TypeVar("R")
S = TypeVar("S")
SignatureClass = TypeVar("SignatureClass", bound="type[Signature[Any]]")

#: Composed kinds, loaded when the first one is read.
_KINDS = {
    "chain": "celery.canvas.chains:_chain",
    "chord": "celery.canvas.chords:_chord",
    "group": "celery.canvas.groups:group",
}


class Signature(dict[str, Any], Generic[R]):
    """A call that can be passed around, sent, and composed with others.

    Args:
        task: a task, the name of one, or the dict form of a signature.
        args: positional arguments, all or some.
        kwargs: keyword arguments, all or some.
        options: of `apply_async`.
        type: the task, when `task` is only its name.
        subtask_type: the kind of a composed signature (`register_type`).
        immutable: take no further arguments.
        app: the application; default the current one.
        ex: more options.
    """

    __module__ = "celery.canvas"  # where pickles of 5.7 have it, and look for it

    #: Kinds of composed signatures, by `subtask_type`.
    TYPES: ClassVar[dict[str, type[Signature[Any]]]] = {}

    _app: Celery | None = None
    _type: Any = None

    def __init__(
        self,
        task: Any = None,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Celery | None = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if task is None or isinstance(task, str):
            self._type = type
        elif isinstance(task, dict) or not hasattr(task, "name"):  # not `Mapping`: asking for that takes 0.3 us
            super().__init__(task)
            self.setdefault("options", {})
            self.setdefault("subtask_type", None)
            self.setdefault("immutable", False)
            self._type = type
            return
        else:
            self._type, task = task, task.name
        super().__init__(
            task=task,
            args=tuple(args) if args else (),
            kwargs=dict(kwargs) if kwargs else {},
            options={**options, **ex} if options else ex,
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # -- kinds

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[SignatureClass], SignatureClass]:
        """Decorate a kind of signature, to be found again by its `subtask_type` (API-076)."""

        def register(subclass: SignatureClass) -> SignatureClass:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Signature[Any]:
        """The signature of a dict form, of its kind.

        Raises:
            ValueError: nobody registered its `subtask_type`.
        """
        if d.get("subtask_type"):
            known = cls.class_of(d)
            if known is not cls:
                return known.from_dict(d, app=app)
        return cls(d, app=app)

    @classmethod
    def class_of(cls, d: Mapping[str, Any]) -> type[Signature[Any]]:
        """The class of a dict form that has a `subtask_type`."""
        kind = d["subtask_type"]
        known = cls.TYPES.get(kind) or (symbol_by_name(_KINDS[kind]) if kind in _KINDS else None)
        if known is None:
            raise ValueError(
                f"No kind of signature is called {kind!r} (task {d.get('task')!r}): "
                "import the module that registers it with Signature.register_type."
            )
        return cast("type[Signature[Any]]", known)

    # -- what it has

    @property
    def task(self) -> str:
        """Name of the task."""
        return cast(str, self["task"])

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return cast("tuple[Any, ...]", self["args"])

    @args.setter
    def args(self, value: tuple[Any, ...]) -> None:
        self["args"] = value

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return cast("dict[str, Any]", self["kwargs"])

    @kwargs.setter
    def kwargs(self, value: dict[str, Any]) -> None:
        self["kwargs"] = value

    @property
    def options(self) -> dict[str, Any]:
        """Options of `apply_async`."""
        return cast("dict[str, Any]", self["options"])

    @options.setter
    def options(self, value: dict[str, Any]) -> None:
        self["options"] = value

    @property
    def subtask_type(self) -> str | None:
        """Kind of a composed signature."""
        return cast("str | None", self["subtask_type"])

    @property
    def immutable(self) -> bool:
        """Whether it takes no further arguments."""
        return cast(bool, self["immutable"])

    @immutable.setter
    def immutable(self, value: bool) -> None:
        self["immutable"] = value

    @property
    def id(self) -> str | None:
        """The id, once frozen."""
        return self.options.get("task_id")

    @property
    def root_id(self) -> str | None:
        """Id of the task that began the workflow, once set."""
        return self.options.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sends it, once set."""
        return self.options.get("parent_id")

    @property
    def app(self) -> Celery:
        """Its application."""
        return self._app or _state.get_current_app()

    @property
    def type(self) -> Task[..., R]:
        """The task. Raises NotRegistered when the application has none of this name."""
        return self._type if self._type is not None else self.app.tasks[self.task]

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - the documented name
        """Makes a result of the task, or of any, when it is not registered here."""
        known = self._known_type()
        return known.AsyncResult if known is not None else self.app.AsyncResult

    def _known_type(self) -> Any:
        """The task, or None: a name need not be registered where it is sent from (CANVAS-007)."""
        return self._type if self._type is not None else self.app.tasks.get(self.task)

    # -- calling

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> R:
        """Run the body of the task here."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> result.AsyncResult[R]:
        """Send the call, these arguments first."""
        return self.apply_async(partial_args, partial_kwargs)

    async def adelay(self, *partial_args: Any, **partial_kwargs: Any) -> result.AsyncResult[R]:
        """`delay` for coroutines."""
        return await self.aapply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> result.AsyncResult[R]:
        """Send the call.

        Args:
            args: come before the signature's own.
            kwargs: override the signature's own.
            route_name: look routes up by this name instead of the task's.
            options: of `Task.apply_async`, override the signature's own; those that are None count for nothing.
        """
        args, kwargs, options = self._call(args, kwargs, route_name, options)
        known = self._known_type()
        if known is not None:
            return cast("result.AsyncResult[R]", known.apply_async(args, kwargs, **options))
        return self.app.send_task(self.task, args, kwargs, **options)

    #: As it is here, whatever integrations put in its place.
    _plain_apply_async: Any = apply_async

    async def aapply_async(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        route_name: str | None = None,
        **options: Any,
    ) -> result.AsyncResult[R]:
        """`apply_async` for coroutines."""
        args, kwargs, options = self._call(args, kwargs, route_name, options)
        known = self._known_type()
        if known is not None:
            return cast("result.AsyncResult[R]", await known.aapply_async(args, kwargs, **options))
        return await self.app.asend_task(self.task, args, kwargs, **options)

    def _call(
        self, args: Any, kwargs: Any, route_name: str | None, options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        given = {name: value for name, value in options.items() if value is not None}
        if route_name is not None:
            given["route_name"] = route_name
        return self._merge(args, kwargs, given)

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> result.EagerResult[R]:
        """Run the whole attempt here (`Task.apply`)."""
        args, kwargs, options = self._merge(args, kwargs, options)
        return self.type.apply(args, kwargs, **options)

    def __invert__(self) -> R:
        """Send the call and wait for its value."""
        return self.apply_async().get()

    def _merge(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        force: bool = False,
    ) -> tuple[tuple[Any, ...], dict[str, Any], dict[str, Any]]:
        """What a call with these has in all (API-077); an immutable signature takes arguments only by `force`."""
        merged = {**self.options, **(options or {})}
        if options:
            # A workflow puts calls into groups, and stamps them, before they are sent: that stays.
            kept = ("group_id", "stamped_headers", *self.options.get("stamped_headers", ()))
            merged.update((name, self.options[name]) for name in kept if name in self.options)
        if self.immutable and not force:
            return tuple(self.args or ()), dict(self.kwargs or {}), merged
        return (*(args or ()), *(self.args or ())), {**(self.kwargs or {}), **(kwargs or {})}, merged

    # -- copies

    def clone(self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **opts: Any) -> Self:
        """A copy with these arguments and options merged in (CANVAS-006)."""
        if args or kwargs or opts:
            args, kwargs, options = self._merge(args, kwargs, opts)
        else:
            args, kwargs, options = tuple(self.args or ()), dict(self.kwargs or {}), self.options
        fields = {**self, "args": args, "kwargs": kwargs, "options": deepcopy(options) if options else {}}
        copied = cast(Self, self.from_dict(fields, app=self._app))
        copied._type = self._type
        return copied

    partial = clone

    def replace(
        self,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy with these instead of its own; None keeps a part."""
        copied = self.clone()
        if args is not None:
            copied.args = tuple(args)
        if kwargs is not None:
            copied.kwargs = dict(kwargs)
        if options is not None:
            copied.options = dict(options)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.clone()

    def __reduce__(self) -> tuple[Any, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Any]:
        return dict(self)

    # -- changes

    def set(self, immutable: bool | None = None, **options: Any) -> Self:
        """Set options; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Say whether it takes further arguments."""
        self.immutable = immutable

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        chord: Signature[Any] | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> result.AsyncResult[R]:
        """Fix its id and its place in a workflow; the result of the call to come.

        Args:
            _id: the id; when it has none yet and this is None, a new one.
            group_id: its group, unless it is in one.
            chord: the body of the chord whose header it is in.
            root_id: the task that began the workflow.
            parent_id: the task that sends it.
            group_index: its position in the group.
        """
        options = self.options
        task_id = options.get("task_id")
        if task_id is None:
            task_id = options["task_id"] = _id or uuid()
        options.setdefault("reply_to", self.app.thread_oid)
        if group_id:
            options.setdefault("group_id", group_id)
        place = {"root_id": root_id, "parent_id": parent_id, "chord": chord, "group_index": group_index}
        options.update((name, value) for name, value in place.items() if value is not None)
        frozen: result.AsyncResult[R] = self.AsyncResult(task_id)
        frozen.ignored = bool(self._wants_no_result())
        return frozen

    def _wants_no_result(self) -> bool | None:
        ignored = self.options.get("ignore_result")
        known = self._known_type() if ignored is None else None
        return ignored if known is None else known.ignore_result

    _freeze = freeze

    # -- links

    def link(self, callback: Any) -> Any:
        """Send `callback` after success, with the value as its first argument; returns the callback."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Send or call `errback` after failure; returns it."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """`link_error`, but returns itself."""
        self.link_error(errback)
        return self

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, unless it is in there; returns the value."""
        items = self.options[key] = as_list(self.options.get(key))
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add all of `value` to an option that is a list."""
        self.options[key] = [*as_list(self.options.get(key)), *as_list(value)]

    def flatten_links(self) -> list[Signature[Any]]:
        """Itself, and the callbacks that follow its success, recursively."""
        callbacks = (signature(link, app=self._app) for link in as_list(self.options.get("link")))
        return [self, *(deeper for callback in callbacks for deeper in callback.flatten_links())]

    # -- stamps

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Mark the call, all calls inside it, and its links, with headers of one's own (API-078); returns itself.

        Args:
            visitor: a StampingVisitor, which decides per signature.
            append_stamps: keep the values that a stamp has already, behind the new one.
            headers: name -> value.
        """
        symbol_by_name("celery.canvas.stamping:stamp")(self, visitor, append_stamps, headers)
        return self

    def stamp_links(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Mark what follows the call."""
        symbol_by_name("celery.canvas.stamping:stamp_links")(self, visitor, append_stamps, headers)

    # -- other

    def election(self) -> result.AsyncResult[R]:
        """Let one of all workers that listen run the call (CTL, topic `task`)."""
        task_id = self.options.get("task_id") or uuid()
        self.app.control.election(task_id, "task", self.clone(task_id=task_id))
        return cast("result.AsyncResult[R]", self.AsyncResult(task_id))

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """How the call is written, with these arguments before its own."""
        all_args, all_kwargs, _ = self._merge(args, kwargs, force=True)
        parts = [*map(repr, all_args), *(f"{name}={value!r}" for name, value in all_kwargs.items())]
        return f"{self.task}({', '.join(parts)})"

    def __repr__(self) -> str:
        return self.reprcall()

    @overload  # type: ignore[override]  # of dict, which merges
    def __or__(self, other: group[S]) -> Composed[list[S]]: ...
    @overload
    def __or__(self, other: Signature[S]) -> Composed[S]: ...

    def __or__(self, other: Any) -> Any:
        """This, then `other` (`celery.canvas.algebra`)."""
        if isinstance(other, Signature):
            return symbol_by_name("celery.canvas.algebra:compose")(self, other)
        if isinstance(other, Mapping):  # dict would merge them
            raise TypeError(f"Only signatures can follow each other, and {other!r:.200} is none: see signature().")
        return NotImplemented

    __ior__ = __or__  # type: ignore[assignment]  # of dict, which merges

    def __ror__(self, other: Never) -> Never:  # type: ignore[override]  # of dict, which merges
        """Nothing but a signature comes before a signature."""
        raise TypeError(f"Only signatures can be followed by one, and {other!r:.200} is none: see signature().")


def signature(varies: Any, *args: Any, **kwargs: Any) -> Signature[Any]:
    """A signature of a task, its name, or the dict form; a signature gives a clone of itself (API-074).

    Args:
        varies: what to call.
        args: as of `Signature`, for a task or a name.
        kwargs: as of `Signature`; only `app` is used for the other forms.
    """
    app = kwargs.get("app")
    if isinstance(varies, Signature):
        return _adopted(varies.clone(), app)
    if isinstance(varies, Mapping):
        return _opened(varies, app)
    return Signature(varies, *args, **kwargs)


signature.__module__ = "celery.canvas"  # as of Signature: pickles name it


def maybe_signature(d: Any, app: Celery | None = None, clone: bool = False) -> Signature[Any] | None:
    """A signature of a signature or a dict; None, and whatever is neither, stays what it is.

    Args:
        d: the value.
        app: the application it shall belong to.
        clone: copy what is a signature already.
    """
    if isinstance(d, Signature):
        return _adopted(d.clone() if clone else d, app)
    if isinstance(d, Mapping):
        return _opened(d, app)
    return cast("Signature[Any] | None", d)


def _opened(d: Mapping[str, Any], app: Celery | None) -> Signature[Any]:
    try:
        return Signature.from_dict(d, app=app)
    except RecursionError as error:
        if isinstance(error, NestingError) or not is_deep(d):
            raise
        raise NestingError.of(d) from error


def _adopted(sig: Signature[Any], app: Celery | None) -> Signature[Any]:
    if app is not None:
        sig._app = app
    return sig


def as_list(value: Any) -> list[Any]:
    """The items of an option that may be one or many."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


subtask = signature
maybe_subtask = maybe_signature
