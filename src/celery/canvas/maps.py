"""One task over many arguments: map, starmap and chunks (CANVAS-064, CANVAS-065).

xmap and xstarmap are one message to a task that every worker has, and run the calls one after the other; chunks is a
group of xstarmaps over slices.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

from celery.canvas.groups import group
from celery.canvas.signature import Signature, maybe_signature, signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from celery import result
    from celery.app.base import Celery


class _basemap(Signature[list[Any]]):  # noqa: N801 - the documented name
    """A task over items.

    Args:
        task: signature of the task.
        it: the items.
        options: of `apply_async`.
    """

    _task_name: ClassVar[str]

    def __init__(self, task: Any, it: Iterable[Any], **options: Any) -> None:
        app = options.pop("app", None)
        items = it if isinstance(it, (list, tuple)) else list(it)
        fields = {"task": signature(task), "it": items}
        super().__init__(self._task_name, (), fields, immutable=True, app=app, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Self:
        """The signature of a dict form."""
        made = cls.__new__(cls)
        Signature.__init__(made, d, app=app)
        return made

    def apply_async(
        self,
        args: Iterable[Any] | None = None,  # noqa: ARG002 - it is immutable
        kwargs: Mapping[str, Any] | None = None,  # noqa: ARG002 - it is immutable
        route_name: str | None = None,
        **options: Any,
    ) -> result.AsyncResult[list[Any]]:
        """Send it, where the task itself would go."""
        task: Any = maybe_signature(self.kwargs["task"], app=self._app)
        given = {**self.options, **options}
        fields = {"task": task, "it": list(self.kwargs["it"])}
        return self.type.apply_async((), fields, route_name=route_name or task.task, **given)


@Signature.register_type()
class xmap(_basemap):  # noqa: N801 - the documented name
    """The task's value for each item: `[task(item) for item in it]`."""

    __module__ = "celery.canvas"
    _task_name = "celery.map"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(x) for x in {self.kwargs['it']!r:.100}]"


@Signature.register_type()
class xstarmap(_basemap):  # noqa: N801 - the documented name
    """The task's value for each list of arguments: `[task(*arguments) for arguments in it]`."""

    __module__ = "celery.canvas"
    _task_name = "celery.starmap"

    def __repr__(self) -> str:
        return f"[{self.kwargs['task'].task}(*x) for x in {self.kwargs['it']!r:.100}]"


@Signature.register_type()
class chunks(Signature[list[Any]]):  # noqa: N801 - the documented name
    """An xstarmap for every `n` lists of arguments, as a group.

    Args:
        task: signature of the task.
        it: the lists of arguments.
        n: how many there are in a chunk.
        options: of `apply_async`.
    """

    __module__ = "celery.canvas"

    def __init__(self, task: Any, it: Iterable[Any], n: int, **options: Any) -> None:
        app = options.pop("app", None)
        fields = {"task": signature(task), "it": it, "n": n}
        super().__init__("celery.chunks", (), fields, immutable=True, app=app, **options)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Celery | None = None) -> Self:
        """The signature of a dict form."""
        made = cls.__new__(cls)
        Signature.__init__(made, d, app=app)
        return made

    def __call__(self, **options: Any) -> Any:
        """Send the group."""
        return self.apply_async(**options)

    def apply_async(  # type: ignore[override]  # a group has a GroupResult
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send the group."""
        return self.group().apply_async(args, kwargs, **{**self.options, **options})

    def apply(self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run the group here."""
        return self.group().apply(args, kwargs, **{**self.options, **options})

    def group(self) -> group[list[Any]]:
        """The group; of a generator it is drawn from as it is sent."""
        task, it, n = self.kwargs["task"], self.kwargs["it"], self.kwargs["n"]
        parts = (xstarmap(task, part, app=self._app) for part in slices(it, n))
        return group(list(parts) if isinstance(it, (list, tuple)) else parts, app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Celery | None = None) -> Any:
        """Send the group of these."""
        return cls(task, it, n, app=app)()


def slices(it: Iterable[Any], n: int) -> Iterator[list[Any]]:
    """Lists of `n` items; the last one may be shorter."""
    items = iter(it)
    while part := list(islice(items, n)):
        yield part
