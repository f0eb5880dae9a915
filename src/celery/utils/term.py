"""Colors on a terminal."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("colored",)

_COLORS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_RESET = "\033[0m"
#: Escape sequences by style: bright text, the same on a colored background, and attributes.
_STYLES: Mapping[str, str] = {
    **{name: f"\033[1;{30 + index}m" for index, name in enumerate(_COLORS)},
    **{f"i{name}": f"\033[1;{40 + index}m" for index, name in enumerate(_COLORS)},
    "bold": "\033[1m",
    "underline": "\033[4m",
    "blink": "\033[5m",
    "reverse": "\033[7m",
    "bright": "\033[1;30m",
    "reset": _RESET,
}


class colored:  # noqa: N801 - the documented name
    """Text with styles: ``colored().red("no ", colored().bold("way"))``.

    Each style is a method that takes the parts to show in it and returns another `colored`; `str` gives the text.

    Args:
        s: Parts, text or `colored`.
        kwargs: ``enabled=False`` leaves the styles out; ``op`` is the escape sequence to begin with.
    """

    def __init__(self, *s: object, **kwargs: Any) -> None:
        self.s = s
        self.enabled = kwargs.get("enabled", True) and os.name == "posix"
        self.op = kwargs.get("op", "")

    def __getattr__(self, name: str) -> Callable[..., colored]:
        try:
            op = _STYLES[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} has no style {name!r}") from None
        return lambda *s: self.node(s, op)

    @property
    def names(self) -> dict[str, Callable[..., colored]]:
        """Methods by name of the color."""
        return {name: getattr(self, name) for name in _COLORS}

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """Return the parts in a style given by its escape sequence."""
        return type(self)(*s, enabled=self.enabled, op=op)

    def no_color(self) -> str:
        """Return the text without styles."""
        return "".join(part.no_color() if isinstance(part, colored) else str(part) for part in self.s)

    def embed(self) -> str:
        """Return the text with styles, left open at the end."""
        opening = self.op if self.enabled else ""
        return opening + "".join(
            f"{part.embed()}{_RESET if part.enabled and part.op else ''}{opening}"
            if isinstance(part, colored) and part.op
            else str(part)
            for part in self.s
        )

    def __str__(self) -> str:
        return f"{self.embed()}{_RESET}" if self.enabled and self.op else self.embed()

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> colored:
        return colored(self, other, enabled=self.enabled)
