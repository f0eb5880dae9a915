"""Saying that something is going away."""
from __future__ import annotations

import warnings
from functools import wraps
from typing import TYPE_CHECKING, Any

from celery.exceptions import CDeprecationWarning, CPendingDeprecationWarning

if TYPE_CHECKING:
    from collections.abc import Callable as _Callable

__all__ = ("Callable", "Property", "warn")


def warn(
    description: str | None = None,
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    stacklevel: int = 2,
) -> None:
    """Warn that something is deprecated (removal known) or will be.

    Args:
        description: What.
        deprecation: Version that deprecates it.
        removal: Version that removes it.
        alternative: What to use instead, a sentence.
        stacklevel: Whose line to show, as `warnings.warn` counts.
    """
    hint = f" {alternative}" if alternative else ""
    if removal is not None:
        text = f"{description} is deprecated and will be removed in version {removal}.{hint}"
        warnings.warn(CDeprecationWarning(text), stacklevel=stacklevel + 1)
    else:
        text = f"{description} is scheduled for deprecation in version {deprecation}.{hint}"
        warnings.warn(CPendingDeprecationWarning(text), stacklevel=stacklevel + 1)


def Callable(  # noqa: N802 - the documented name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _Callable[[_Callable[..., Any]], _Callable[..., Any]]:
    """Return a decorator for a deprecated function: calling it warns. Arguments as for `warn`."""

    def decorate(fun: _Callable[..., Any]) -> _Callable[..., Any]:
        @wraps(fun)
        def warning(*args: Any, **kwargs: Any) -> Any:
            warn(description or fun.__qualname__, deprecation, removal, alternative, stacklevel=2)
            return fun(*args, **kwargs)

        return warning

    return decorate


def Property(  # noqa: N802 - the documented name
    deprecation: str | None = None,
    removal: str | None = None,
    alternative: str | None = None,
    description: str | None = None,
) -> _Callable[[_Callable[..., Any]], property]:
    """Return a decorator for a deprecated property: using it warns. Arguments as for `warn`."""
    deprecated = Callable(deprecation, removal, alternative, description)
    return lambda fun: property(deprecated(fun))
