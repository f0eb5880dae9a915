"""The application (API-005..018): settings, tasks, and the way to the broker and the results.

Creating one connects and imports nothing; what it needs is made on first use. `finalize` brings tasks and settings
together, in whatever order they came. The file is long because it is the documented surface of one class; it delegates.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from celery import _state, signals
from celery.app import annotations as _annotations
from celery.app.clock import LamportClock
from celery.app.config import Settings
from celery.app.registration import Registration
from celery.app.registry import TaskRegistry
from celery.app.sending import prepare
from celery.exceptions import ImproperlyConfigured
from celery.loaders import get_loader_cls
from celery.utils.dispatch import Signal
from celery.utils.functional import first, head_from_fun
from celery.utils.imports import gen_task_name, instantiate, symbol_by_name
from celery.utils.nodenames import anon_nodename
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
    from types import TracebackType

    from celery.app.amqp import AMQP
    from celery.app.bulk import OnError
    from celery.app.decorators import BoundTaskDecorator, TaskDecorator
    from celery.app.publisher import Publisher
    from celery.app.task import Task
    from celery.backends.base import Backend
    from celery.canvas.signature import Signature
    from celery.loaders.base import BaseLoader
    from celery.result import AsyncResult

    # Inside the class `Task` is the application's own.
    AnyTask = Task[..., Any]

__all__ = ("Celery",)

P = ParamSpec("P")
R = TypeVar("R")


class Celery:
    """A Celery application: the documented surface of one class, hence the length of this file; it delegates.

    Args:
        main: name to use instead of `__main__` in task names.
        loader, backend, amqp, events, log, control, tasks, task_cls: classes (or import paths) to use instead of ours.
        set_as_current: make it this thread's current application.
        broker, include: short for the settings broker_url and include; `backend` is short for result_backend.
        changes: more settings.
        config_source: as for `config_from_object`.
        fixups: import paths of framework fixups.
        autofinalize: finalize when tasks are first needed; else only an explicit `finalize()` does.
        namespace: prefix of setting names in the configuration source.
        strict_typing: check arguments when calling tasks.
        config_source_silent: a configuration source that is missing is no error.
        settings: any other keyword is a setting.
    """

    amqp_cls: Any = "celery.app.amqp:AMQP"
    backend_cls: Any = None
    events_cls: Any = "celery.app.events:Events"
    loader_cls: Any = None
    log_cls: Any = "celery.app.log:Logging"
    control_cls: Any = "celery.app.control:Control"
    task_cls: Any = "celery.app.task:Task"
    registry_cls: Any = TaskRegistry
    builtin_fixups: Any = frozenset({"celery.fixups.django:fixup", "celery.fixups.sentry:fixup"})

    IS_WINDOWS = sys.platform == "win32"
    IS_macOS = sys.platform == "darwin"
    SYSTEM = "Windows" if IS_WINDOWS else sys.platform.capitalize()

    main: str | None = None
    steps: Any = None

    def __init__(
        self,
        main: str | None = None,
        loader: Any = None,
        backend: Any = None,
        amqp: Any = None,
        events: Any = None,
        log: Any = None,
        control: Any = None,
        set_as_current: bool = True,
        tasks: Any = None,
        broker: Any = None,
        include: Sequence[str] | None = None,
        changes: Mapping[str, Any] | None = None,
        config_source: Any = None,
        fixups: Any = None,
        task_cls: Any = None,
        autofinalize: bool = True,
        namespace: str | None = None,
        strict_typing: bool = True,
        config_source_silent: bool = False,
        **settings: Any,
    ) -> None:
        self.main = main
        self.amqp_cls = amqp or self.amqp_cls
        self.events_cls = events or self.events_cls
        self.loader_cls = os.environ.get("CELERY_LOADER") or loader or self.loader_cls or "app"
        self.log_cls = log or self.log_cls
        self.control_cls = control or self.control_cls
        self.task_cls = task_cls or self.task_cls
        self.namespace = namespace
        self.strict_typing = strict_typing
        self.autofinalize = autofinalize
        self.set_as_current = set_as_current
        self.finalized = False
        #: The module that created the application: the embedded store is beside its top-level package.
        self.origin: str = sys._getframe(1).f_globals.get("__name__", "__main__")
        self.user_options: dict[str, set[Any]] = {name: set() for name in ("worker", "beat", "events", "preload")}
        self.steps = {"worker": set(), "consumer": set()}

        self._config_source = config_source
        self._config_source_silent = config_source_silent
        self._registration = Registration(self, instantiate(tasks or self.registry_cls))
        self._lock = threading.RLock()
        self._local = threading.local()
        self._parts: dict[str, Any] = {}
        self._origin_name: tuple[int, str] | None = None

        if backend is not None and not isinstance(backend, str):
            self.backend_cls, backend = backend, None
        given = {**settings, "broker_url": broker, "result_backend": backend, "include": include, **(changes or {})}
        self._preconf = {key: value for key, value in given.items() if value is not None}
        self.conf = Settings(self._preconf, namespace=namespace, load=self._load_config, loaded=self._configured)
        self._make_signals()
        self.fixups = set(self.builtin_fixups) if fixups is None else set(fixups)
        self._fixups = [fixup for fixup in (symbol_by_name(path)(self) for path in self._wanted_fixups()) if fixup]
        if set_as_current:
            self.set_current()
        self.on_init()
        _state.register_app(self)

    def _make_signals(self) -> None:
        if not any("on_configure" in cls.__dict__ for cls in type(self).__mro__):
            self.on_configure: Any = Signal(name="app.on_configure")
        self.on_after_configure = Signal(name="app.on_after_configure", providing_args={"source"})
        self.on_after_finalize = Signal(name="app.on_after_finalize")
        self.on_after_fork = Signal(name="app.on_after_fork")

    def on_init(self) -> None:
        """Called at the end of creation. For subclasses."""

    def _wanted_fixups(self) -> list[str]:
        # The Django fixup costs nothing where there is no Django.
        return [path for path in self.fixups if "django" not in path or os.environ.get("DJANGO_SETTINGS_MODULE")]

    # -- being the current application

    def set_current(self) -> None:
        """Make this the current application of the thread."""
        _state.set_current_app(self)

    def set_default(self) -> None:
        """Make this the application of threads that have none."""
        _state.set_default_app(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up connections, and the place among living applications. A later use connects anew.

        Of result backends it closes this thread's and the one that threads share; others go with their threads.
        """
        publisher = self._parts.pop("publisher", None)
        if publisher is not None:
            publisher.close()
        for holder in (self, self._local):
            backend = holder.__dict__.pop("_result_backend", None)
            if backend is not None:
                backend.close()
        for name in ("pool", "producer_pool"):
            pool = self._parts.pop(name, None)
            if pool is not None:
                getattr(pool, "connections", pool).force_close_all()
        _state.deregister_app(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.main or '__main__'} at {id(self):#x}>"

    # -- configuration

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> Settings | None:
        """Read settings from a module, class, dict, object, or the import path of one (CONF-007)."""
        self._config_source = obj
        self._config_source_silent = silent
        if namespace is not None:
            self.namespace = namespace
        was_configured = self.conf.configured
        changes = {**self._preconf, **self.conf.changes}
        fresh = Settings(changes, namespace=self.namespace, load=self._load_config, loaded=self._configured)
        self._replace_settings(fresh)
        if force or was_configured:
            self.conf.finalize()
            return self.conf
        return None

    def _replace_settings(self, fresh: Settings) -> None:
        # References to the settings object stay valid: it takes over the new one's state.
        observers = self.conf._observers
        self.conf.__dict__.clear()
        self.conf.__dict__.update(fresh.__dict__)
        self.conf._observers = observers

    def config_from_envvar(
        self, variable_name: str, silent: bool = False, force: bool = False
    ) -> Settings | Literal[False] | None:
        """Read settings from the module that an environment variable names (CONF-008)."""
        module = os.environ.get(variable_name)
        if not module:
            if silent:
                return False
            raise ImproperlyConfigured(
                f"The environment variable {variable_name!r} is not set, and as such the configuration could not be "
                f"loaded. Set it to the name of a module, for example {variable_name}=celeryconfig."
            )
        return self.config_from_object(module, silent=silent, force=force)

    def config_from_cmdline(self, argv: Sequence[str], namespace: str = "celery") -> None:
        """Read settings from `key=value` arguments (CONF-009)."""
        self.conf.update(self.loader.cmdline_config_parser(argv, namespace))

    def add_defaults(self, fun: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Add defaults below everything that users configure (CONF-014)."""
        self.conf.add_defaults(fun)

    def setup_security(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - in Celery's signature
        """Sign messages (API-111). Comes in a later version."""
        raise ImproperlyConfigured("Signed messages (setup_security) are not supported by this version of Celeriac.")

    def prepare_config(self, c: Any) -> Any:
        """What the configuration source gave, before it is used. For subclasses."""
        return c

    def _load_config(self) -> Any:
        if isinstance(self.on_configure, Signal):
            self.on_configure.send(sender=self)
        else:
            self.on_configure()
        loader = self.loader
        if self._config_source is not None:
            loader.config_from_object(self._config_source, silent=self._config_source_silent)
        return self.prepare_config(loader.conf)

    def _configured(self, settings: Settings) -> None:
        if "periodic" in self._parts:
            self._parts["periodic"].enter(settings)
        self.on_after_configure.send(sender=self, source=settings)

    # -- tasks

    @overload
    def task(self, fun: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def task(self, fun: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, *, bind: Literal[True], **opts: Any) -> BoundTaskDecorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **opts: Any) -> TaskDecorator: ...

    def task(self, *args: Any, **opts: Any) -> Any:
        """Make a task of a function (API-008).

        The task is made when it is first used, or when the application is finalized; until then the name stands
        for a promise of it.

        Args:
            args: the function, when used without parentheses.
            opts: name, base, bind, shared, filter, lazy, pydantic..., and any attribute of Task.

        Raises:
            TypeError: decorating something that cannot be called.
        """
        if len(args) > 1:
            raise TypeError(f"@task() takes exactly 1 argument ({len(args)} given)")
        if args and not callable(args[0]):
            raise TypeError("argument 1 to @task() must be a callable")

        def decorate(fun: Callable[..., Any]) -> Any:
            return self._registration.promise(fun, **opts)

        return decorate(args[0]) if args else decorate

    def register_task(self, task: Any, **options: Any) -> AnyTask:
        """Enter a task (or a class of one) that was not made by the decorator (API-010)."""
        return self._registration.register(task, options)

    def type_checker(self, fun: Callable[..., Any], bound: bool = False) -> Any:
        """What checks the arguments of calls (API-027): a static method with the parameters of `fun`, the body, less
        the first one if that is the task (`bound`); when it is called, Python does the checking. For subclasses.
        """
        return staticmethod(head_from_fun(fun, bound=bound))

    def gen_task_name(self, name: str, module: str) -> str:
        """The name of a task from its function's (API-007). For subclasses."""
        return gen_task_name(self, name, module)

    def finalize(self, auto: bool = False) -> None:
        """Make all promised tasks, and take in shared and built-in ones (API-011).

        Raises:
            RuntimeError: called implicitly (`auto`) on an application with autofinalize off.
        """
        with self._lock:
            if self.finalized:
                return
            if auto and not self.autofinalize:
                raise RuntimeError("Contract breach: app not finalized")
            self._load("celery.app.builtins:add_accumulate_task")  # announces the built-in tasks
            self.finalized = True
            self._registration.finalize()
            self.on_after_finalize.send(sender=self)

    @property
    def tasks(self) -> TaskRegistry:
        """The registered tasks, by name."""
        if not self.finalized:
            self.finalize(auto=True)
        return self._registration.tasks

    def autodiscover_tasks(
        self,
        packages: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import `package.tasks` of packages, when tasks are imported (CONF-029)."""
        if force:
            self._autodiscover(packages, related_name)
        else:

            def discover(**_: Any) -> None:
                self._autodiscover(packages, related_name)

            signals.import_modules.connect(discover, weak=False, sender=self)

    def _autodiscover(self, packages: Any, related_name: str | None) -> None:
        if packages is None:
            found = [name for fixup in self._fixups for name in getattr(fixup, "autodiscover_tasks", list)()]
        else:
            found = packages() if callable(packages) else packages
        self.loader.autodiscover_tasks(found, related_name)

    def add_periodic_task(
        self, schedule: Any, sig: Any, args: Any = (), kwargs: Any = (), name: str | None = None, **opts: Any
    ) -> str:
        """Have beat send a task, a signature of which may bring arguments of its own, on a schedule (API-017).

        Returns:
            The key of the entry in `beat_schedule`: the name, or else how the call is written.
        """
        entries = self._part("periodic", lambda: self._load("celery.app.periodic:PeriodicTasks")(self))
        return entries.add(schedule, sig, args, kwargs, name, opts)  # type: ignore[no-any-return]  # loaded by its path

    # -- calling

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name; it need not be registered here (API-012).

        Args:
            name: the task's name.
            args: positional arguments.
            kwargs: keyword arguments.
            options: of `Task.apply_async`, and `result_cls`, `task_type`, `route_name`, `chain`, `chord`, `group_id`,
                `group_index`, `reply_to`, `root_id`, `parent_id`, `replaced_task_nesting`.

        Raises:
            OperationalError: the broker cannot be reached.
            EncodeError: an argument does not serialize.
            QueueNotFound: the queue is not declared, and may not be created.
        """
        result, message = prepare(self, name, args, kwargs, options)
        self.amqp.send(name, message, (args, kwargs), options)
        return result

    _plain_send_task: Any = send_task  # as it is here, whatever integrations put in its place

    async def asend_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """`send_task` for coroutines: the loop is not blocked, and what many send at once leaves in one batch."""
        result, message = prepare(self, name, args, kwargs, options)
        await self.amqp.asend(name, message, (args, kwargs), options)
        return result

    def send_many(
        self, signatures: Iterable[Any], *, batch: int = 500, on_error: OnError = "continue", **options: Any
    ) -> list[Any]:
        """Send many calls, in order, in few round trips; their results, in order.

        Args:
            signatures: of any kind. A generator is drawn as its calls are sent, the first ones at once.
            batch: how many leave together, at most. Where the broker confirms, each batch waits for its word.
            on_error: what a call that cannot be sent (an argument that does not serialize or fit, an unknown queue)
                means for the others. "continue": nothing; "stop": those after it are not sent; "send_nothing": no
                call at all is sent, and all messages are made, and held, before the first one leaves.
            options: of `Task.apply_async`, for every call.

        Raises:
            SendManyError: at the end, if any call could not be sent; has `results` and, by position, `errors`.
            OperationalError: the broker stayed away for longer than the retry policy bears. Its attribute `results`
                has those of earlier batches; what was in the last one was perhaps sent.
        """
        send_many = self._load("celery.app.bulk:send_many")
        return send_many(self, signatures, batch=batch, on_error=on_error, **options)  # type: ignore[no-any-return]  # loaded by its path

    async def asend_many(
        self,
        signatures: Iterable[Any] | AsyncIterable[Any],
        *,
        batch: int = 500,
        on_error: OnError = "continue",
        **options: Any,
    ) -> list[Any]:
        """`send_many` for coroutines: the loop is not blocked. Takes asynchronous generators too."""
        asend_many = self._load("celery.app.bulk:asend_many")
        return await asend_many(self, signatures, batch=batch, on_error=on_error, **options)  # type: ignore[no-any-return]  # loaded by its path

    def signature(self, *args: Any, **kwargs: Any) -> Signature[Any]:
        """A Signature bound to this application; a Signature or its dict form is taken as it is."""
        kwargs["app"] = self
        return self._load("celery.canvas.signature:signature")(*args, **kwargs)  # type: ignore[no-any-return]  # loaded by its path

    # -- results

    @property
    def AsyncResult(self) -> Any:  # noqa: N802 - the documented name
        """AsyncResult of this application."""
        return self._bound_result_class("AsyncResult")

    @property
    def ResultSet(self) -> Any:  # noqa: N802 - the documented name
        """ResultSet of this application."""
        return self._bound_result_class("ResultSet")

    @property
    def GroupResult(self) -> Any:  # noqa: N802 - the documented name
        """GroupResult of this application."""
        return self._bound_result_class("GroupResult")

    def _bound_result_class(self, name: str) -> Any:
        found = self._parts.get(name)
        if found is None:
            found = self._parts[name] = self.subclass_with_self(f"celery.result:{name}", name=name, keep_reduce=True)
        return found

    def result_from_tuple(self, value: Any) -> Any:
        """A result, or group of results, from its tuple (wire.md 4.3)."""
        return self._load("celery.result:result_from_tuple")(value, self)

    @property
    def backend(self) -> Backend:
        """The result backend; one for each thread, unless `result_backend_thread_safe`."""
        known: Backend | None = getattr(self._local, "_result_backend", None)
        if known is None:  # before the settings are asked, which takes longer than all the rest
            holder: Any = self if self.conf.result_backend_thread_safe else self._local
            known = getattr(holder, "_result_backend", None) or self._load("celery.app.backends:open_backend")(self)
            holder._result_backend = known
        return known

    # -- parts, made on first use

    def _load(self, path: str) -> Any:
        """What is needed only at times, by its import path: creating an application stays light."""
        found = self._parts.get(path)
        if found is None:
            found = self._parts[path] = symbol_by_name(path)
        return found

    def _part(self, name: str, make: Callable[[], Any]) -> Any:
        part = self._parts.get(name)
        if part is None:
            with self._lock:
                part = self._parts.get(name)
                if part is None:
                    part = self._parts[name] = make()
        return part

    @property
    def amqp(self) -> AMQP:
        """Queues, routes and messages."""
        part = self._parts.get("amqp")
        if part is None:
            part = self._part("amqp", lambda: instantiate(self.amqp_cls, app=self))
        return part  # type: ignore[no-any-return]  # parts are of any type

    @property
    def publisher(self) -> Publisher:
        """The way to the broker."""
        part = self._parts.get("publisher")
        if part is None:
            part = self._part("publisher", lambda: self._load("celery.app.publisher:open_publisher")(self))
        return part  # type: ignore[no-any-return]  # parts are of any type

    # -- kombu's objects, for code that wants them (API-016)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """A kombu connection to the broker."""
        return self._load("celery.app.bridge:connection")(self, hostname, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """A kombu connection to the broker that is published to."""
        return self.connection(url, **options)

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """A kombu connection to the broker that is consumed from."""
        return self.connection(url, read=True, **options)

    broker_connection = connection

    @property
    def pool(self) -> Any:
        """The pool of kombu connections to the broker, `broker_pool_limit` of them."""
        return self._part("pool", lambda: self._load("celery.app.bridge:connection_pool")(self))

    @property
    def producer_pool(self) -> Any:
        """The pool of kombu producers, as many."""
        return self._part("producer_pool", lambda: self._load("celery.app.bridge:producer_pool")(self))

    def connection_or_acquire(self, connection: Any = None, pool: bool = True) -> Any:
        """A context manager of the connection given, or of one from `pool`, or of a new one."""
        if connection is not None:
            return contextlib.nullcontext(connection)
        return self._load("celery.app.bridge:acquired_connection")(self) if pool else self.connection()

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """A context manager of the kombu producer given, or of one from `producer_pool`."""
        return self._load("celery.app.bridge:acquired_producer")(self, producer)

    default_producer = producer_or_acquire

    @property
    def loader(self) -> BaseLoader:
        """Reads configuration and imports tasks."""
        return self._part("loader", lambda: get_loader_cls(self.loader_cls)(app=self))  # type: ignore[no-any-return]  # parts are of any type

    @property
    def events(self) -> Any:
        """Events."""
        return self._part("events", lambda: instantiate(self.events_cls, app=self))

    @property
    def clock(self) -> LamportClock:
        """The logical clock of this process."""
        return self._part("clock", LamportClock)  # type: ignore[no-any-return]  # parts are of any type

    @property
    def log(self) -> Any:
        """Logging."""
        return self._part("log", lambda: instantiate(self.log_cls, app=self))

    @property
    def control(self) -> Any:
        """Remote control."""
        return self._part("control", lambda: instantiate(self.control_cls, app=self))

    @property
    def annotations(self) -> tuple[Any, ...]:
        """`task_annotations` as objects."""
        return self._part("annotations", lambda: _annotations.prepare(self.conf.task_annotations))  # type: ignore[no-any-return]  # parts are of any type

    @property
    def Task(self) -> type[AnyTask]:  # noqa: N802 - the documented name
        """Base class of this application's tasks."""
        return self._part("Task", self.create_task_cls)  # type: ignore[no-any-return]  # parts are of any type

    def create_task_cls(self) -> type[AnyTask]:
        """Make that class."""
        return self.subclass_with_self(self.task_cls, name="Task", attribute="_app", keep_reduce=True, abstract=True)  # type: ignore[no-any-return]  # of the class given

    def subclass_with_self(
        self,
        Class: Any,  # noqa: N803 - the documented name
        name: str | None = None,
        attribute: str = "app",
        reverse: str | None = None,  # noqa: ARG002 - in Celery's signature
        keep_reduce: bool = False,  # noqa: ARG002 - instances always pickle by their own rule here
        **kw: Any,
    ) -> Any:
        """A subclass of a class (or of the one at an import path) with this application as an attribute."""
        base = symbol_by_name(Class)
        return type(
            name or base.__name__,
            (base,),
            {attribute: self, "__module__": base.__module__, "__doc__": base.__doc__, **kw},
        )

    # -- time and identity

    @property
    def timezone(self) -> datetime.tzinfo:
        """Where schedules and local times are (SET-005)."""
        read_zone = self._load("celery.app.zones:read_zone")
        return self._part("timezone", lambda: read_zone(self.conf.timezone, self.conf.enable_utc))  # type: ignore[no-any-return]  # parts are of any type

    def uses_utc_timezone(self) -> bool:
        """Whether `timezone` is UTC."""
        return self.timezone is datetime.UTC or str(self.timezone) == "UTC"

    def now(self) -> datetime.datetime:
        """The time in the application's zone, aware."""
        return datetime.datetime.now(self.timezone)

    @staticmethod
    def now_utc() -> datetime.datetime:
        """The time in UTC, aware."""
        return datetime.datetime.now(datetime.UTC)

    def origin_name(self) -> str:
        """Who sends from here: gen<pid>@<host>."""
        pid = os.getpid()
        if self._origin_name is None or self._origin_name[0] != pid:
            self._origin_name = (pid, anon_nodename())
        return self._origin_name[1]

    @property
    def oid(self) -> str:
        """An id of this application in this process."""
        return self._identity("oid", self._parts)

    @property
    def thread_oid(self) -> str:
        """An id of this application in this thread: the name of its reply queue."""
        return self._identity("oid", self._local.__dict__)

    @staticmethod
    def _identity(name: str, place: dict[str, Any]) -> str:
        pid, identity = place.get(name) or (None, "")
        if pid != os.getpid():
            _, identity = place[name] = os.getpid(), uuid()
        return identity

    def either(self, default_key: str, *defaults: Any) -> Any:
        """A setting, or the first of the defaults that is not None."""
        return first(None, [self.conf.get(default_key), *defaults])

    def select_queues(self, queues: Any = None) -> None:
        """Consume only these queues."""
        self.amqp.queues.select(queues)

    def bugreport(self) -> str:
        """What to put into a bug report (CLI-097)."""
        return self._load("celery.app.utils:bugreport")(self)  # type: ignore[no-any-return]  # loaded by its path

    @property
    def current_task(self) -> AnyTask | None:
        """The task that runs here."""
        return _state.get_current_task()

    @property
    def current_worker_task(self) -> AnyTask | None:
        """The task that a worker runs here."""
        return _state.get_current_worker_task()

    # -- programs

    @property
    def WorkController(self) -> Any:  # noqa: N802 - the documented name
        """The worker, as a class bound to this application."""
        return self._part("WorkController", lambda: self.subclass_with_self("celery.worker.worker:WorkController"))

    @property
    def Worker(self) -> Any:  # noqa: N802 - the documented name
        """The worker as a program, as a class bound to this application."""
        return self._part("Worker", lambda: self.subclass_with_self("celery.apps.worker:Worker"))

    def Beat(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802, ARG002 - the documented name and signature
        """The scheduler of periodic tasks. Comes in a later version."""
        raise ImproperlyConfigured(
            "This version of Celeriac has no scheduler of periodic tasks (celery beat). Until it has, let cron or a "
            "systemd timer run `celery call TASK`, or keep Celery's own beat running beside these workers."
        )

    def start(self, argv: Sequence[str] | None = None) -> int:
        """Run the `celery` command on this application; its exit status."""
        run = self._load("celery.bin.celery:run")
        return run(self, list(sys.argv[1:] if argv is None else argv))  # type: ignore[no-any-return]  # loaded by its path

    def worker_main(self, argv: Sequence[str] | None = None) -> int:
        """Run `celery worker` on this application (CLI-001)."""
        argv = sys.argv[1:] if argv is None else argv
        if "worker" not in argv:
            raise ValueError(
                "The worker sub-command must be specified in argv.\nUse app.start() to run other commands."
            )
        return self.start(argv)

    # -- pickling: what makes it, not what it made (CONF-015)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_app, (type(self), self.__reduce_keys__())

    def __reduce_keys__(self) -> dict[str, Any]:
        """Constructor arguments of a copy. For subclasses."""
        return {
            "main": self.main,
            "changes": {**self._preconf, **self.conf.changes},
            **{key: getattr(self, key + "_cls") for key in ("loader", "backend", "amqp", "events", "log", "control")},
            "fixups": self.fixups,
            "config_source": self._config_source,
            "config_source_silent": self._config_source_silent,
            "task_cls": self.task_cls,
            "namespace": self.namespace,
        }


def _unpickle_app(cls: type[Celery], kwargs: dict[str, Any]) -> Celery:
    return cls(set_as_current=False, **kwargs)


def _unpickle_appattr(name: str, args: tuple[Any, ...]) -> Any:
    """How Celery 5.7 pickles results: a class of the current application, called."""
    return getattr(_state.get_current_app(), name)(*args)
