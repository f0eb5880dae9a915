"""Retries: without writing `retry()`, by `autoretry_for` and its companions (API-047); with which arguments."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from celery.exceptions import Ignore, Retry

if TYPE_CHECKING:
    from celery.app.context import Context
    from celery.app.task import Task

__all__ = ("add_autoretry_behaviour", "retry_arguments")


def add_autoretry_behaviour(task: Task[..., Any], **options: Any) -> None:
    """Wrap the body so that the exceptions of `autoretry_for` become a retry.

    Args:
        task: the task; its attributes are the defaults of the options.
        options: autoretry_for, dont_autoretry_for, retry_kwargs, retry_backoff, retry_backoff_max (seconds),
            retry_jitter.
    """

    def option(name: str) -> Any:
        return options.get(name, getattr(task, name))

    retried = tuple(option("autoretry_for") or ())
    if not retried or hasattr(task, "_orig_run"):
        return
    passed_through = (Ignore, Retry, *(option("dont_autoretry_for") or ()))
    backoff = option("retry_backoff")
    policy = _Policy(
        dict(option("retry_kwargs") or {}),
        int(max(1.0, backoff)) if backoff else 0,
        option("retry_backoff_max"),
        bool(option("retry_jitter")),
    )
    body = task._orig_run = task.run  # type: ignore[attr-defined]  # where a wrapped task keeps its own body

    if task.is_async:

        @functools.wraps(body)
        async def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return await body(*args, **kwargs)
            except passed_through:
                raise
            except retried as exc:
                raise policy.retry(task, exc) from exc

    else:

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return body(*args, **kwargs)
            except passed_through:
                raise
            except retried as exc:
                raise policy.retry(task, exc) from exc

    task.run = run  # type: ignore[method-assign]  # the documented place of a task's body


class _Policy:
    """When the next try comes, and how many there may be."""

    def __init__(self, kwargs: dict[str, Any], factor: int, most: float, jitter: bool) -> None:
        self.kwargs = kwargs
        self.factor = factor
        self.most = most
        self.jitter = jitter

    def retry(self, task: Task[..., Any], exc: BaseException) -> BaseException:
        """The exception that ends the attempt: Retry, or `exc` itself when there were enough tries."""
        kwargs = dict(self.kwargs)
        if self.factor:
            # Calendars and time zones come with it; a program that only sends needs none.
            backoff = task.app._load("celery.utils.time:get_exponential_backoff_interval")
            kwargs["countdown"] = backoff(
                factor=self.factor, retries=task.request.retries, maximum=int(self.most), full_jitter=self.jitter
            )
        # An override in effect for this call (`retry(max_retries=...)` in the body) goes on (API-034).
        override = getattr(task.request, "max_retries_override", None)
        if override is not None:
            kwargs.setdefault("max_retries", override)
        return task.retry(exc=exc, throw=False, **kwargs)


def retry_arguments(task: Task[..., Any], request: Context, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """New arguments given alone keep the other part, less what is now passed the other way (API-033)."""
    if args is not None and kwargs is None and request.kwargs:
        names = _parameter_names(task)[: len(args)]
        return args, {name: value for name, value in request.kwargs.items() if name not in names}
    if kwargs is not None and args is None and request.args:
        names = _parameter_names(task)
        kept = []
        for name, value in zip(names, request.args, strict=False):
            if name in kwargs:
                break
            kept.append(value)
        else:
            kept.extend(request.args[len(names) :])
        return kept, kwargs
    return args, kwargs


def _parameter_names(task: Task[..., Any]) -> list[str]:
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in inspect.signature(task.run).parameters.items() if parameter.kind in kinds]
