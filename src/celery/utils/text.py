"""Text for people."""
from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from re import Pattern

__all__ = (
    "abbr",
    "abbrtask",
    "dedent",
    "dedent_initial",
    "ensure_newlines",
    "ensure_sep",
    "fill_paragraphs",
    "indent",
    "join",
    "pluralize",
    "pretty",
    "remove_repeating",
    "remove_repeating_from_task",
    "simple_format",
    "str_to_list",
    "truncate",
)

RE_FORMAT = re.compile(r"%([%\w])")


def str_to_list(s: str | list[str]) -> list[str]:
    """Split text at commas; leave lists alone."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Remove ``n`` leading spaces, if that many are there."""
    return s[n:] if s[:n] == " " * n else s


def dedent(s: str, sep: str = "\n") -> str:
    """Remove an indentation of four from every line."""
    return sep.join(dedent_initial(line) for line in s.splitlines())


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Wrap every paragraph to ``width`` columns."""
    return sep.join(textwrap.fill(paragraph, width) for paragraph in s.split(sep))


def join(l: Iterable[str], sep: str = "\n") -> str:  # noqa: E741 - the documented name
    """Join the parts that are not empty."""
    return sep.join(part for part in l if part)


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Append ``sep`` until there are ``n`` of it."""
    return s + sep * (n - s.count(sep))


def ensure_newlines(s: str, n: int = 2) -> str:
    """Append newlines until there are ``n``."""
    return ensure_sep("\n", s, n)


def abbr(S: str, max: int, ellipsis: str | bool | None = "...") -> str:  # noqa: N803 - the documented name
    """Cut text to ``max`` characters; with an ellipsis it counts in."""
    if len(S) <= max:
        return S
    return S[: max - len(ellipsis)] + ellipsis if isinstance(ellipsis, str) and ellipsis else S[:max]


def abbrtask(S: str | None, max: int) -> str:  # noqa: N803 - the documented name
    """Cut the module of a task name, not the name: ``proj.t[.]add``."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    module, _, name = S.rpartition(".")
    room = max - len(name) - len("[.]")
    return f"{module[:room] if room > 0 else ''}[.]{name}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Put ``indent`` spaces in front of every line."""
    return sep.join(" " * indent + part for part in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Cut text to ``maxlen`` characters at a word, and append ``suffix``."""
    return s[:maxlen].rsplit(" ", 1)[0] + suffix if maxlen and len(s) >= maxlen else s


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Return the word for ``n`` of it: ``1 task``, ``2 tasks``, ``1.5 tasks``."""
    return text if n == 1 else text + suffix


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Format a value over several lines; a dict begins on a line of its own."""
    from pprint import pformat  # for people looking at reports only, and slow to import

    if isinstance(value, dict):
        return f"{{{sep} {pformat(value, width=nl_width, **kw)[1:]}"
    return pformat(value, width=width, **kw)


def simple_format(
    s: str,
    keys: Mapping[str, str | Callable[[], str]],
    pattern: Pattern[str] = RE_FORMAT,
    expand: str = r"\1",
) -> str:
    """Expand ``%x`` for every ``x`` in ``keys``; a callable is called for its text.

    Raises:
        ValueError: An unknown letter.
    """
    if not s:
        return s
    table = {"%": "%", **keys}

    def resolve(match: re.Match[str]) -> str:
        key = match.expand(expand)
        try:
            value = table[key]
        except KeyError:
            known = ", ".join(f"%{name}" for name in sorted(table))
            raise ValueError(
                f"%{key} in {s!r} is unknown; there are {known}. To get a percent sign, write it twice."
            ) from None
        return value() if callable(value) else str(value)

    return pattern.sub(resolve, s)


def remove_repeating(substr: str, s: str) -> str:
    """Remove every occurrence of ``substr`` but the first."""
    head, found, tail = s.partition(substr)
    return head + found + tail.replace(substr, "")


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Shorten the names of tasks in the same module as ``task_name`` in a text: the module is said once."""
    return remove_repeating(task_name.rpartition(".")[0] + ".", s)


#: What a rate may be per, in seconds.
RATE_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def rate(r: str | float | None) -> float:
    """Return a rate such as ``"10/s"``, ``"100/m"`` or ``"1000/h"`` as tasks per second; 0 means no limit.

    Raises:
        ValueError: The text is not a rate.
    """
    if not r:
        return 0
    if not isinstance(r, str):
        return r
    count, _, unit = r.partition("/")
    try:
        return float(count) / RATE_UNITS[unit.strip() or "s"]
    except (KeyError, ValueError):
        raise ValueError(f"rate limit {r!r} is not a number, or a number per s, m or h such as '10/m'") from None
