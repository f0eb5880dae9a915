"""Broker URLs to drivers. One of the two registries where drivers are imported, on first use."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery.brokers.url import mask, split
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.brokers.base import Receiver, Sender

#: Scheme -> module with a `Sender` and a `Receiver`.
DRIVERS = {
    "memory": "celery.brokers.memory",
    "sqlite": "celery.brokers.sqlite",
    "redis": "celery.brokers.redis",
    "rediss": "celery.brokers.redis",
    "redis+socket": "celery.brokers.redis",
    "unix": "celery.brokers.redis",
    "sentinel": "celery.brokers.redis",
    "amqp": "celery.brokers.amqp",
    "amqps": "celery.brokers.amqp",
    "pyamqp": "celery.brokers.amqp",
}

#: Transports of Celery that this version does not have.
ABSENT = frozenset({
    "SLMQ", "SQS", "azureservicebus", "azurestoragequeues", "confluentkafka", "consul", "etcd", "filesystem",
    "gcpubsub", "kafka", "librabbitmq", "mongodb", "pgmq", "pyro", "qpid", "sqla", "sqlalchemy", "sqs", "zookeeper",
})  # fmt: skip

#: Settings that alone say where the broker is (the 3.x way).
_SPLIT_FORM = ("broker_transport", "broker_host", "broker_port", "broker_user", "broker_password", "broker_vhost")

EMBEDDED_FILE = "celery.sqlite"


def broker_urls(app: Celery, *, read: bool = False) -> list[str]:
    """Where an application sends to (or, with `read`, consumes from), in order of preference (ROUTE-038)."""
    conf = app.conf
    value = (conf.broker_read_url if read else conf.broker_write_url) or conf.broker_url
    if value:
        if not isinstance(value, (str, list, tuple)):
            raise ImproperlyConfigured(f"The broker URL is {value!r}; it must be text, or a list of texts.")
        return [
            _complete(url, conf)
            for text in ([value] if isinstance(value, str) else value)
            # The servers of a Sentinel, joined by semicolons, are one address.
            for url in ([text] if text.startswith("sentinel://") else split(text))
        ]
    if any(conf[name] for name in _SPLIT_FORM):
        return [_joined(conf, "localhost")]
    return [embedded_url(app)]


def is_embedded(app: Celery) -> bool:
    """Whether nothing at all is configured, so that the SQLite file beside the application serves."""
    return bool(app.conf.embedded)


def embedded_url(app: Celery) -> str:
    """The embedded store: in `embedded_path`, under CELERY_HOME, or beside the application's top-level module."""
    from urllib.parse import quote  # as in `celery.brokers.url`

    return "sqlite:///" + quote(embedded_file(app))


def embedded_file(app: Celery) -> str:
    """Its absolute path."""
    configured = app.conf.embedded_path
    if configured:
        return os.path.abspath(str(configured))
    home: str | None = os.environ.get("CELERY_HOME")
    if home:
        return os.path.join(os.path.abspath(home), EMBEDDED_FILE)
    return os.path.join(_folder_of(app.origin), EMBEDDED_FILE)


def _folder_of(module_name: str) -> str:
    """The folder that holds a module's top-level package: the same whatever the working directory is."""
    module = sys.modules.get(module_name.partition(".")[0])
    location = getattr(module, "__file__", None)
    if location:
        folder = os.path.dirname(os.path.abspath(location))
        return str(os.path.dirname(folder)) if hasattr(module, "__path__") else folder
    packages = list(getattr(module, "__path__", ()))
    return os.path.dirname(os.path.abspath(packages[0])) if packages else os.getcwd()


def _complete(url: str, conf: Any) -> str:
    """A URL; or only a transport's name, or a host, which the settings of the 3.x way complete."""
    if "://" in url:
        return url
    if url in DRIVERS or url == conf.broker_transport:
        return f"{url}://"
    if set(url).isdisjoint("@:/"):
        return _joined(conf, url)
    return f"{conf.broker_transport or 'amqp'}://{url}"


def _joined(conf: Any, host: str) -> str:
    from urllib.parse import quote

    user = quote(conf.broker_user or "", safe="")
    if conf.broker_password:
        user += ":" + quote(conf.broker_password, safe="")
    port = f":{conf.broker_port}" if conf.broker_port else ""
    path = quote(conf.broker_vhost or "", safe="")
    return f"{conf.broker_transport or 'amqp'}://{user + '@' if user else ''}{host}{port}/{path}"


def driver(url: str) -> Any:
    """The module that drives a URL.

    Raises:
        ImproperlyConfigured: no driver has this scheme.
    """
    scheme = url.partition("://")[0]
    path = DRIVERS.get(scheme) or _entry_points().get(scheme)
    if path is None:
        known = ", ".join(sorted({*DRIVERS, *_entry_points()}))
        absent = f"The transport {scheme!r} of Celery is not in this version"
        wrong = absent if scheme in ABSENT else f"No broker transport is called {scheme!r}"
        raise ImproperlyConfigured(
            f"{wrong} (broker URL {mask(url)}). Known: {known}. "
            "Others plug in as entry points of the group 'celery.brokers'."
        )
    return import_module(path)


def load_formats(app: Celery) -> None:
    """Import what opens the texts of messages that a worker of this application hands to its children, where a broker
    has a format of its own (`celery.wire.sealed`).
    """
    for url in broker_urls(app, read=True):
        with contextlib.suppress(ImproperlyConfigured, ImportError):  # told by who connects to it
            getattr(driver(url), "Format", None)


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {entry.name: entry.module for entry in entry_points(group="celery.brokers")}


def options(app: Celery) -> dict[str, Any]:
    """What drivers are told beside the URL."""
    conf = app.conf
    return {
        **(conf.broker_transport_options or {}),
        "ssl": conf.broker_use_ssl,
        "connect_timeout": conf.broker_connection_timeout,
        "heartbeat": conf.broker_heartbeat,
        "login_method": conf.broker_login_method,
        "delivery_limit": conf.task_delivery_limit,
        "detect_quorum_queues": conf.worker_detect_quorum_queues,
        "delayed_queue_type": conf.broker_native_delayed_delivery_queue_type,
    }


def open_sender(app: Celery, url: str) -> Sender:
    """A driver's publishing half."""
    sender: Sender = driver(url).Sender(url, options(app))
    return sender


def open_receiver(app: Celery, url: str, node: str) -> Receiver:
    """A driver's consuming half, for the worker called `node`."""
    receiver: Receiver = driver(url).Receiver(url, options(app), node=node)
    return receiver
