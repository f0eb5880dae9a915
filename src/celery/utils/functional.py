"""Small functions about functions and sequences (API-113)."""
from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial, wraps
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = (
    "LRUCache",
    "arity_greater",
    "chunks",
    "dictfilter",
    "first",
    "firstmethod",
    "fun_accepts_kwargs",
    "fun_takes_argument",
    "head_from_fun",
    "is_list",
    "lazy",
    "lookahead",
    "mattrgetter",
    "maybe",
    "maybe_evaluate",
    "maybe_list",
    "memoize",
    "mlazy",
    "noop",
    "padlist",
    "regen",
    "seq_concat_item",
    "seq_concat_seq",
    "uniq",
)

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

# Flags of a code object: it takes *args, it takes **kwargs.
_VARARGS, _VARKEYWORDS = 0x04, 0x08


class LRUCache(OrderedDict[K, V]):
    """A dict of at most ``limit`` items that drops the least recently used one; safe to share between threads."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.mutex = threading.RLock()
        super().__init__()

    def __getitem__(self, key: K) -> V:
        with self.mutex:
            value = super().__getitem__(key)
            self.move_to_end(key)
            return value

    def __setitem__(self, key: K, value: V) -> None:
        with self.mutex:
            super().__setitem__(key, value)
            self.move_to_end(key)
            if self.limit and len(self) > self.limit:
                self.popitem(last=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.limit,), None, None, iter(list(self.items()))


def memoize(
    maxsize: int | None = None,
    keyfun: Callable[..., Any] | None = None,
    Cache: Callable[..., Any] = LRUCache,  # noqa: N803 - the documented name
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Keep the ``maxsize`` most recently used results of a function.

    Args:
        maxsize: None for no bound.
        keyfun: Makes the key from the arguments; by default the arguments are it.
        Cache: Called with ``limit=maxsize``, returns the store.

    Returns:
        A decorator. What it returns has ``clear()`` and ``original_func``.
    """

    def decorate(fun: Callable[..., T]) -> Callable[..., T]:
        cache = Cache(limit=maxsize)

        @wraps(fun)
        def cached(*args: Any, **kwargs: Any) -> T:
            key = keyfun(args, kwargs) if keyfun else (args, tuple(sorted(kwargs.items())))
            try:
                found: T = cache[key]
            except KeyError:
                found = cache[key] = fun(*args, **kwargs)
            return found

        cached.clear = cache.clear  # type: ignore[attr-defined] # functions take attributes
        cached.original_func = fun  # type: ignore[attr-defined] # functions take attributes
        return cached

    return decorate


class lazy:  # noqa: N801 - the documented name
    """A call to be made whenever the value is asked for."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._call = partial(fun, *args, **kwargs)

    def evaluate(self) -> Any:
        """Make the call."""
        return self._call()

    def __call__(self) -> Any:
        """Return the value."""
        return self.evaluate()

    def __str__(self) -> str:
        return str(self())

    def __repr__(self) -> str:
        return repr(self())

    def __eq__(self, other: object) -> bool:
        return bool(self() == other)

    def __hash__(self) -> int:
        return hash(self())


class mlazy(lazy):  # noqa: N801 - the documented name
    """A call that is made once, when its value is first asked for."""

    evaluated = False
    _value: Any = None

    def evaluate(self) -> Any:
        """Return the value, making the call the first time."""
        if not self.evaluated:
            self._value = super().evaluate()
            self.evaluated = True
        return self._value


def maybe_evaluate(value: Any) -> Any:
    """Return the value of a `lazy`, and anything else as it is."""
    return value.evaluate() if isinstance(value, lazy) else value


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


def is_list(
    obj: Any, scalars: tuple[type, ...] = (Mapping, str), iters: tuple[type, ...] = (Iterable,)
) -> bool:
    """Tell whether ``obj`` is iterable and neither text nor a mapping."""
    return isinstance(obj, iters) and not isinstance(obj, scalars)


def maybe_list(obj: Any, scalars: tuple[type, ...] = (Mapping, str)) -> Any:
    """Put a scalar into a list; leave None and iterables alone."""
    return obj if obj is None or is_list(obj, scalars) else [obj]


def maybe(typ: Callable[[Any], T], val: Any) -> T | None:
    """Call ``typ`` on ``val`` unless it is None."""
    return None if val is None else typ(val)


def dictfilter(d: Mapping[str, Any] | None = None, **kw: Any) -> dict[str, Any]:
    """Return the items, of a mapping or of the keywords, whose value is not None."""
    return {key: value for key, value in (kw if d is None else {**d, **kw}).items() if value is not None}


def first(predicate: Callable[[T], Any] | None, it: Iterable[T]) -> T | None:
    """Return the first item for which ``predicate`` holds (without one: that is not None), or None."""
    for item in it:
        if predicate(item) if predicate is not None else item is not None:
            return item
    return None


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a function that calls ``method`` on each of a list of objects, up to the first answer that is not None.

    Args:
        method: Name of the method. Objects may be promises; they are evaluated.
        on_call: Makes the call instead: ``on_call(bound_method, *args, **kwargs)``.
    """

    def matcher(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for obj in it:
            try:
                meth = getattr(maybe_evaluate(obj), method)
            except AttributeError:
                continue
            answer = on_call(meth, *args, **kwargs) if on_call else meth(*args, **kwargs)
            if answer is not None:
                return answer
        return None

    return matcher


def chunks(it: Iterable[T], n: int) -> Iterator[list[T]]:
    """Split ``it`` into lists of ``n`` items; the last may be shorter."""
    iterator = iter(it)
    while piece := list(islice(iterator, n)):
        yield piece


def lookahead(it: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Pair every item with the next; the last with None."""
    iterator = iter(it)
    try:
        current = next(iterator)
    except StopIteration:
        return
    for following in iterator:
        yield current, following
        current = following
    yield current, None


def padlist(container: Sequence[T], size: int, default: Any = None) -> list[T | Any]:
    """Return the first ``size`` items, filled up with ``default``."""
    return [*container[:size], *[default] * (size - len(container))]


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that collects attributes of an object in a dict, None for those that it lacks."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Yield each item once, in order of first appearance."""
    return iter(dict.fromkeys(it))


def seq_concat_item(seq: Sequence[T], item: T) -> Any:
    """Return ``seq`` plus one item, as a tuple if it is one and as a list otherwise."""
    return seq_concat_seq(seq, [item])


def seq_concat_seq(a: Sequence[T], b: Sequence[T]) -> Any:
    """Return both sequences in one, of the type of the first (list or tuple)."""
    return (*a, *b) if isinstance(a, tuple) else [*a, *b]


class _Regenerated(Sequence[T], Generic[T]):
    """An iterator that can be read again: items are taken from it as needed and kept."""

    def __init__(self, it: Iterable[T]) -> None:
        self._source = iter(it)
        self._taken: list[T] = []
        self._done = False

    def _take(self) -> Iterator[T]:
        for item in self._source:
            self._taken.append(item)
            yield item
        self._done = True

    @property
    def data(self) -> list[T]:
        """All items."""
        for _ in self._take():
            pass
        return self._taken

    def fully_consumed(self) -> bool:
        """Tell whether every item has been taken from the source."""
        return self._done

    def __iter__(self) -> Iterator[T]:
        position = 0
        while True:
            while position < len(self._taken):
                yield self._taken[position]
                position += 1
            for _ in self._take():
                break
            else:
                return

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            for _ in range(index + 1 - len(self._taken)):
                next(self._take(), None)
            return self._taken[index]
        return self.data[index]

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return next(iter(self), _Regenerated) is not _Regenerated

    def __eq__(self, other: object) -> bool:
        return self.data == (other.data if isinstance(other, _Regenerated) else other)

    __hash__ = None  # type: ignore[assignment] # as any mutable sequence

    def __add__(self, other: Iterable[T]) -> _Regenerated[T]:
        return _Regenerated(chain(self, other))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (self.data,)

    def __repr__(self) -> str:
        return f"<regen: {self._taken!r}{'' if self._done else ' and more'}>"


def regen(it: Iterable[T]) -> Sequence[T]:
    """Return ``it`` if it is a list or tuple; else a sequence that reads it as needed and remembers the items."""
    return it if isinstance(it, list | tuple | _Regenerated) else _Regenerated(it)


def _python_function(fun: Any) -> tuple[Any, bool]:
    """Find the function with a code object behind a callable; tell whether its first argument is given already."""
    if hasattr(fun, "__func__"):  # a method also shows the attributes of its function
        return _python_function(fun.__func__)[0], True
    if hasattr(fun, "__code__"):
        return fun, False
    if isinstance(fun, partial):
        return _python_function(fun.func)
    call = getattr(fun, "__init__" if isinstance(fun, type) else "__call__", None)
    function = getattr(call, "__func__", call)
    return (function, True) if hasattr(function, "__code__") else (None, False)


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Tell whether ``fun`` takes ``**kwargs``; what is not written in Python gets the benefit of the doubt."""
    function, _ = _python_function(fun)
    return function is None or bool(function.__code__.co_flags & _VARKEYWORDS)


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Tell whether ``fun`` takes an argument ``name``, or at least ``position`` positional ones."""
    function, bound = _python_function(fun)
    if function is None:
        return True
    code = function.__code__
    positional = code.co_varnames[bound : code.co_argcount]
    named = code.co_varnames[bound : code.co_argcount + code.co_kwonlyargcount]
    return bool(
        code.co_flags & _VARKEYWORDS
        or name in named
        or (position is not None and (code.co_flags & _VARARGS or len(positional) >= position))
    )


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Tell whether ``fun`` takes more than ``n`` positional arguments."""
    function, bound = _python_function(fun)
    if function is None:
        return True
    code = function.__code__
    return bool(code.co_flags & _VARARGS) or code.co_argcount - bound > n


def _parameters(function: Any, skip: int) -> Iterator[str]:
    code = function.__code__
    names, positional, keyword = code.co_varnames, code.co_argcount, code.co_kwonlyargcount
    optional_from = positional - len(function.__defaults__ or ())
    for index in range(skip, positional):
        yield names[index] if index < optional_from else f"{names[index]}=None"
        if index == code.co_posonlyargcount - 1:
            yield "/"
    rest = positional + keyword
    if code.co_flags & _VARARGS:
        yield f"*{names[rest]}"
        rest += 1
    elif keyword:
        yield "*"
    for name in names[positional : positional + keyword]:
        yield f"{name}=None" if name in (function.__kwdefaults__ or {}) else name
    if code.co_flags & _VARKEYWORDS:
        yield f"**{names[rest]}"


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., None]:
    """Return a function of the same name and parameters that does nothing: calling it checks a call (API-027).

    A compiled head checks a call in a tenth of the time of ``inspect.Signature.bind``.

    Args:
        fun: A function, method or other callable.
        bound: The first parameter is filled in by someone else (``self`` of a bound task).
    """
    function, has_self = _python_function(fun)
    if function is None or isinstance(fun, partial):
        return noop
    skip = min(bound + has_self, function.__code__.co_argcount)
    head: Callable[..., None] = eval(f"lambda {', '.join(_parameters(function, skip))}: None", {})  # noqa: S307 - made of identifiers of compiled code
    head.__name__ = head.__qualname__ = getattr(fun, "__name__", type(fun).__name__)
    return head
