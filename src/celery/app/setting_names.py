"""The names of settings: which spellings mean the same setting (CONF-010, CONF-011, CONF-037).

A setting has one *canonical* name, the lower-case one of the option table. A configuration may spell it in up to three
ways, looked for in this order:

1. with the namespace of the application in front, in the case of the namespace (``CELERY_TASK_SERIALIZER``);
2. by its canonical name (``task_serializer``);
3. by an old name (``CELERY_TASK_SERIALIZER`` without any namespace, ``CELERYD_CONCURRENCY``).

Without a namespace, one configuration keeps to one style, canonical or old. A name that is none of these belongs to
the user and is left alone, unless it looks like a setting that was misspelt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery.app.defaults import NEW_NAMES, OLD_NAMES, OPTIONS, SETTING_KEYS
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ("SettingNames", "check_style", "misspelling")

# First words that no user invents for a variable of his own in a configuration module.
_SETTING_WORDS = ("beat_", "broker_", "control_", "event_", "result_", "task_", "worker_")
_OLD_PREFIXES = ("CELERYBEAT_", "CELERYD_", "CELERY_", "BROKER_")
_LIKENESS = 0.85


class SettingNames:
    """The spellings that one application accepts.

    Args:
        namespace: Prefix of the names in the configuration, with or without its underscore; None for no prefix.
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.prefix = f"{namespace.rstrip('_')}_" if namespace else ""

    def canonical(self, key: str) -> str:
        """Return the canonical name of the setting that *key* spells; a user's own name without the prefix."""
        if key in SETTING_KEYS:
            return key
        if self.prefix and key.startswith(self.prefix):
            stem = key[len(self.prefix) :].lower()
            if stem in SETTING_KEYS or key not in NEW_NAMES:
                return stem
        return NEW_NAMES.get(key, key)

    def spellings(self, name: str) -> tuple[str, ...]:
        """Return the ways in which a configuration may spell the canonical *name*, the strongest first."""
        option = OPTIONS.get(name)
        plain = (name, *option.old) if option else (name,)
        if not self.prefix:
            return plain
        stem = name.upper() if self.prefix.isupper() else name
        return (self.prefix + stem, *plain)

    def is_setting(self, key: str) -> bool:
        """Tell whether *key* spells a setting, known or (by the prefix) the user's own."""
        return key in SETTING_KEYS or key in NEW_NAMES or bool(self.prefix and key.startswith(self.prefix))


def check_style(names: Iterable[str]) -> None:
    """Refuse a configuration that mixes old and new names.

    The style of the majority wins, the new one a tie. A setting that is present in both spellings offends nobody.

    Raises:
        ImproperlyConfigured: If names of both styles remain; the text lists what to rename to what.
    """
    given = frozenset(names)
    new = sorted(name for name in given if name in OLD_NAMES and given.isdisjoint(OPTIONS[name].old))
    old = sorted(name for name in given if name in NEW_NAMES and NEW_NAMES[name] not in given)
    if not new or not old:
        return
    style, renames = (
        ("old", [f"{name} -> {OLD_NAMES[name]}" for name in new])
        if len(old) > len(new)
        else ("new", [f"{name} -> {NEW_NAMES[name]}" for name in old])
    )
    raise ImproperlyConfigured(
        f"The configuration mixes old and new names of settings. Most of it is in the {style} style, so please rename\n"
        + "".join(f"\n    {rename}" for rename in renames)
        + "\n\nor let `celery upgrade settings` move the whole file to the new style."
    )


def misspelling(key: str, prefix: str = "") -> str | None:
    """Explain what is wrong with an unknown name that looks like a setting.

    Args:
        key: A name as the user wrote it, known to spell no setting.
        prefix: Prefix of the application's namespace.

    Returns:
        A sentence for a warning, or None if the name looks like the user's own.
    """
    if prefix and key.startswith(prefix):
        stem, known = key[len(prefix) :].lower(), SETTING_KEYS
    elif key.isupper():
        old_prefix = next((old for old in _OLD_PREFIXES if key.startswith(old)), None)
        if old_prefix is None:
            return None
        stem, known = key, frozenset(NEW_NAMES)
    else:
        stem, known = key, SETTING_KEYS
    nearest = _nearest(stem, known)
    if nearest is not None:
        spelt = prefix + (nearest.upper() if prefix.isupper() else nearest) if stem != key else nearest
        return f"Unknown setting {key!r}: did you mean {spelt!r}?"
    if stem.startswith(_SETTING_WORDS):
        return f"Unknown setting {key!r}: unless an extension of yours reads it, it changes nothing."
    return None


def _nearest(name: str, known: Collection[str]) -> str | None:
    from difflib import get_close_matches  # only a configuration with an unknown name pays for it

    return next(iter(get_close_matches(name, known, n=1, cutoff=_LIKENESS)), None)
