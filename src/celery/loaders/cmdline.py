"""Settings given on the command line, as in ``celery worker -- worker.prefetch_multiplier=10`` (CONF-009)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from celery.app.defaults import NAMESPACES, OPTIONS, Option, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ("OVERRIDE_TYPES", "TYPED_VALUE", "parse_settings")

#: ``(type)value``: a value with an explicit type.
TYPED_VALUE = re.compile(r"\((\w+)\)\s*(.*)", re.DOTALL)
#: Types whose text is JSON, whatever an option converts them with.
OVERRIDE_TYPES = {"tuple": "json", "list": "json", "dict": "json"}
_EXTRA_TYPES: dict[str, Callable[[str], Any]] = {"json": json.loads}


def parse_settings(
    args: Iterable[str],
    namespace: str = "celery",
    re_type: re.Pattern[str] = TYPED_VALUE,
    extra_types: Mapping[str, Callable[[str], Any]] | None = None,
    override_types: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Parse items ``key=value`` into ``{name: value}``.

    Args:
        args: The items. Dots in a key become underscores, its case does not matter, and a key that begins with a dot
            or an underscore is meant in *namespace*.
        namespace: ``worker`` for the worker; ``celery`` stands for all namespaces.
        re_type: Pattern of a value with an explicit type; its groups are the type and the text.
        extra_types: Converters by type name, beside those of `Option.typemap`; ``json`` by default.
        override_types: Type names to replace by others; by default tuple, list and dict are read as JSON.

    Raises:
        KeyError: If there is no such setting or type.
        ValueError: If an item is not of the form ``key=value``, or its value cannot be converted.
    """
    convert = {**Option.typemap, **(_EXTRA_TYPES if extra_types is None else extra_types)}
    replaced = OVERRIDE_TYPES if override_types is None else override_types

    def parse(item: str) -> tuple[str, Any]:
        key, separator, text = item.partition("=")
        if not separator:
            raise ValueError(f"{item!r} is not of the form setting=value.")
        name = _setting_name(key.strip().replace(".", "_").lower(), namespace)
        typed = re_type.match(text)
        kind, text = typed.groups() if typed else (OPTIONS[name].type, text)
        kind = replaced.get(kind, kind)
        if kind not in convert:
            raise KeyError(f"{kind!r} is no type of settings: use one of {', '.join(sorted(convert))}.")
        try:
            return name, convert[kind](text)
        except (TypeError, ValueError) as exc:
            raise ValueError(f"{name!r}: {exc}") from None

    return dict(map(parse, args))


def _setting_name(key: str, namespace: str) -> str:
    """Return the full name of the setting that *key* means."""
    stem = key.lstrip("_")
    if stem != key:
        if namespace in NAMESPACES:
            stem = f"{namespace}_{stem}"
        else:
            found = find(stem, namespace)
            stem = f"{found.namespace}_{found.key}" if found.namespace else found.key
    if stem not in OPTIONS:
        raise KeyError(stem)
    return stem
