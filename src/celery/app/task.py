"""The task: what users write, call and subclass (API-023..043).

A task is instantiated once per process. Its `run` is the body; everything about one call is in its `request`. Calling
the instance runs the body here; `delay`, `apply_async` and their async twins send a message; `apply` runs the whole
attempt here, as a worker would (`celery.app.apply`).

This file is long because it is the documented surface of one class; the mechanisms live elsewhere: messages in
`celery.app.amqp`, attempts in `celery.app.trace`, automatic retries in `celery.app.autoretry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, TypeVarTuple, cast, overload

from celery import _state, exceptions
from celery.app.annotations import resolve_all as resolve_annotations
from celery.app.context import Context
from celery.app.registry import _unpickle_task_v2
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry
from celery.local import class_property
from celery.utils.imports import instantiate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from celery.app.base import Celery
    from celery.canvas.maps import chunks
    from celery.canvas.signature import Signature
    from celery.result import AsyncResult, EagerResult

__all__ = ("Context", "Task")

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
#: Parameters of a body, for checking `args=(...)` and the arguments of partial signatures.
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
Rest = TypeVarTuple("Rest")

#: Attributes that are options of every call when set on the class.
EXECUTION_OPTIONS = (
    "queue",
    "routing_key",
    "exchange",
    "exchange_type",
    "priority",
    "expires",
    "serializer",
    "delivery_mode",
    "compression",
    "time_limit",
    "soft_time_limit",
    "immediate",
    "mandatory",
)

#: Attribute -> the setting that fills it on binding (API-024).
_FROM_CONFIG = (
    ("serializer", "task_serializer"),
    ("rate_limit", "task_default_rate_limit"),
    ("priority", "task_default_priority"),
    ("time_limit", "task_time_limit"),
    ("soft_time_limit", "task_soft_time_limit"),
    ("track_started", "task_track_started"),
    ("acks_late", "task_acks_late"),
    ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
    ("acks_on_failure", "task_acks_on_failure"),
    ("acks_on_timeout", "task_acks_on_timeout"),
    ("reject_on_worker_lost", "task_reject_on_worker_lost"),
    ("retry_on_worker_lost", "task_retry_on_worker_lost"),
    ("ignore_result", "task_ignore_result"),
    ("store_eager_result", "task_store_eager_result"),
    ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
)


class Task(Generic[P, R]):
    """Base of all tasks. `Task[P, R]` takes the parameters and the value of its body."""

    MaxRetriesExceededError = MaxRetriesExceededError
    #: kombu's, so that handlers written for it catch ours; kombu is imported when it is asked for.
    OperationalError = class_property(lambda _: exceptions.OperationalError)

    #: Import path of the class of worker requests, and of the message handler's factory.
    Strategy: Any = "celery.worker.strategy:default"
    Request: Any = "celery.worker.request:Request"

    name: str = cast("str", None)
    #: Check arguments when calling; None: as the app (`strict_typing`).
    typing: bool | None = None
    #: None: as often as it asks.
    max_retries: int | None = 3
    #: Seconds.
    default_retry_delay: float = 3 * 60
    rate_limit: str | float | None = None
    ignore_result: bool | None = None
    #: Remember the tasks that it sends in `request.children`.
    trail: bool = True
    send_events: bool = True
    store_errors_even_if_ignored: bool | None = None
    store_eager_result: bool | None = None
    serializer: str | None = None
    compression: str | None = None
    #: Seconds.
    time_limit: float | None = None
    soft_time_limit: float | None = None
    track_started: bool | None = None
    acks_late: bool | None = None
    acks_on_failure_or_timeout: bool | None = None
    acks_on_failure: bool | None = None
    acks_on_timeout: bool | None = None
    reject_on_worker_lost: bool | None = None
    retry_on_worker_lost: bool | None = None
    #: Exceptions that are expected: logged without traceback, at INFO.
    throws: tuple[type[BaseException], ...] = ()
    expires: float | datetime | str | None = None
    priority: int | None = None
    #: Longest repr of a value in logs and events.
    resultrepr_maxsize: int = 1024
    #: Not registered itself.
    abstract: bool = True

    autoretry_for: Sequence[type[BaseException]] = ()
    dont_autoretry_for: Sequence[type[BaseException]] = ()
    retry_kwargs: Mapping[str, Any] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True

    #: Whether the body is a coroutine function; set on binding.
    is_async: bool = False

    from_config: ClassVar[tuple[tuple[str, str], ...]] = _FROM_CONFIG
    _app: ClassVar[Celery | None] = None
    __bound__: ClassVar[bool] = False
    _backend: Any = None
    _exec_options: dict[str, Any] | None = None
    _check_arguments: Callable[..., Any] | None = None
    #: Gives models among the arguments the form in which they travel (`celery.app.pydantic`).
    _dump_call: Callable[[Sequence[Any], Mapping[str, Any]], tuple[list[Any], dict[str, Any]]] | None = None

    # -- binding

    @classmethod
    def bind(cls, app: Celery) -> Celery:
        """Belong to `app`: unset attributes are filled from its settings, annotations applied."""
        already, cls.__bound__ = cls.__bound__, True
        cls._app = app
        for attribute, setting in cls.from_config:
            if getattr(cls, attribute, None) is None:
                setattr(cls, attribute, app.conf[setting])
        if not already:
            cls.annotate()
        cls._exec_options = None
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Called when the task is bound to an application. For subclasses."""

    @classmethod
    def _get_app(cls) -> Celery:
        if cls._app is None:
            cls._app = _state.get_current_app()
        if not cls.__bound__:
            cls.bind(cls._app)
        return cls._app

    app = class_property(lambda cls: cls._get_app(), lambda cls, app: cls.bind(app))

    @classmethod
    def annotate(cls) -> None:
        """Apply `task_annotations` (SET-168)."""
        for annotation in resolve_annotations(cls._get_app().annotations, cls):
            for key, value in annotation.items():
                if key.startswith("@"):
                    cls.add_around(key[1:], value)
                else:
                    setattr(cls, key, value)

    @classmethod
    def add_around(cls, attr: str, around: Callable[[Any], Any]) -> None:
        """Decorate an attribute."""
        original = getattr(cls, attr)
        # A body that came from a decorator is a staticmethod, which an outer function must be too.
        wrapped = around(original)
        setattr(cls, attr, staticmethod(wrapped) if isinstance(cls.__dict__.get(attr), staticmethod) else wrapped)

    def __repr__(self) -> str:
        return f"<@task: {self.name or '(unnamed) ' + self.__name__} of {self._get_app()!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_task_v2, (self.name, type(self).__module__)

    @property
    def __name__(self) -> str:
        return type(self).__name__  # type: ignore[return-value]  # the class's name, not this property

    # -- the body

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body of the task. Subclasses and decorators replace it."""
        raise NotImplementedError(f"Task {self.name or type(self).__name__} has no body: define its run().")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here, in a request of its own."""
        self.push_request(args=args, kwargs=kwargs)
        try:
            return cast("R", self.run(*args, **kwargs))
        finally:
            self.pop_request()

    # -- the request

    @property
    def request(self) -> Context:
        """The call that runs here; outside of one, an empty Context."""
        found = _state.request_of(self)
        return found if found is not None else Context()

    @property
    def request_stack(self) -> _state.RequestStack:
        """The calls that run here, innermost last; for integrations that push their own."""
        return _state.RequestStack(self)

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Begin a call."""
        _state.push_frame(self, Context(*args, **kwargs))

    def pop_request(self) -> None:
        """End the latest call."""
        _state.pop_frame()

    @property
    def backend(self) -> Any:
        """The result backend."""
        return self._backend if self._backend is not None else self._get_app().backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    # -- calling

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send the task with these arguments."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for coroutines: the loop is not blocked."""
        return await self.aapply_async(args, kwargs)

    # A tuple of arguments is checked against the body's parameters; a list, or with keywords beside it, is not.
    @overload
    def apply_async(self: Callable[[], R], args: tuple[()], kwargs: None = None, **options: Any) -> AsyncResult[R]: ...
    @overload
    def apply_async(self: Callable[[A], R], args: tuple[A], kwargs: None = None, **options: Any) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self: Callable[[A, B], R], args: tuple[A, B], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self: Callable[[A, B, C], R], args: tuple[A, B, C], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self: Callable[[A, B, C, D], R], args: tuple[A, B, C, D], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self: Callable[[*Rest], R], args: tuple[*Rest], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any], *more: Any, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    def apply_async(
        self, args: list[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *more: Any, **options: Any
    ) -> AsyncResult[R]: ...

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """Send the task.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            task_id: the id; a new UUID4 when not given.
            producer: kombu's, to publish through instead of the application's own connection.
            link: signature, or list of them, to send on success.
            link_error: the same for failure.
            shadow: name to show in logs and monitors.
            options: countdown, eta, expires (seconds, datetime or ISO text), queue, exchange, routing_key, priority,
                serializer, compression, headers, time_limit, soft_time_limit, ignore_result, retry, retry_policy and
                the rest of API-026; other names become message properties.

        Raises:
            TypeError: the arguments do not fit the task's signature (unless `typing` is off).
            ValueError: the soft time limit is greater than the hard one.
            EncodeError: an argument does not serialize.
            OperationalError: the broker cannot be reached.
        """
        app = self._get_app()
        args, kwargs, options = self._prepare_call(app, args, kwargs, shadow, options)
        if app.conf.task_always_eager:
            apply_as_if_sent = app._load("celery.app.apply:apply_as_if_sent")
            return apply_as_if_sent(self, args, kwargs, task_id, link, link_error, options)  # type: ignore[no-any-return]  # loaded by its path
        return app.send_task(
            self.name,
            args,
            kwargs,
            task_id=task_id,
            producer=producer,
            link=link,
            link_error=link_error,
            result_cls=self.AsyncResult,
            task_type=self,
            **options,
        )

    @overload
    async def aapply_async(
        self: Callable[[], R], args: tuple[()], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self: Callable[[A], R], args: tuple[A], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self: Callable[[A, B], R], args: tuple[A, B], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self: Callable[[A, B, C], R], args: tuple[A, B, C], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self: Callable[[A, B, C, D], R], args: tuple[A, B, C, D], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self: Callable[[*Rest], R], args: tuple[*Rest], kwargs: None = None, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any], *more: Any, **options: Any
    ) -> AsyncResult[R]: ...
    @overload
    async def aapply_async(
        self, args: list[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *more: Any, **options: Any
    ) -> AsyncResult[R]: ...

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> AsyncResult[R]:
        """`apply_async` for coroutines: the loop is not blocked, and what many send at once leaves in one batch."""
        app = self._get_app()
        args, kwargs, options = self._prepare_call(app, args, kwargs, shadow, options)
        if app.conf.task_always_eager:
            import asyncio

            apply_as_if_sent = app._load("celery.app.apply:apply_as_if_sent")
            return await asyncio.to_thread(apply_as_if_sent, self, args, kwargs, task_id, link, link_error, options)
        return await app.asend_task(
            self.name,
            args,
            kwargs,
            task_id=task_id,
            link=link,
            link_error=link_error,
            result_cls=self.AsyncResult,
            task_type=self,
            **options,
        )

    def _prepare_call(
        self, app: Celery, args: Any, kwargs: Any, shadow: str | None, options: dict[str, Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Check the arguments and fill in the options that the task itself has."""
        args = args if args is not None else ()
        if app.strict_typing if self.typing is None else self.typing:
            (self._check_arguments or self._checker())(*args, **(kwargs or {}))
        options = self._fill_options(options)
        shadow = shadow or self.shadow_name(args, kwargs, options)
        if shadow:
            options["shadow"] = shadow
        if self._dump_call is not None and (options.get("serializer") or app.conf.task_serializer) != "pickle":
            args, kwargs = self._dump_call(args, kwargs or {})
        return args, kwargs, options

    def _fill_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a call, with those that the task itself has."""
        if self._exec_options is None:
            type(self)._exec_options = {
                name: value for name in EXECUTION_OPTIONS if (value := getattr(self, name, None)) is not None
            }
        options = {**(self._exec_options or {}), **options}
        soft, hard = options.get("soft_time_limit"), options.get("time_limit")
        if soft or hard:
            _check_limits(self.name, soft, hard)
        if options.get("ignore_result") is None:
            options["ignore_result"] = self.ignore_result
        return options

    def _calls_are_alike(self) -> bool:
        """Whether a call is nothing but its arguments and options: no method on its way was replaced."""
        cls: Any = type(self)
        return self._dump_call is None and (cls.apply_async, cls.shadow_name, cls.AsyncResult) == self._plain

    def _should_check(self) -> bool:
        return self._get_app().strict_typing if self.typing is None else self.typing

    def _checker(self) -> Callable[..., Any]:
        """What raises TypeError for arguments that the body does not take."""
        check = self._check_arguments
        if check is None:
            check = type(self)._check_arguments = self._get_app().type_checker(getattr(self, "_orig_run", self.run))
        return check

    def shadow_name(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> str | None:
        """A name to show instead of the task's, decided per call. For subclasses."""

    @overload
    def apply(self: Callable[[], R], args: tuple[()], kwargs: None = None, **options: Any) -> EagerResult[R]: ...
    @overload
    def apply(self: Callable[[A], R], args: tuple[A], kwargs: None = None, **options: Any) -> EagerResult[R]: ...
    @overload
    def apply(self: Callable[[A, B], R], args: tuple[A, B], kwargs: None = None, **options: Any) -> EagerResult[R]: ...
    @overload
    def apply(
        self: Callable[[A, B, C], R], args: tuple[A, B, C], kwargs: None = None, **options: Any
    ) -> EagerResult[R]: ...
    @overload
    def apply(
        self: Callable[[A, B, C, D], R], args: tuple[A, B, C, D], kwargs: None = None, **options: Any
    ) -> EagerResult[R]: ...
    @overload
    def apply(
        self: Callable[[*Rest], R], args: tuple[*Rest], kwargs: None = None, **options: Any
    ) -> EagerResult[R]: ...
    @overload
    def apply(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any], *more: Any, **options: Any
    ) -> EagerResult[R]: ...
    @overload
    def apply(
        self, args: list[Any] | None = None, kwargs: Mapping[str, Any] | None = None, *more: Any, **options: Any
    ) -> EagerResult[R]: ...

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        link: Any = None,
        link_error: Any = None,
        task_id: str | None = None,
        retries: int | None = None,
        throw: bool | None = None,
        logfile: str | None = None,
        loglevel: int | None = None,
        headers: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> EagerResult[R]:
        """Run the whole attempt here, as a worker would, retries at once (API-030).

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            link: signatures to apply on success.
            link_error: signatures to apply on failure.
            task_id: the id.
            retries: how often it was retried so far.
            throw: let the task's exception out; default `task_eager_propagates`.
            logfile: for `request.logfile`.
            loglevel: for `request.loglevel`.
            headers: the caller's own.
            options: other options of `apply_async`.
        """
        return self._get_app()._load("celery.app.apply:apply")(  # type: ignore[no-any-return]  # loaded by its path
            self,
            args,
            kwargs,
            link=link,
            link_error=link_error,
            task_id=task_id,
            retries=retries,
            throw=throw,
            logfile=logfile,
            loglevel=loglevel,
            headers=headers,
            **options,
        )

    # -- signatures

    def signature(
        self, args: Any = None, kwargs: Any = None, options: Any = None, *more: Any, **named: Any
    ) -> Signature[R]:
        """A Signature of this task: its arguments, and options by name, as of `celery.signature`."""
        app = self._get_app()
        cls = app._load("celery.canvas.signature:Signature")
        if more or named:
            named.setdefault("app", app)
            return cls(self, args, kwargs, options, *more, **named)  # type: ignore[no-any-return]  # loaded by its path
        return cls(self, args, kwargs, options, app=app)  # type: ignore[no-any-return]  # loaded by its path

    subtask = signature

    # All arguments, or all but the first ones, which the call will bring (API-077), or only some keywords.
    @overload
    def s(self: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Signature[R]: ...
    @overload
    def s(self: Callable[Concatenate[A, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[R]: ...
    @overload
    def s(self: Callable[Concatenate[A, B, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[R]: ...
    @overload
    def s(self: Callable[Concatenate[A, B, C, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[R]: ...
    @overload
    def s(self: Callable[Concatenate[A, B, C, D, Q], R], *args: Q.args, **kwargs: Q.kwargs) -> Signature[R]: ...
    @overload
    def s(self, **kwargs: Any) -> Signature[R]: ...

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """A signature with these arguments, all or some."""
        return self.signature(args, kwargs)

    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """An immutable signature with these arguments: results of earlier steps are not added."""
        return self.signature(args, kwargs, immutable=True)

    def signature_from_request(
        self,
        request: Context | None = None,
        args: Any = None,
        kwargs: Any = None,
        queue: str | None = None,
        **extra_options: Any,
    ) -> Signature[R]:
        """A signature that sends a request again: same id, limits, workflow and destination (API-035)."""
        request = self.request if request is None else request
        options = {**request.as_execution_options(), **extra_options}
        info = request.delivery_info or {}
        if queue:
            options["queue"] = queue
        elif info.get("exchange") or info.get("routing_key"):
            # Through the default exchange the routing key names the queue.
            if info.get("exchange"):
                options.setdefault("exchange", info["exchange"])
                options.setdefault("routing_key", info.get("routing_key"))
            else:
                options.setdefault("queue", info["routing_key"])
        return self.signature(
            request.args if args is None else args, request.kwargs if kwargs is None else kwargs, options
        )

    subtask_from_request = signature_from_request

    def chunks(self, it: Any, n: int) -> chunks:
        """A group of tasks that each call this one with up to `n` lists of arguments (CANVAS-065)."""
        return self._get_app()._load("celery.canvas.maps:chunks")(self.s(), it, n, app=self.app)  # type: ignore[no-any-return]  # loaded by its path

    def map(self, it: Any) -> Signature[list[R]]:
        """A task that calls this one with each item, and returns the list of values (CANVAS-064)."""
        return self._get_app()._load("celery.canvas.maps:xmap")(self.s(), it, app=self.app)  # type: ignore[no-any-return]  # loaded by its path

    def starmap(self, it: Any) -> Signature[list[R]]:
        """A task that calls this one with each list of arguments, and returns the list of values (CANVAS-064)."""
        return self._get_app()._load("celery.canvas.maps:xstarmap")(self.s(), it, app=self.app)  # type: ignore[no-any-return]  # loaded by its path

    # -- retries

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Try again later, under the same id (API-032..034). Ends the attempt by raising Retry.

        Args:
            args: new positional arguments; those of this call when None.
            kwargs: new keyword arguments.
            exc: what to raise when the limit is reached; the exception being handled is its cause.
            throw: False returns the Retry instead of raising it.
            eta: when, aware.
            countdown: in how many seconds; default `default_retry_delay`.
            max_retries: for this attempt only; default the task's.
            options: of `apply_async`, for the new message.

        Raises:
            Retry: unless `throw` is False.
            Reject: the message could not be sent.
            MaxRetriesExceededError, or `exc`: it was retried `max_retries` times already.
        """
        import sys

        request = self.request
        handled = sys.exc_info()[1]
        if request.called_directly:
            # Called as a function: there is nothing to try again.
            raise _caused(exc or Retry("Task can be retried", None), handled)
        limit = self.max_retries if max_retries is None else max_retries
        if limit is not None and request.retries + 1 > limit:
            # Without `exc` it is this error even where another is being handled: tasks catch it around `retry()`.
            raise _caused(exc, handled) if exc else self.MaxRetriesExceededError(
                f"Can't retry {self.name}[{request.id}] args:{tuple(request.args or ())} kwargs:{request.kwargs}",
                task_args=request.args,
                task_kwargs=request.kwargs,
            )
        if not eta and countdown is None:
            countdown = self.default_retry_delay
        retry_arguments = self._get_app()._load("celery.app.autoretry:retry_arguments")
        args, kwargs = retry_arguments(self, request, args, kwargs)
        signature = self.signature_from_request(
            request, args, kwargs, countdown=countdown, eta=eta, retries=request.retries + 1, **options
        )
        when = countdown if countdown is not None else eta
        retry = Retry(exc=exc, when=when, is_eager=request.is_eager, sig=signature)
        if not request.is_eager:
            try:
                signature.apply_async(producer=request.outbox)
            except Exception as failure:
                raise Reject(failure, requeue=False) from failure
        if throw:
            raise retry from exc or handled
        return retry

    # -- inside the body

    def replace(self, sig: Signature[Any]) -> Any:
        """Have another signature run in place of this task: same id, same place in workflows (CANVAS-070..072).

        Returns:
            In eager mode the replacement's value, which is to be returned.

        Raises:
            Ignore: sent; let it out of the body.
            ImproperlyConfigured: the signature is part of a chord, or an empty chain.
        """
        return self._get_app()._load("celery.canvas.replacing:replace")(self, sig)

    def add_to_chord(self, sig: Signature[Any], lazy: bool = False) -> Any:
        """Send another member of the header that this task is in (CANVAS-073); its result, or itself when `lazy`."""
        return self._get_app()._load("celery.canvas.replacing:add_to_chord")(self, sig, lazy)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a custom state of the running task, at once (API-036)."""
        request = self.request
        announce = request.get("before_update")
        if announce is not None:
            announce()
        self.backend.store_result(task_id or request.id, meta, state, request=request, **kwargs)

    def send_event(self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any) -> None:
        """Send an event about the running task to monitors."""
        app = self._get_app()
        policy = app.conf.task_publish_retry_policy if retry_policy is None else retry_policy
        request = self.request
        with app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            dispatcher.send(type_, uuid=request.id, retry=retry, retry_policy=policy, **fields)

    def add_trail(self, result: Any) -> Any:
        """Remember a result as a child of the running task."""
        if self.trail:
            self.request.children.append(result)
        return result

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AsyncResult[R]:  # noqa: N802 - the documented name
        """The result of a call of this task."""
        made = self._get_app().AsyncResult(task_id, backend=self.backend, task_name=self.name, **kwargs)
        return cast("AsyncResult[R]", made)

    # -- hooks (API-038); all run in the process that runs the task

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Before the body."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """After a success."""

    def on_retry(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The attempt will be tried again."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """After a failure."""

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """After success or failure."""

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Called by `replace` with the replacement."""
        if self.request.is_eager:
            return sig.apply().get(disable_sync_subtasks=False)
        sig.apply_async(producer=self.request.outbox)
        raise Ignore("Replaced by new task")

    #: As they are here: integrations put others in their place, in this very class.
    _plain: Any = (apply_async, shadow_name, AsyncResult)

    def start_strategy(self, app: Celery, consumer: Any, **kwargs: Any) -> Any:
        """The message handler that a worker uses for this task."""
        return instantiate(self.Strategy, self, app, consumer, **kwargs)


def _caused(exc: BaseException, handled: BaseException | None) -> BaseException:
    """An exception with the one that is being handled as its cause."""
    if handled is not None and exc is not handled:
        exc.__cause__ = handled
    return exc


def _check_limits(name: str, soft: Any, hard: Any) -> None:
    for option, limit in (("soft_time_limit", soft), ("time_limit", hard)):
        if limit is not None and not isinstance(limit, (int, float)):
            raise TypeError(f"{option} of task {name} is {limit!r}: it must be a number of seconds.")
    if soft and hard and soft > hard:
        raise ValueError(
            f"soft_time_limit ({soft} s) of task {name} must not be greater than its time_limit ({hard} s)."
        )
