"""Task bodies that take and give pydantic models (API-048, API-049).

A parameter annotated with a model, or with a model or None, gets one: made of the mapping that the message has. A value
that is an instance of the annotated model leaves as a mapping. Callers may pass a model where one is expected: it
travels as its JSON form if that form makes an equal model again; else it is left alone, and the serializer says what
is wrong with it. Other unions, and models inside containers, stay what they are.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

from celery.exceptions import ImproperlyConfigured
from celery.local import try_import

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from celery.app.base import Celery

#: Kinds of parameters that take one argument each.
_SINGLE = frozenset(
    {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
)


class Models:
    """The models in the signature of one task.

    Args:
        app: for validators, as `celery_app` in their context.
        fun: the function.
        name: the task's name; for validators, as `celery_task_name`.
        strict: validate strictly.
        context: more for the validators' context.
        dump_kwargs: of `model_dump`, for the value; default `mode="json"`.

    Raises:
        ImproperlyConfigured: pydantic is not installed, or an annotation cannot be resolved.
    """

    def __init__(
        self,
        app: Celery,
        fun: Callable[..., Any],
        name: str,
        strict: bool = False,
        context: Mapping[str, Any] | None = None,
        dump_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        pydantic = try_import("pydantic")
        if pydantic is None:
            raise ImproperlyConfigured(f"Task {name} has pydantic=True: pip install 'celeriac[pydantic]'")
        self._base: type[BaseModel] = pydantic.BaseModel
        self._invalid: type[Exception] = pydantic.ValidationError
        self._fun = fun
        self._strict = strict
        self._context = {"celery_app": app, "celery_task_name": name, **(context or {})}
        self._dump_kwargs = {"mode": "json"} if dump_kwargs is None else dict(dump_kwargs)
        self._signature = inspect.signature(fun)
        hints = _hints(fun, name)
        self._returned = self._model(hints.get("return"))
        self._expected = {
            parameter.name: model
            for parameter in self._signature.parameters.values()
            if parameter.kind in _SINGLE and (model := self._model(hints.get(parameter.name))) is not None
        }

    def _model(self, hint: Any) -> type[BaseModel] | None:
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            options = [option for option in typing.get_args(hint) if option is not types.NoneType]
            hint = options[0] if len(options) == 1 else None
        return hint if isinstance(hint, type) and issubclass(hint, self._base) else None

    def wrap(self) -> Callable[..., Any]:
        """The body to run: arguments validated before, the value dumped after. Of the same kind, sync or async."""
        fun = self._fun
        if inspect.iscoroutinefunction(fun):

            @functools.wraps(fun)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                call = self._validated(args, kwargs)
                return self._dumped(await fun(*call.args, **call.kwargs))

            return run_async

        @functools.wraps(fun)
        def run(*args: Any, **kwargs: Any) -> Any:
            call = self._validated(args, kwargs)
            return self._dumped(fun(*call.args, **call.kwargs))

        return run

    def _validated(self, args: Any, kwargs: Any) -> inspect.BoundArguments:
        call = self._signature.bind(*args, **kwargs)
        for name, model in self._expected.items():
            value = call.arguments.get(name)
            if value is not None:
                call.arguments[name] = model.model_validate(value, strict=self._strict, context=self._context)
        return call

    def _dumped(self, value: Any) -> Any:
        if self._returned is not None and isinstance(value, self._returned):
            return value.model_dump(**self._dump_kwargs)
        return value

    def dump_call(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], *, bound: bool
    ) -> tuple[list[Any], dict[str, Any]]:
        """A call's arguments, models among them as they travel.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            bound: the first parameter is the task, which is not among `args`.
        """
        names = list(self._signature.parameters)[bound:]
        names += [""] * (len(args) - len(names))
        return (
            [self._sent(name, value) for name, value in zip(names, args, strict=False)],
            {name: self._sent(name, value) for name, value in kwargs.items()},
        )

    def _sent(self, name: str, value: Any) -> Any:
        model = self._expected.get(name)
        if model is None or not isinstance(value, self._base) or hasattr(value, "__json__"):
            return value
        try:
            form = value.model_dump(mode="json")
            again = model.model_validate(form, strict=self._strict, context=self._context)
        except (self._invalid, ValueError, TypeError):
            return value
        return form if again == value else value


def _hints(fun: Callable[..., Any], name: str) -> dict[str, Any]:
    """Annotations, with those in quotes read where the function was written."""
    try:
        return typing.get_type_hints(fun, localns=dict(inspect.getclosurevars(fun).nonlocals))
    except NameError as error:
        raise ImproperlyConfigured(
            f"Task {name} has pydantic=True, and the annotation {error.name!r} cannot be resolved: "
            "import it where the task is defined (not under TYPE_CHECKING)."
        ) from error
