"""`Settings`: the mapping behind ``app.conf`` (CONF-001..022).

**Layers.** A value is looked up in four layers, and the first that has it wins: the *changes* made at run time, the
*source* (the user's configuration object), the *extra defaults* (the newest first), the *built-in defaults*. Changes
and built-in defaults are kept under canonical names; source and extra defaults are read under any spelling that
`setting_names` accepts.

**States.** Loading the source imports user code, so it is put off until the first read:

====================  ==================  =========================================================
state                 event               what happens
====================  ==================  =========================================================
pending               write, ``in``       acts on the changes alone
pending               read                loading: the load callback supplies the source
loading               read                sees changes and built-in defaults (callbacks may look)
loading               callback failed     pending again; the error goes to the reader
loading               source is valid     loaded; then the loaded callback runs
loaded                ``reload()``        pending again, with the changes kept
====================  ==================  =========================================================

The object is the same in every state, so a reference taken early stays good.

**Speed.** The first read of an attribute puts its value into the instance's ``__dict__``, where Python finds it
without asking us; every change empties that cache. It is left unused for a *live* source, an instance such as Django's
settings, whose attributes may change behind our back. The four addresses that an environment variable can override
(CONF-002) are properties and never cached.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from datetime import timedelta
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from celery.app.censor import filter_hidden_settings
from celery.app.defaults import (
    ACTED_ON,
    DEFAULTS,
    NEW_NAMES,
    OPTIONS,
    SETTING_KEYS,
    find,
    find_deprecated_settings,
    to_bool,
)
from celery.app.setting_names import SettingNames, check_style, misspelling
from celery.exceptions import CDeprecationWarning, CeleryWarning, ImproperlyConfigured
from celery.utils.collections import ConfigurationView, DictAttribute

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.app.defaults import searchresult

__all__ = ("Settings",)

_DICT_DEFAULTS = tuple(name for name, value in DEFAULTS.items() if isinstance(value, dict))
#: Settings whose values are checked when they are read, and of which kind they are.
_CHECKED = {name: option.type for name, option in OPTIONS.items() if option.type in ("bool", "int", "float")}
# Any of these, set by the user, means that there is a broker to connect to (SET-040).
_BROKER_SETTINGS = (
    "broker_url",
    "broker_read_url",
    "broker_write_url",
    "broker_host",
    "broker_port",
    "broker_user",
    "broker_password",
    "broker_vhost",
    "broker_transport",
)


def _built_in_defaults() -> dict[str, Any]:
    """Copy the defaults, so that an entry put into a default dict (a periodic task, say) stays with one application."""
    defaults = dict(DEFAULTS)
    for name in _DICT_DEFAULTS:
        defaults[name] = dict(defaults[name])
    return defaults


def _is_live(source: Mapping[str, Any]) -> bool:
    """Tell whether *source* views an instance, whose attributes may change at any time."""
    return isinstance(source, DictAttribute) and not isinstance(source.obj, (type, ModuleType))


def _is_data(key: str, value: Any) -> bool:
    """Tell a user's own setting from what else a configuration module holds: imports, functions, classes."""
    return not key.startswith("_") and not isinstance(value, ModuleType) and not callable(value)


def _as_bool(name: str, value: Any) -> Any:
    try:
        return to_bool(value)
    except TypeError as exc:
        raise ImproperlyConfigured(f"The setting {name!r} must be true or false. {exc}") from None


def _as_number(name: str, value: Any) -> Any:
    """Turn text, as of an environment variable, into the number that it stands for, and a duration into seconds."""
    if isinstance(value, timedelta) and _CHECKED[name] == "float":
        return value if name.endswith("_expires") else value.total_seconds()  # who reads the former takes both
    if isinstance(value, str):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(value)
    elif hasattr(value, "__float__"):
        return value
    raise ImproperlyConfigured(f"The setting {name!r} is {value!r}: it must be a number.")


class Settings(MutableMapping[str, Any]):
    """The settings of one application, as a mapping and by attribute.

    Args:
        changes: Settings made before anything is loaded, under any spelling; exempt from the check on mixed styles.
        namespace: Prefix of the names in the source (CONF-010).
        load: Called once, at the first read; returns the source, or None where there is none.
        loaded: Called with these settings once they are loaded.

    Raises:
        ImproperlyConfigured: On the first read, if the source mixes old and new names, or, where there is none, what
            was changed before; on reading a setting that is
            true or false, if it is given as a string that is neither (CONF-022), or one that is a number, if it is not.
        ModuleNotFoundError: On the first read, in place of an AttributeError raised while loading, which a reader
            would take for a missing setting (CONF-005).
    """

    def __init__(
        self,
        changes: Mapping[str, Any] | None = None,
        *,
        namespace: str | None = None,
        load: Callable[[], Mapping[str, Any] | None] | None = None,
        loaded: Callable[[Settings], None] | None = None,
    ) -> None:
        self._names = SettingNames(namespace)
        self._changes = self._canonical_keys(changes or {})
        self._on_load = load
        self._on_loaded = loaded
        self._lock = RLock()
        self._state: Literal["pending", "loading", "loaded"] = "pending"
        self._source: Mapping[str, Any] = {}
        self._live = False
        self._promised: list[Any] = []
        self._extra: list[Mapping[str, Any]] = []
        self._built_in = _built_in_defaults()
        self._observers: list[Callable[[dict[str, Any]], Any]] = []
        self._warned: set[str] = set()
        #: Names, as they were written, of what was changed before anything was loaded.
        self._early: set[str] = set()
        self._mark = object()
        self._firsts: dict[tuple[str, ...], Any] = {}

    # Loading

    @property
    def configured(self) -> bool:
        """Whether the configuration has been loaded."""
        return self._state == "loaded"

    def finalize(self) -> None:
        """Load the configuration now if it is still pending."""
        if self._state != "loaded":
            self._load()

    def reload(self) -> None:
        """Become pending again: the next read loads the source anew. Changes made at run time are kept."""
        with self._lock:
            self._state = "pending"
            self._promised, self._extra = [*self._promised, *reversed(self._extra)], []
            self._source, self._live = {}, False
            self._forget()

    def _load(self) -> None:
        with self._lock:
            if self._state != "pending":
                return
            self._state = "loading"
            try:
                source = (self._on_load() if self._on_load else None) or {}
                extra = [promise() if callable(promise) else promise for promise in self._promised]
                self._validate(source)
                if not source and not self._names.prefix:
                    check_style(self._early)  # nothing else says how names are written
            except BaseException as exc:
                self._state = "pending"
                if isinstance(exc, AttributeError):
                    raise ModuleNotFoundError(f"The configuration could not be loaded: {exc}") from exc
                raise
            self._source, self._live = source, _is_live(source)
            self._extra, self._promised = extra[::-1], []
            self._state = "loaded"
            self._warn_unknown(self._changes)
            if self._on_loaded:
                self._on_loaded(self)

    def _validate(self, source: Mapping[str, Any]) -> None:
        keys = [key for key in source if isinstance(key, str)]
        if not self._names.prefix:
            check_style(keys)
        for name, option in find_deprecated_settings(source):
            warnings.warn(
                f"The setting {name!r} is deprecated since {option.deprecate_by} and goes in {option.remove_by}: "
                f"use {option.alt}.",
                CDeprecationWarning,
                stacklevel=2,
            )
        self._warn_unknown(key for key in keys if self._is_listed(key, source))

    def _warn_unknown(self, keys: Any) -> None:
        for key in keys:
            if key in self._warned or self._names.canonical(key) in SETTING_KEYS:
                continue
            self._warned.add(key)
            complaint = misspelling(key, self._names.prefix)
            if complaint:
                warnings.warn(complaint, CeleryWarning, stacklevel=2)

    # Reading

    def __getitem__(self, key: str) -> Any:
        if self._state != "loaded":
            self._load()
        name = self._names.canonical(key)
        value = self._find(name)
        if value and not isinstance(value, (int, float)) and name in _CHECKED:
            return _as_bool(name, value) if _CHECKED[name] == "bool" else _as_number(name, value)
        return value

    def _find(self, name: str) -> Any:
        if name in self._changes:
            return self._changes[name]
        spellings = self._names.spellings(name)
        for layer in (self._source, *self._extra):
            for spelling in spellings:
                if spelling in layer:
                    return layer[spelling]
        return self._built_in[name]

    def check(self) -> None:
        """Read all that is checked when it is read. Raises ImproperlyConfigured."""
        for name in _CHECKED:
            self.get(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self.finalize()  # outside the try: a KeyError of the user's module is no missing setting
        with self._lock:
            try:
                value = self[name]
            except KeyError:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None
            if self._cacheable():
                self.__dict__[name] = value
        return value

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        name = self._names.canonical(key)
        if self._state == "pending":
            return name in self._changes
        return name in self._built_in or self._is_set(name)

    def __iter__(self) -> Iterator[str]:
        self.finalize()
        yield from self._built_in
        yield from (name for name in self._user_names() if name not in self._built_in)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return True

    def _is_set(self, name: str) -> bool:
        spellings = self._names.spellings(name)
        return name in self._changes or any(key in layer for layer in (self._source, *self._extra) for key in spellings)

    def _is_listed(self, key: Any, layer: Mapping[str, Any]) -> bool:
        if not isinstance(key, str):
            return False
        # With a namespace, names without it are somebody else's settings: Django's, say.
        return self._names.is_setting(key) or (not self._names.prefix and _is_data(key, layer[key]))

    def _user_names(self) -> list[str]:
        """Return the canonical names that users set, in the order of the layers."""
        listed = (key for layer in (self._source, *self._extra) for key in layer if self._is_listed(key, layer))
        return list(dict.fromkeys([*self._changes, *map(self._names.canonical, listed)]))

    def first(self, *keys: str) -> Any:
        """Return the value of the first of *keys* that is set to something other than None."""
        if keys in self._firsts:
            return self._firsts[keys]
        self.finalize()
        with self._lock:
            value = next((value for value in map(self.get, keys) if value is not None), None)
            if self._cacheable():
                self._firsts[keys] = value
        return value

    def _cacheable(self) -> bool:
        return self._state == "loaded" and not self._live

    def get_by_parts(self, *parts: str) -> Any:
        """Return the setting whose name is made of *parts*: ``get_by_parts('worker', 'concurrency')``."""
        return self["_".join(part for part in parts if part)]

    def find_option(self, name: str, namespace: str = "") -> searchresult:
        """Find an option by name; see `celery.app.defaults.find`."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Return the value of the option that *name* means in *namespace*; raises KeyError if there is none."""
        found = self.find_option(name, namespace)
        return self.get_by_parts(found.namespace or "", found.key)

    # Writing

    def __setitem__(self, key: str, value: Any) -> None:
        self._change({key: value})

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._change({name: value})

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change settings, as ``dict.update`` does; watchers are called once."""
        self._change(dict(*args, **kwargs))

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Set *key* unless some layer has it (while pending: unless it was changed); return its value."""
        if key not in self:
            self[key] = default
        return self._changes[self._names.canonical(key)] if self._state == "pending" else self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Undo the change of one setting and return the value it had been changed to."""
        name = self._names.canonical(key)
        with self._lock:
            value = self._changes.pop(name, *default)
            self._early = {early for early in self._early if self._names.canonical(early) != name}
            self._forget()
            return value

    def clear(self) -> None:
        """Undo all changes; the configuration object and the defaults stay."""
        with self._lock:
            self._changes.clear()
            self._early.clear()
            self._forget()

    def add_defaults(self, defaults: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add a layer above the built-in defaults; a callable is called when the configuration loads (CONF-014)."""
        with self._lock:
            if self._state == "loaded":
                self._extra.insert(0, defaults() if callable(defaults) else defaults)
                self._forget()
            else:
                self._promised.append(defaults)

    def bind_to(self, callback: Callable[[dict[str, Any]], Any]) -> None:
        """Call *callback* with ``{name: value}`` after each change (CONF-020)."""
        self._observers.append(callback)

    def _change(self, values: Mapping[str, Any]) -> None:
        changes = self._canonical_keys(values)
        with self._lock:
            self._changes.update(changes)
            if self._state != "loaded":
                self._early.update(key for key in values if isinstance(key, str))
            self._forget()
        if self._state == "loaded":
            self._warn_unknown(changes)
        for notify in self._observers:
            notify(changes)

    def _canonical_keys(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {self._names.canonical(key): value for key, value in values.items()}

    @property
    def mark(self) -> object:
        """Another object after each change: what was computed from settings is good while it is the same."""
        return self._mark

    @property
    def steady(self) -> bool:
        """Whether no setting can change behind our back."""
        return self._cacheable()

    def _forget(self) -> None:
        self._mark = object()
        self._firsts.clear()
        for name in [name for name in self.__dict__ if not name.startswith("_")]:
            del self.__dict__[name]

    # Derived values (CONF-021); the environment counts for attributes only (CONF-002)

    @property
    def broker_url(self) -> Any:
        """Where the broker is; None where nothing says so."""
        return os.environ.get("CELERY_BROKER_URL") or self.first("broker_url", "broker_host")

    @property
    def broker_read_url(self) -> Any:
        """Where to consume from: the broker, unless there is an address of its own."""
        return os.environ.get("CELERY_BROKER_READ_URL") or self.first("broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """Where to publish to: the broker, unless there is an address of its own."""
        return os.environ.get("CELERY_BROKER_WRITE_URL") or self.first("broker_write_url") or self.broker_url

    @property
    def result_backend(self) -> Any:
        """Where results are stored; None where nothing says so."""
        return os.environ.get("CELERY_RESULT_BACKEND") or self.first("result_backend")

    @property
    def task_default_exchange(self) -> Any:
        """Exchange of queues that name none: the default queue's name, unless set."""
        return self.first("task_default_exchange", "task_default_queue")

    @property
    def task_default_routing_key(self) -> Any:
        """Routing key of queues that name none: the default queue's name, unless set."""
        return self.first("task_default_routing_key", "task_default_queue")

    @property
    def timezone(self) -> Any:
        """The application's time zone, else Django's; None where nothing says so."""
        return self.first("timezone", "TIME_ZONE")

    @property
    def embedded(self) -> bool:
        """Whether nothing names a broker, so that the embedded SQLite file serves as one (SET-040)."""
        return not (self.broker_read_url or self.broker_write_url or any(map(self.get, _BROKER_SETTINGS)))

    # What users did

    @property
    def changes(self) -> dict[str, Any]:
        """A copy of the changes made at run time, under canonical names."""
        return dict(self._changes)

    @property
    def prefix(self) -> str:
        """Prefix of names in the source, with its underscore; empty without a namespace."""
        return self._names.prefix

    @property
    def deprecated_settings(self) -> frozenset[str]:
        """The old names that the source uses."""
        self.finalize()
        return frozenset(old for old in NEW_NAMES if old in self._source and self._is_old(old))

    def _is_old(self, key: str) -> bool:
        return not (self._names.prefix and self._names.spellings(self._names.canonical(key))[0] == key)

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn about each old name in use (CONF-012); return whether there was any."""
        old_names = sorted(self.deprecated_settings)
        for old in old_names:
            warnings.warn(f"The setting {old!r} has a new name, {NEW_NAMES[old]!r}.", CDeprecationWarning, stacklevel=2)
        return bool(old_names)

    def value_set_for(self, key: str) -> bool:
        """Tell whether a user set *key*, under any spelling and in any layer."""
        self.finalize()
        return self._is_set(self._names.canonical(key))

    def unacted(self) -> list[str]:
        """Return the settings that a user set and that this version does not act on yet."""
        return sorted(name for name in SETTING_KEYS - ACTED_ON if self.value_set_for(name))

    def copy(self) -> Settings:
        """Return loaded settings with the same layers and changes of their own."""
        return self._with_layers(_built_in_defaults())

    def without_defaults(self) -> Settings:
        """Return settings that hold only what users set."""
        return self._with_layers({})

    def _with_layers(self, built_in: dict[str, Any]) -> Settings:
        self.finalize()
        twin = type(self)(self._changes, namespace=self._names.prefix)
        twin._source, twin._live, twin._extra = self._source, self._live, list(self._extra)
        twin._built_in = built_in
        twin._state = "loaded"
        return twin

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return ``{name: value}`` of what users set, or of everything; *censored* hides credentials (CONF-016)."""
        shown = self if with_defaults else self.without_defaults()
        table = {name: value for name, value in shown.items() if not name.startswith("_")}
        return filter_hidden_settings(table) if censored else table

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return `table` as lines ``name: value``."""
        return "\n".join(f"{name}: {value!r}" for name, value in self.table(with_defaults, censored).items())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._state}, {len(self._changes)} changed>"


# The documented base class (MOD-0298): code that asks what `app.conf` is gets the documented answer.
ConfigurationView.register(Settings)
