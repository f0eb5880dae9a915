"""How functions and classes become tasks of an application (API-008..011)."""

from __future__ import annotations

import functools
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import _state
from celery.app.autoretry import add_autoretry_behaviour
from celery.exceptions import DuplicateTaskNameWarning
from celery.local import PromiseProxy, maybe_evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery.app.base import Celery
    from celery.app.registry import TaskRegistry
    from celery.app.task import Task

    AnyTask = Task[..., Any]

#: CO_COROUTINE, without importing inspect.
_COROUTINE = 0x80


class Registration:
    """The tasks of one application: those made, and those promised."""

    def __init__(self, app: Celery, tasks: TaskRegistry) -> None:
        self.app = app
        self.tasks = tasks
        self._pending: deque[PromiseProxy] = deque()
        self._duplicates_told: set[str] = set()
        #: What puts its tasks into other applications: as long as there is this one.
        self._shared: list[Callable[[Celery], None]] = []

    def finalize(self) -> None:
        """Make what was promised, here and by shared tasks, and bind everything."""
        # Its own tasks first: what other applications share must not take their names.
        while self._pending:
            maybe_evaluate(self._pending.popleft())
        _state.announce_app_finalized(self.app)
        for task in self.tasks.values():
            task.bind(self.app)

    def promise(
        self,
        fun: Callable[..., Any],
        shared: bool = True,
        filter: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
        lazy: bool = True,
        **opts: Any,
    ) -> Any:
        """A promise of the task, kept when it is used or the application finalized; the task itself after that."""
        if shared:
            # Other applications get the task too, when they are finalized, unless they have one of this name.
            def also_there(app: Celery) -> None:
                if (opts.get("name") or app.gen_task_name(fun.__name__, fun.__module__)) not in app._registration.tasks:
                    app._registration.make(fun, **opts)

            self._shared.append(also_there)
            _state.connect_while_it_lives(also_there)
        if not lazy or self.app.finalized:
            made = self.make(fun, **opts)
        else:
            made = PromiseProxy(self.make, (fun,), opts, __doc__=fun.__doc__)  # type: ignore[assignment]  # stands for a Task
            self._pending.append(made)  # type: ignore[arg-type]  # the promise itself
        return filter(made) if filter else made

    def make(
        self,
        fun: Callable[..., Any],
        name: str | None = None,
        base: type[AnyTask] | None = None,
        bind: bool = False,
        pydantic: bool = False,
        pydantic_strict: bool = False,
        pydantic_context: Mapping[str, Any] | None = None,
        pydantic_dump_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AnyTask:
        """The task of a function; the one that is there, if the name is taken.

        Raises:
            RuntimeError: the application is not finalized, and wants to be asked to be.
        """
        app = self.app
        if not app.finalized and not app.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        name = name or app.gen_task_name(fun.__name__, fun.__module__)
        known = self.tasks.get(name)
        if known is not None:
            self._warn_duplicate(name, known, fun)
            return known
        body = fun
        if pydantic:
            models = app._load("celery.app.pydantic:Models")(
                app, fun, name, pydantic_strict, pydantic_context, pydantic_dump_kwargs
            )
            body = models.wrap()
            options["_dump_call"] = functools.partial(models.dump_call, bound=bind)
        parent = base or app.Task
        run = body if bind else staticmethod(body)
        attributes = {
            "name": name,
            "run": run,
            "_decorated": True,
            "_function": fun,
            "__doc__": fun.__doc__,
            "__module__": fun.__module__,
            "__annotations__": getattr(fun, "__annotations__", {}),
            "__header__": staticmethod(fun),
            "__wrapped__": run,
            "is_async": is_coroutine_function(fun),
            "abstract": False,
            **options,
        }
        task: AnyTask = type(fun.__name__, (parent,), attributes)()
        task.__qualname__ = getattr(fun, "__qualname__", fun.__name__)  # type: ignore[attr-defined]  # as of a function
        self.tasks[task.name] = task
        task.bind(app)
        add_autoretry_behaviour(task, **options)
        return task

    def _warn_duplicate(self, name: str, known: AnyTask, fun: Callable[..., Any]) -> None:
        """Another function under a name that is taken: the first stays (API-009)."""
        if getattr(known, "_function", None) is fun or name in self._duplicates_told:
            return
        first_one = getattr(known, "_function", known.run)
        if (first_one.__module__, getattr(first_one, "__qualname__", "")) == (
            fun.__module__,
            getattr(fun, "__qualname__", ""),
        ):
            return  # its module was loaded twice
        self._duplicates_told.add(name)
        warnings.warn(
            f"Two tasks are called {name!r}: {first_one.__module__}.{first_one.__qualname__} stays, "
            f"{fun.__module__}.{fun.__qualname__} is not registered. Give one of them another name=.",
            DuplicateTaskNameWarning,
            stacklevel=5,
        )

    def register(self, task: Any, options: Mapping[str, Any]) -> AnyTask:
        """Enter a task (or a class of one) that was not made by the decorator (API-010)."""
        instance: AnyTask = task() if isinstance(task, type) else task
        if not instance.name:
            cls = type(instance)
            instance.name = cls.name = self.app.gen_task_name(cls.__name__, cls.__module__)  # type: ignore[arg-type]  # the class's name, not a task's
        known = self.tasks.get(instance.name)
        if known is not None and known is not instance and type(known) is not type(instance):
            warnings.warn(
                f"The task {instance.name!r} was registered before and is replaced by {type(instance).__name__}.",
                DuplicateTaskNameWarning,
                stacklevel=3,
            )
        type(instance).is_async = is_coroutine_function(instance.run)
        add_autoretry_behaviour(instance, **options)
        self.tasks[instance.name] = instance
        instance._app = self.app  # type: ignore[misc]  # one instance, one application
        instance.bind(self.app)
        return instance


def is_coroutine_function(fun: Any) -> bool:
    """Whether a body is `async def`, whatever wraps it."""
    while hasattr(fun, "__wrapped__"):
        fun = fun.__wrapped__
    code = getattr(getattr(fun, "__func__", fun), "__code__", None)
    return bool(code is not None and code.co_flags & _COROUTINE)
