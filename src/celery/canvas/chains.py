"""Chains: steps that follow each other, each with the value of the one before (CANVAS-022..035).

Running one is three steps: it is *laid out* (`celery.canvas.algebra`), *frozen*, which gives every step its id and the
last one the place of the chain in what is around it, and its first step is *sent*. The others travel with it in
reverse order, so that whoever runs a step takes the next one from the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from celery.canvas.algebra import CHORD, fold, kind_of, laid_out, link_steps
from celery.canvas.composed import Composed, as_signature, cloned, eldest
from celery.canvas.nesting import limits_depth
from celery.canvas.signature import Signature
from celery.utils.functional import is_list
from celery.utils.imports import symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import result

R = TypeVar("R")
S = TypeVar("S")
Sig = Signature[Any]

#: Options that belong to the last step of a chain, or to all, and not to the first.
_OF_OTHER_STEPS = frozenset(("task_id", "group_id", "group_index", "chord", "chain", "link", "link_error", "use_link"))


@Signature.register_type(name="chain")
class _chain(Composed[R]):  # noqa: N801 - the documented name
    """Steps that follow each other. Made by `chain(...)`, and by `|`.

    Args:
        tasks: the steps, or a list of them.
        options: of `apply_async`.
    """

    __module__ = "celery.canvas"

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps = tasks[0] if len(tasks) == 1 and is_list(tasks[0]) else tasks
        app = options.pop("app", None)
        steps = [as_signature(step, app) for step in steps]
        super().__init__("celery.chain", (), {"tasks": steps}, subtask_type="chain", app=app, **options)

    @property
    def id(self) -> str | None:
        """The id of its last step, once frozen."""
        return self.options.get("task_id")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; None when there is nothing to run."""
        return self.apply_async(args, kwargs) if self.tasks else None

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
        """Lay it out and fix the ids of all steps; the result of the last one (CANVAS-028).

        Args:
            _id: id of the last step.
            group_id: the last step's group.
            chord: body of the chord whose header the last step is in.
            root_id: the task that began the workflow.
            parent_id: the task that sends it.
            group_index: position of the last step in its group.
        """
        steps = self.kwargs["tasks"] = laid_out(self.tasks, app=self._app)
        last = len(steps) - 1
        parent = None
        for position, step in enumerate(steps):
            if position == last:
                _id = self.options.get("task_id") or _id
                frozen = step.freeze(_id, group_id, chord, root_id, parent_id, group_index)
                self.options["task_id"] = step.id
            else:
                frozen = step.freeze(root_id=root_id, parent_id=parent_id)
            eldest(frozen).parent = parent
            parent = frozen
        return parent if steps else self.app.GroupResult(_id, [])

    _freeze = freeze

    # -- sending

    @limits_depth
    def apply_async(  # type: ignore[override]  # every option by name
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> result.AsyncResult[R]:
        """Send the first step; the result of the last one, which is a GroupResult where that is a group.

        Args:
            args: come before those of the first step, unless it is immutable.
            kwargs: override those of the first step.
            options: of `apply_async`. task_id, group_id, group_index, chord and link are those of the last step,
                link_error is that of every one, all others those of the first.
        """
        if self.app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        return cast("result.AsyncResult[R]", self.run(args, kwargs, **options))

    async def aapply_async(self, *args: Any, **kwargs: Any) -> Any:
        """`apply_async` for coroutines."""
        import asyncio

        return await asyncio.to_thread(self.apply_async, *args, **kwargs)

    def run(self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Send it, eager mode or not."""
        use_link = options.get("use_link", self.options.get("use_link"))
        steps, result, options = self._ready(options)
        if not steps:
            return result
        first, rest = steps[0], steps[1:]
        if use_link:
            for step, following in zip(steps, rest, strict=False):
                step.link(following)
        elif rest:
            options["chain"] = rest[::-1]
        first.apply_async(args, kwargs, **options)
        return result

    def _ready(self, options: dict[str, Any]) -> tuple[list[Sig], Any, dict[str, Any]]:
        """Laid out and frozen, as a copy: its steps, the result, and the options of the first step."""
        options = {**self.options, **options}
        steps = cloned(self.tasks)
        steps += [as_signature(step, self._app) for step in reversed(options.get("chain") or ())]
        fresh: _chain[R] = _chain(steps, app=self._app)
        link_steps(steps := laid_out(fresh.tasks, app=self._app), options)
        fresh.kwargs["tasks"] = steps
        if any(kind_of(step) == CHORD for step in steps):
            self.app.backend.ensure_chords_allowed()
        chord = options.get("chord")
        place = (options.get(name) for name in ("group_id", "root_id", "parent_id", "group_index"))
        group_id, root_id, parent_id, group_index = place
        result = fresh.freeze(options.get("task_id"), group_id, chord, root_id, parent_id, group_index)
        of_first = {name: value for name, value in options.items() if name not in _OF_OTHER_STEPS}
        return fresh.tasks, result, of_first

    # -- eager mode

    def apply(
        self, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> result.EagerResult[R]:
        """Run all steps here, each with the value of the one before (CANVAS-074)."""
        apply_chain = symbol_by_name("celery.canvas.eager:apply_chain")
        return cast("result.EagerResult[R]", apply_chain(self, args, kwargs, options))

    # -- other

    def unchain_tasks(self) -> list[Sig]:
        """Copies of the steps, with what the chain is linked to."""
        steps = cloned(self.tasks)
        link_steps(steps, self.options)
        return cast("list[Sig]", steps)

    def __repr__(self) -> str:
        return cast(str, symbol_by_name("celery.canvas.shown:show_chain")(self))


class chain(_chain[R]):  # noqa: N801 - the documented name
    """`chain(a, b, c)` is `a | b | c` (CANVAS-022..024): what comes of it may be a group, or a chord.

    A chain of one argument that is no list is a chain of one step.
    """

    __module__ = "celery.canvas"

    @overload
    def __new__(cls, a: Signature[S], /) -> chain[S]: ...
    @overload
    def __new__(cls, a: Signature[Any], b: Signature[S], /) -> chain[S]: ...
    @overload
    def __new__(cls, a: Signature[Any], b: Signature[Any], c: Signature[S], /) -> chain[S]: ...
    @overload
    def __new__(cls, a: Signature[Any], b: Signature[Any], c: Signature[Any], d: Signature[S], /) -> chain[S]: ...
    @overload
    def __new__(cls, *tasks: Any, **options: Any) -> chain[Any]: ...

    def __new__(cls, *tasks: Any, **options: Any) -> Any:
        if options or not tasks or (len(tasks) == 1 and not is_list(tasks[0])):
            return super().__new__(cls)
        steps = tasks[0] if len(tasks) == 1 else tasks
        made = fold([as_signature(step, None) for step in steps])
        if cls is not chain and isinstance(made, _chain):
            return cls.from_dict(made)
        return made
