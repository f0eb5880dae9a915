"""Mappings that layer, objects that read as mappings, and collections of bounded size."""
from __future__ import annotations

import heapq
import time
from collections import OrderedDict as _OrderedDict
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from itertools import count
from queue import Empty
from typing import Any

from celery.local import Proxy

__all__ = (
    "AttributeDict",
    "AttributeDictMixin",
    "BufferMap",
    "ChainMap",
    "ConfigurationView",
    "DictAttribute",
    "Evictable",
    "LimitedSet",
    "Messagebuffer",
    "OrderedDict",
    "force_mapping",
    "lpmerge",
)


def force_mapping(m: Any) -> Any:
    """Return a mapping as it is, and any other object as a mapping of its attributes."""
    if isinstance(m, Proxy):
        m = m._get_current_object()
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: MutableMapping[Any, Any], R: Mapping[Any, Any]) -> MutableMapping[Any, Any]:  # noqa: N803 - documented
    """Put the items of ``R`` whose value is not None into ``L``, and return it."""
    for key, value in R.items():
        if value is not None:
            L[key] = value
    return L


class OrderedDict(_OrderedDict[Any, Any]):
    """The standard library's, under its documented path."""


class AttributeDictMixin:
    """Lets the items of a mapping be read and written as attributes."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index] # the class that this is mixed into is a mapping
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict[str, Any], AttributeDictMixin):
    """A dict whose items are attributes too."""


class DictAttribute(MutableMapping[str, Any]):
    """An object's attributes as a mapping; attributes can also be read and written directly.

    Args:
        obj: The object: a module, a class, an instance.
    """

    obj: Any = None

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __delitem__(self, key: str) -> None:
        delattr(self.obj, key)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def __len__(self) -> int:
        return len(dir(self.obj))


class ChainMap(MutableMapping[Any, Any]):
    """Mappings searched one after the other; what is written goes into the first.

    Args:
        maps: The mappings, the most important one first.
        kwargs: ``key_t``, a function that every key goes through.
    """

    key_t: Callable[[Any], Any] | None = None
    changes: MutableMapping[Any, Any]
    defaults: list[Mapping[Any, Any]]
    maps: list[Mapping[Any, Any]]

    def __init__(self, *maps: Any, **kwargs: Any) -> None:
        layers = list(maps or [{}])
        vars(self).update(
            key_t=kwargs.get("key_t"), maps=layers, changes=layers[0], defaults=layers[1:], _observers=[]
        )

    def add_defaults(self, d: Any) -> None:
        """Add a mapping, or the attributes of an object, after the first but before the other defaults."""
        d = force_mapping(d)
        self.defaults.insert(0, d)
        self.maps.insert(1, d)

    def bind_to(self, callback: Callable[..., None]) -> None:
        """Call ``callback`` with the arguments of every `update`."""
        vars(self)["_observers"].append(callback)

    def _key(self, key: Any) -> Any:
        return key if self.key_t is None else self.key_t(key)

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __getitem__(self, key: Any) -> Any:
        key = self._key(key)
        for layer in self.maps:
            try:
                return layer[key]
            except KeyError:
                continue
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __delitem__(self, key: Any) -> None:
        del self.changes[self._key(key)]

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(key for layer in reversed(self.maps) for key in layer))

    def __len__(self) -> int:
        return len(set().union(*self.maps))

    def __contains__(self, key: object) -> bool:
        key = self._key(key)
        return any(key in layer for layer in self.maps)

    def __bool__(self) -> bool:
        return any(self.maps)

    def clear(self) -> None:
        """Forget what was written."""
        self.changes.clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Write several items, and tell the observers."""
        self.changes.update(*args, **kwargs)
        for observer in vars(self)["_observers"]:
            observer(*args, **kwargs)

    def copy(self) -> ChainMap:
        """Return a chain with a copy of the first mapping and the same defaults."""
        return type(self)(dict(self.changes), *self.defaults, key_t=self.key_t)


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Settings: what was changed over layers of defaults, readable as items and attributes.

    Args:
        changes: What was set.
        defaults: Mappings to look in next, the first one first.
        keys: Functions that give other names under which a key may be stored.
        prefix: Put in front of every key that lacks it.
    """

    def __init__(
        self,
        changes: Mapping[str, Any],
        defaults: list[Mapping[str, Any]] | None = None,
        keys: Iterable[Callable[[str], str]] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(changes, *(defaults or []))
        vars(self).update(prefix=prefix.rstrip("_") + "_" if prefix else "", _keys=tuple(keys or ()))

    def _names(self, key: str) -> Iterator[str]:
        prefix = vars(self)["prefix"]
        names = [key] if not prefix or key.startswith(prefix) else [prefix + key, key]
        for name in names:
            yield name
            for rename in vars(self)["_keys"]:
                yield rename(name)

    def __getitem__(self, key: str) -> Any:
        for name in self._names(key):
            try:
                return super().__getitem__(name)
            except KeyError:
                continue
        return self.__missing__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.changes[next(self._names(key))] = value

    def __contains__(self, key: object) -> bool:
        contains = super().__contains__
        return isinstance(key, str) and any(contains(name) for name in self._names(key))

    def first(self, *keys: str) -> Any:
        """Return the value of the first of these settings that is not None, or None."""
        return next((value for value in map(self.get, keys) if value is not None), None)

    def swap_with(self, other: ConfigurationView) -> None:
        """Take over the layers of another view."""
        vars(self).update({name: vars(other)[name] for name in ("changes", "defaults", "maps", "key_t")})

    def copy(self) -> ConfigurationView:
        """Return a view with a copy of what was set and the same defaults."""
        own = vars(self)
        return type(self)(dict(self.changes), list(self.defaults), own["_keys"], own["prefix"])


class LimitedSet:
    """A set that forgets its oldest items: revoked ids, for instance.

    Args:
        maxlen: Items at most; 0 for no bound.
        expires: Seconds after which an item goes; 0 for never.
        data: First items: a mapping of items to times, another `LimitedSet`, or just items.
        minlen: So many items stay even when expired.
    """

    def __init__(self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0) -> None:
        self.maxlen = maxlen or 0
        self.expires = expires or 0
        self.minlen = minlen or 0
        if self.maxlen < 0 or self.minlen < 0 or self.expires < 0 or (self.maxlen and self.minlen > self.maxlen):
            raise ValueError(
                f"LimitedSet(maxlen={maxlen}, expires={expires}, minlen={minlen}): nothing may be negative, "
                "and minlen is at most maxlen"
            )
        self._order = count()
        self.clear()
        if data:
            self.update(data)

    def clear(self) -> None:
        """Forget everything."""
        # An item's entry in the heap is current if it is the very one in _entries; the others are left to be skipped.
        self._entries: dict[Any, tuple[float, int, Any]] = {}
        self._heap: list[tuple[float, int, Any]] = []

    def add(self, item: Any, now: float | None = None) -> None:
        """Add an item, at the (wall-clock) time ``now``; an item known already becomes as old as that."""
        self._insert(item, time.time() if now is None else now)
        if self.maxlen and len(self) > self.maxlen:
            self.purge()

    def _insert(self, item: Any, stamp: float) -> None:
        entry = (stamp, next(self._order), item)
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + 16:
            self._heap = sorted(self._entries.values())

    def update(self, other: Any) -> None:
        """Add the items of a `LimitedSet` or mapping with their times, or of any iterable with the current one."""
        if isinstance(other, LimitedSet):
            other = other.as_dict()
        if isinstance(other, Mapping):
            for item, stamp in other.items():
                self._insert(item, stamp["inserted"] if isinstance(stamp, Mapping) else stamp)
        else:
            now = time.time()
            for item in other:
                self._insert(item, now)
        self.purge()

    def discard(self, item: Any) -> None:
        """Remove an item, if it is there."""
        self._entries.pop(item, None)

    pop_value = discard

    def purge(self, now: float | None = None) -> None:
        """Forget what is expired or too much."""
        deadline = (time.time() if now is None else now) - self.expires
        while self.maxlen and len(self) > self.maxlen:
            self.pop()
        while self.expires and len(self) > self.minlen and self._oldest()[0] < deadline:
            self.pop()

    def _oldest(self) -> tuple[float, int, Any]:
        while self._entries.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0]

    def pop(self, default: Any = None) -> Any:
        """Remove and return the oldest item; ``default`` if there is none."""
        if not self._entries:
            return default
        item = self._oldest()[2]
        del self._entries[item]
        return item

    def as_dict(self) -> dict[Any, float]:
        """Return the items with their times."""
        return {item: stamp for item, (stamp, _, _) in self._entries.items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment] # as any mutable set

    def __iter__(self) -> Iterator[Any]:
        return (item for _, _, item in sorted(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.maxlen, self.expires, self.as_dict(), self.minlen)

    def __repr__(self) -> str:
        return f"<LimitedSet: {len(self)} items, maxlen={self.maxlen}, expires={self.expires}, minlen={self.minlen}>"


class Evictable:
    """Base of buffers that drop their oldest item when full."""

    Empty = Empty

    def evict(self) -> None:
        """Drop the oldest item."""
        raise NotImplementedError


class Messagebuffer(Evictable):
    """A queue of at most ``maxsize`` items (None for no bound) that drops the oldest."""

    def __init__(
        self, maxsize: int | None, iterable: Iterable[Any] | None = None, deque: Callable[..., Any] = deque
    ) -> None:
        self.maxsize = maxsize
        self.data: Any = deque(iterable or [], maxsize)

    def put(self, item: Any) -> None:
        """Add an item."""
        self.data.append(item)

    def extend(self, it: Iterable[Any]) -> None:
        """Add items."""
        self.data.extend(it)

    def take(self, *default: Any) -> Any:
        """Remove and return the oldest item; ``default`` if given, else `queue.Empty`, if there is none."""
        if self.data:
            return self.data.popleft()
        if default:
            return default[0]
        raise self.Empty

    def evict(self) -> None:
        """Drop the oldest item, if any."""
        self.take(None)

    def __iter__(self) -> Iterator[Any]:
        """Take the items one after the other."""
        while self.data:
            yield self.data.popleft()

    def __len__(self) -> int:
        return len(self.data)

    def __contains__(self, item: object) -> bool:
        return item in self.data

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


class BufferMap(OrderedDict, Evictable):
    """Queues by key, with at most ``maxsize`` items together; the queue used least recently drops first.

    Args:
        maxsize: Items at most, in all queues.
        iterable: First queues, as pairs of key and items.
        bufmaxsize: Items at most in one queue.
    """

    Buffer = Messagebuffer

    def __init__(
        self, maxsize: int, iterable: Iterable[tuple[Any, Iterable[Any]]] | None = None, bufmaxsize: int = 1000
    ) -> None:
        super().__init__()
        self.maxsize = maxsize
        self.bufmaxsize = bufmaxsize
        for key, items in iterable or ():
            self.extend(key, items)

    @property
    def total(self) -> int:
        """Items in all queues."""
        return sum(map(len, self.values()))

    def put(self, key: Any, item: Any) -> None:
        """Add an item to a queue."""
        self.extend(key, [item])

    def extend(self, key: Any, it: Iterable[Any]) -> None:
        """Add items to a queue."""
        if key not in self:
            self[key] = self.Buffer(self.bufmaxsize)
        self[key].extend(it)
        self.move_to_end(key)
        while self.maxsize and self.total > self.maxsize:
            self.evict()

    def take(self, key: Any, *default: Any) -> Any:
        """Remove and return the oldest item of a queue; ``default`` if given, else `queue.Empty`, if there is none."""
        buffer = self.get(key)
        if buffer:
            item = buffer.take()
            if not buffer:
                del self[key]
            return item
        if default:
            return default[0]
        raise self.Empty

    def evict(self) -> None:
        """Drop the oldest item of the queue used least recently."""
        self.take(next(iter(self)), None)
