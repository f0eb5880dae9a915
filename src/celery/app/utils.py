"""What one does with a whole application: find it by name, describe it, report on it, rebuild it from a pickle.

`Settings` and the functions that hide credentials live in `celery.app.config` and `celery.app.censor`; they are
documented here too (MOD-0297).
"""

from __future__ import annotations

import platform
from types import ModuleType
from typing import TYPE_CHECKING, Any

import celery
from celery._state import living_apps
from celery.app.censor import filter_hidden_settings, sanitize_url
from celery.app.config import Settings
from celery.utils.imports import import_from_cwd, qualname, symbol_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = (
    "AppPickler",
    "Settings",
    "appstr",
    "bugreport",
    "detect_settings",
    "filter_hidden_settings",
    "find_app",
    "sanitize_url",
)

# Distributions worth naming in a report, by the scheme of the address that makes us use them.
_DRIVERS = {
    "redis": "redis",
    "rediss": "redis",
    "sentinel": "redis",
    "db": "sqlalchemy",
    "mongodb": "pymongo",
    "sqs": "boto3",
    "memcached": "pymemcache",
    "cache": "pymemcache",
    "confluentkafka": "confluent-kafka",
}


def appstr(app: Any) -> str:
    """Return a short name for an application: its main module and its address in memory."""
    return f"{app.main or '__main__'} at {id(app):#x}"


class AppPickler:
    """Rebuilds an application from what `Celery.__reduce_args__` gives (CONF-015)."""

    def __call__(self, cls: type[Any], *args: Any) -> Any:
        """Return an application of class *cls*."""
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def prepare(self, app: Any, **kwargs: Any) -> None:
        """Apply the run-time changes to the settings of the new application."""
        app.conf.update(kwargs["changes"])

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        """Turn the pickled positional arguments into keywords of the application's class."""
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(
        self,
        main: str | None,
        changes: Mapping[str, Any],
        loader: Any,
        backend: Any,
        amqp: Any,
        events: Any,
        log: Any,
        control: Any,
        accept_magic_kwargs: bool,  # noqa: ARG002  in pickles since Celery 3, without meaning since 4
        config_source: Any = None,
        config_source_silent: bool = False,
    ) -> dict[str, Any]:
        """Name the arguments; the new application does not become the current one."""
        return {
            "main": main,
            "changes": changes,
            "loader": loader,
            "backend": backend,
            "amqp": amqp,
            "events": events,
            "log": log,
            "control": control,
            "config_source": config_source,
            "config_source_silent": config_source_silent,
            "set_as_current": False,
        }

    def construct(self, cls: type[Any], **kwargs: Any) -> Any:
        """Create the application."""
        return cls(**kwargs)


def detect_settings(
    conf: Mapping[str, Any],
    preconf: Mapping[str, Any] | None = None,
    ignore_keys: Collection[str] | None = None,
    prefix: str | None = None,
    all_keys: Collection[str] | None = None,  # noqa: ARG001  documented signature; the option table knows
    old_keys: Collection[str] | None = None,  # noqa: ARG001  likewise
) -> Settings:
    """Make settings of a configuration that is at hand (MOD-0317).

    Args:
        conf: The source, in the old or the new style; with a *prefix*, under prefixed names.
        preconf: Changes, which win over *conf*.
        ignore_keys: Names in *conf* to leave out.
        prefix: Namespace of *conf*.
        all_keys: Ignored.
        old_keys: Ignored.

    Raises:
        ImproperlyConfigured: If *conf* mixes old and new names.
    """
    source = {key: conf[key] for key in conf if key not in ignore_keys} if ignore_keys else conf
    settings = Settings(preconf, namespace=prefix, load=lambda: source)
    settings.finalize()
    return settings


def find_app(
    app: Any,
    symbol_by_name: Callable[..., Any] = symbol_by_name,
    imp: Callable[..., Any] = import_from_cwd,
) -> Any:
    """Find the application that ``-A`` names (CONF-030).

    Args:
        app: ``module``, ``package``, ``module:attribute`` or ``module.attribute``; an application passes unchanged.
        symbol_by_name: Resolves a path to an object.
        imp: Imports a module by name.

    Raises:
        ImportError: If there is no such module, or if an import inside it fails.
        AttributeError: If there is no application in it.
    """
    try:
        found = symbol_by_name(app, imp=imp)
    except AttributeError:
        if ":" in app:
            raise
        found = imp(app)  # the last part of the path is a module that nobody imported yet
    if isinstance(found, ModuleType) and ":" not in str(app):
        return _app_in_module(found, app, symbol_by_name, imp)
    return found


def _app_in_module(module: ModuleType, path: str, symbol_by_name: Callable[..., Any], imp: Callable[..., Any]) -> Any:
    for name in ("app", "celery"):
        found = getattr(module, name, None)
        if found is not None and not isinstance(found, ModuleType):
            return found
    if hasattr(module, "__path__"):
        inner = f"{path}.celery"
        try:
            return find_app(inner, symbol_by_name, imp)
        except ModuleNotFoundError as exc:
            if exc.name != inner:
                raise
    apps = {id(app) for app in living_apps()}
    for value in vars(module).values():
        if id(value) in apps:
            return value
    raise AttributeError(
        f"Module {path!r} has no application in it: assign it to 'app' or 'celery' there, "
        f"or name the attribute, as in -A {path}:name."
    )


def bugreport(app: Any) -> str:
    """Return what a bug report needs: versions, platform, loader, transport and settings, censored (CLI-097)."""
    broker, backend = str(app.conf.broker_url or "embedded"), str(app.conf.result_backend or "disabled")
    schemes = [address.partition(":")[0].partition("+")[0] for address in (broker, backend)]
    drivers = sorted({_DRIVERS[scheme] for scheme in schemes if scheme in _DRIVERS})
    versions = [
        f"celery:{celery.__version__}",
        *(f"{name}:{_version(name)}" for name in ("celeriac", "kombu", "msgspec")),
        f"py:{platform.python_version()}",
        *(f"{name}:{_version(name)}" for name in drivers),
    ]
    architecture = ", ".join(filter(None, platform.architecture()))
    return "\n".join(
        (
            "",
            f"software -> {' '.join(versions)}",
            f"platform -> system:{platform.system()} arch:{architecture}",
            f"            kernel version:{platform.release()} imp:{platform.python_implementation()}",
            f"loader   -> {qualname(app.loader.__class__)}",
            f"settings -> transport:{schemes[0]} results:{sanitize_url(backend)}",
            "",
            app.conf.humanize(),
            "",
        )
    )


def _version(distribution: str) -> str:
    from importlib import metadata  # 2 MiB of modules that only a report needs

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
