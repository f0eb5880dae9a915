"""The request: what a task may know about the call that runs it (API-044..046)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Headers of protocol 2 (wire.md 1.2): in `request`, but not in `request.headers`, which has the caller's own only.
STANDARD_HEADERS = frozenset(
    "lang task id shadow eta expires group group_index retries timelimit root_id parent_id argsrepr kwargsrepr origin "
    "ignore_result replaced_task_nesting stamped_headers stamps compression redelivered meth taskset utc "
    "x-delivery-count".split()
)

#: Options of `apply_async` that send a request on as it was, by their names here.
_EXECUTION_OPTIONS = (
    ("task_id", "id"),
    ("root_id", "root_id"),
    ("parent_id", "parent_id"),
    ("group_id", "group"),
    ("group_index", "group_index"),
    ("shadow", "shadow"),
    ("chord", "chord"),
    ("chain", "chain"),
    ("link", "callbacks"),
    ("link_error", "errbacks"),
    ("expires", "expires"),
    ("soft_time_limit", "soft_time_limit"),
    ("time_limit", "time_limit"),
    ("headers", "headers"),
    ("retries", "retries"),
    ("reply_to", "reply_to"),
    ("replaced_task_nesting", "replaced_task_nesting"),
    ("origin", "origin"),
)


class Context:
    """Attributes of a call. What nobody set has the value of the class."""

    args: Any = None
    argsrepr: str | None = None
    callbacks: Any = None
    called_directly: bool = True
    chain: Any = None
    chord: Any = None
    correlation_id: str | None = None
    delivery_info: Any = None
    errbacks: Any = None
    eta: Any = None
    expires: Any = None
    group: str | None = None
    group_index: int | None = None
    headers: dict[str, Any] | None = None
    hostname: str | None = None
    id: Any = None
    ignore_result: bool | None = None
    is_eager: bool = False
    kwargs: Any = None
    kwargsrepr: str | None = None
    lang: str | None = None
    logfile: str | None = None
    loglevel: int | None = None
    origin: str | None = None
    parent_id: str | None = None
    properties: Any = None
    redelivered: bool = False
    replaced_task_nesting: int = 0
    reply_to: str | None = None
    retries: int = 0
    root_id: str | None = None
    shadow: str | None = None
    stamped_headers: Any = None
    stamps: Any = None
    task: str | None = None
    taskset: str | None = None
    timelimit: Any = None
    utc: bool = True

    #: What the attempt has sent so far; see `celery.app.outcome.Outbox`. None outside a worker.
    outbox: Any = None
    _children: list[Any] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.update(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As of a dict."""
        self.__dict__.update(*args, **kwargs)

    def clear(self) -> None:
        """Back to the values of an empty call."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, or `default`."""
        return getattr(self, key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __repr__(self) -> str:
        return f"<Context: {self.__dict__!r}>"

    @property
    def children(self) -> list[Any]:
        """Results of the tasks that this call has sent."""
        if self._children is None:
            self._children = []
        return self._children

    @children.setter
    def children(self, value: list[Any] | None) -> None:
        self._children = value

    @property
    def time_limit(self) -> float | None:
        """The hard limit of this call, in seconds."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """The soft limit of this call, in seconds."""
        return self.timelimit[1] if self.timelimit else None

    def as_execution_options(self) -> dict[str, Any]:
        """Options for `apply_async` that send this call again: the same identity, limits and workflow (API-032)."""
        options = {option: getattr(self, name) for option, name in _EXECUTION_OPTIONS}
        headers = options["headers"]
        if headers:
            # What the broker's dead-lettering added must not travel on (wire.md 1.2).
            options["headers"] = {name: value for name, value in headers.items() if not _is_death_header(name)} or None
        if self.stamped_headers:
            options["stamped_headers"] = self.stamped_headers
            options.update(self.stamps or {})
        if self.ignore_result is not None:
            options["ignore_result"] = self.ignore_result
        priority = (self.delivery_info or {}).get("priority")
        if priority is not None:
            options["priority"] = priority
        return options


def _is_death_header(name: str) -> bool:
    return name == "x-death" or name.startswith(("x-first-death-", "x-last-death-"))


def custom_headers(headers: Mapping[str, Any]) -> dict[str, Any] | None:
    """The caller's own among message headers, or None."""
    if STANDARD_HEADERS.issuperset(headers):  # nearly always, and a tenth of the time
        return None
    return {name: value for name, value in headers.items() if name not in STANDARD_HEADERS}
