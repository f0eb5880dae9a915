"""Where a Redis server is and how to talk to it: URL and options as data (ROUTE-031, ROUTE-032, wire.md 3.9).

    redis://user:password@host:port/db      rediss:// the same over TLS, with ssl_* options in the query
    redis+socket:///path?virtual_host=db    a unix socket (also socket:// and unix://, for result stores)
    sentinel://host:port/db;sentinel://...  the master that these Sentinels name; `master_name` is required

Options in the query of a URL win over transport options; user and password of the URL over options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from celery.brokers.url import BrokerURL, mask, parse, split
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_UNIX_SCHEMES = frozenset({"redis+socket", "socket", "unix", "redis+unix"})
_TLS_OPTIONS = (
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_check_hostname",
)
_SOCKET_OPTIONS = (
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "health_check_interval",
    "client_name",
    "credential_provider",
)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One server, or the Sentinels that know it. Durations are seconds."""

    #: For people, without the password.
    url: str
    host: str = "localhost"
    port: int = 6379
    #: Path of a unix socket.
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    #: The ssl_* options; None: plain text.
    tls: dict[str, Any] | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    min_other_sentinels: int = 0
    sentinel_options: dict[str, Any] = {}
    connect_timeout: float = 5.0
    #: Bound of one reply.
    timeout: float = 60.0
    keepalive: bool = True
    keepalive_options: dict[int, int] = {}
    client_name: str | None = None
    #: A connection that was idle for longer is checked before use; 0: never.
    health_check_interval: float = 25.0
    #: An object with `get_credentials() -> (password,) | (username, password)`, as redis-py has it.
    credential_provider: Any = None

    def credentials(self) -> tuple[str, ...]:
        """The arguments of AUTH; empty: no login."""
        if self.credential_provider is not None:
            return tuple(str(part) for part in self.credential_provider.get_credentials())
        if self.password is None and self.username is None:
            return ()
        return tuple(part for part in (self.username, self.password or "") if part is not None)

    def server(self) -> tuple[Any, ...]:
        """What two addresses of one server have in common, whatever the database."""
        return (self.host, self.port, self.path, self.sentinels, self.master_name)


def read(url: str, options: Mapping[str, Any]) -> Address:
    """The address that a URL and transport options describe.

    Raises:
        ImproperlyConfigured: naming what is wrong and where.
    """
    parts = [parse(part) for part in split(url)]
    first = parts[0]
    shown = mask(url)
    asked: dict[str, Any] = {name: options[name] for name in _SOCKET_OPTIONS if options.get(name) is not None}
    asked.update((name, value) for name, value in first.query.items() if name in _SOCKET_OPTIONS)
    where: dict[str, Any] = {"url": shown, "tls": _tls(first, options, shown)}
    where |= _socket(asked, options, shown)
    where["username"] = first.user if first.user is not None else options.get("username")
    where["password"] = first.password if first.password is not None else options.get("password")
    if first.scheme in _UNIX_SCHEMES:
        where["path"] = first.path
        where["tls"] = None
    elif first.scheme.startswith("sentinel"):
        where |= _sentinels(parts, options, shown)
    else:
        where["host"] = first.host or "localhost"
        where["port"] = first.port or 6379
    where["database"] = _database(first, options, shown)
    return Address(**where)


def _database(url: BrokerURL, options: Mapping[str, Any], shown: str) -> int:
    text = url.query.get("virtual_host") or url.query.get("db") or ""
    if not text and url.scheme not in _UNIX_SCHEMES:
        text = url.path.strip("/")
    text = text or str(options.get("db") or 0)
    if not (text.isascii() and text.isdigit()):
        raise ImproperlyConfigured(f"{shown!r}: the database is a number from 0 on, not {text!r}")
    return int(text)


def _sentinels(parts: list[BrokerURL], options: Mapping[str, Any], shown: str) -> dict[str, Any]:
    name = options.get("master_name") or parts[0].query.get("master_name")
    if not name:
        raise ImproperlyConfigured(f"{shown!r}: Sentinel needs the transport option 'master_name'")
    return {
        "sentinels": tuple((part.host or "localhost", part.port or 26379) for part in parts),
        "master_name": name,
        "min_other_sentinels": int(options.get("min_other_sentinels") or 0),
        "sentinel_options": dict(options.get("sentinel_kwargs") or {}),
    }


def _socket(asked: Mapping[str, Any], options: Mapping[str, Any], shown: str) -> dict[str, Any]:
    def number(name: str, default: float) -> float:
        try:
            return float(asked.get(name, default))
        except (TypeError, ValueError):
            raise ImproperlyConfigured(f"{shown!r}: {name} is {asked[name]!r}, not a number of seconds") from None

    connect = float(options.get("connect_timeout") or 5.0)
    return {
        "connect_timeout": number("socket_connect_timeout", connect),
        "timeout": number("socket_timeout", 60.0),
        "keepalive": truth(asked.get("socket_keepalive", True)),
        "keepalive_options": dict(asked.get("socket_keepalive_options") or {}),
        "client_name": asked.get("client_name"),
        "health_check_interval": number("health_check_interval", 25.0),
        "credential_provider": _provider(asked.get("credential_provider")),
    }


def _provider(given: Any) -> Any:
    """A credential provider: an instance, a class, or the path of one."""
    if isinstance(given, str):
        from importlib import import_module

        module, _, name = given.rpartition(".")
        try:
            given = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ImproperlyConfigured(f"credential_provider {given!r} cannot be imported: {error}") from error
    return given() if isinstance(given, type) else given


def _tls(url: BrokerURL, options: Mapping[str, Any], shown: str) -> dict[str, Any] | None:
    in_url = {name: value for name, value in url.query.items() if name in _TLS_OPTIONS}
    configured = options.get("ssl")
    if url.scheme in {"rediss", "sentinels"} or configured:
        return {**(configured if isinstance(configured, dict) else {}), **in_url}
    if in_url:
        raise ImproperlyConfigured(f"{shown!r} has {', '.join(in_url)} but is not encrypted: write rediss://")
    return None


def truth(value: Any) -> bool:
    """A switch, which in the query of a URL is a word."""
    return value.lower() not in {"0", "no", "false", "off", ""} if isinstance(value, str) else bool(value)


def tls_context(address: Address) -> ssl.SSLContext:
    """The TLS settings of an address, ready for use.

    Raises:
        ImproperlyConfigured: an option or a file is wrong.
    """
    import ssl

    options = address.tls or {}
    required = options.get("ssl_cert_reqs", "required")
    modes = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
    mode = modes.get(required.lower().removeprefix("cert_")) if isinstance(required, str) else required
    if mode is None and required is not None:
        raise ImproperlyConfigured(f"{address.url!r}: ssl_cert_reqs is required, optional or none, not {required!r}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    verify = ssl.VerifyMode(mode or ssl.CERT_NONE)
    context.check_hostname = verify != ssl.CERT_NONE and truth(options.get("ssl_check_hostname", True))
    context.verify_mode = verify
    try:
        if options.get("ssl_certfile") or options.get("ssl_keyfile"):
            context.load_cert_chain(
                options.get("ssl_certfile") or options["ssl_keyfile"],
                options.get("ssl_keyfile"),
                options.get("ssl_keyfile_password"),
            )
        if options.get("ssl_ca_certs") or options.get("ssl_ca_path"):
            context.load_verify_locations(options.get("ssl_ca_certs"), options.get("ssl_ca_path"))
        elif verify != ssl.CERT_NONE:
            context.load_default_certs()
    except OSError as error:
        raise ImproperlyConfigured(f"{address.url!r}: the TLS files cannot be used: {error}") from error
    return context
