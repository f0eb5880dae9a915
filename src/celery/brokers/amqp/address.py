"""Where a RabbitMQ server is, how to log in, and what its refusals mean to us.

    amqp://user:password@host:port/vhost   pyamqp:// the same; amqps:// over TLS
    amqp://host  amqp://host//             both mean the virtual host "/"
    ssl (broker_use_ssl)                   True, or a mapping with ca_certs, certfile, keyfile, cert_reqs, ciphers,
                                           server_hostname, check_hostname

Certificates are verified, and the host name with them, unless `cert_reqs` says otherwise.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from celery import exceptions
from celery.brokers.amqp.connection import Connection
from celery.brokers.url import mask, parse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from celery.brokers.amqp.events import ChannelClosed, ConnectionClosed

ACCESS_REFUSED = 403
NOT_FOUND = 404
#: Reply codes after which the same attempt can only fail again: payment/rights, precondition, vhost.
_PERMANENT = frozenset({402, ACCESS_REFUSED, 406, 503, 530, 540})

#: Of a 406 that ends a channel on which a larger message was sent.
_LARGEST = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")

_TLS_OPTIONS = frozenset(
    {"ca_certs", "certfile", "keyfile", "cert_reqs", "ciphers", "server_hostname", "check_hostname"}
)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """One server and an account on it. Durations are seconds."""

    #: For people, without the password.
    url: str
    host: str
    port: int
    user: str
    password: str
    vhost: str
    mechanism: str
    #: Options for TLS; None: plain text.
    tls: dict[str, Any] | None
    connect_timeout: float
    #: Bound of one answer.
    timeout: float = 30.0
    #: Wished for by connections that a loop looks after; others are asked for a sign of life instead (`blocking`).
    heartbeat: int
    #: Queue type of the delay ladder (wire.md 2.5).
    ladder_type: str
    #: What the server's tools call our connections.
    name: str

    def connection(self, heartbeat: int = 0) -> Connection:
        """A new protocol machine for this server."""
        return Connection(
            self.user,
            self.password,
            vhost=self.vhost,
            mechanism=self.mechanism,
            heartbeat=heartbeat,
            name=self.name,
        )

    def lost(self, reason: BaseException | str) -> Exception:
        """The error for a connection that failed."""
        text = f"{type(reason).__name__}: {reason}" if isinstance(reason, OSError) else str(reason)
        return exceptions.OperationalError(f"RabbitMQ at {self.url}: {text}")

    def hung_up(self, event: ConnectionClosed) -> Exception:
        """The error for a connection that the server closed, with or without giving a reason."""
        return self._refusal(event.code, event.text)

    def refused(self, event: ChannelClosed, subject: str = "") -> Exception:
        """The error for a method that the server refused; RabbitMQ's text names the queue and the argument."""
        return self._refusal(event.code, f"{subject}{self.explain(event)}")

    def absent(self, queue: str, event: ChannelClosed, refusal: ChannelClosed | None = None) -> Exception:
        """The error for a queue that is not there (`event`), where we may not declare it (`refusal`) or shall not."""
        text = self.explain(event)
        if refusal is not None and event.code == NOT_FOUND:
            text = f"queue {queue!r} does not exist, and cannot be declared: {self.explain(refusal)}"
        return exceptions.ImproperlyConfigured(f"RabbitMQ at {self.url}: {text}")

    def explain(self, event: ChannelClosed) -> str:
        """What the server says, and what to do where an account lacks a right."""
        if event.code != ACCESS_REFUSED:
            return event.text
        return (
            f"{event.text}; allow it to account {self.user!r} (rabbitmqctl set_permissions -p {self.vhost!r}), "
            "or use another account"
        )

    def too_large(self, size: int, largest: int) -> str:
        """What is to be said of something that does not fit into a message."""
        return f"it takes {size} bytes, RabbitMQ at {self.url} takes {largest} at most (max_message_size)"

    def _refusal(self, code: int, text: str) -> Exception:
        kind = exceptions.ImproperlyConfigured if code in _PERMANENT else exceptions.OperationalError
        return kind(f"RabbitMQ at {self.url}: {text}")


def largest_message(event: ChannelClosed) -> int | None:
    """How large bodies may be (`max_message_size`), where the server closed a channel over a larger one; else None."""
    found = _LARGEST.search(event.text)
    return int(found[1]) if found else None


def read(url: str, options: Mapping[str, Any], *, name: str = "") -> Address:
    """The address that a URL and transport options describe.

    Raises:
        ImproperlyConfigured: naming what is wrong and where.
    """
    parts = parse(url)
    tls = _tls(parts.scheme, options.get("ssl"), mask(url))
    return Address(
        url=mask(url),
        host=parts.host or "localhost",
        port=parts.port or (5671 if tls is not None else 5672),
        user="guest" if parts.user is None else parts.user,
        password="guest" if parts.password is None else parts.password,
        vhost=parts.virtual_host,
        mechanism=(options.get("login_method") or "PLAIN").upper(),
        tls=tls,
        connect_timeout=float(options.get("connect_timeout") or 4.0),
        heartbeat=int(options.get("heartbeat") or 0),
        ladder_type=options.get("delayed_queue_type") or "quorum",
        name=name or f"gen{os.getpid()}@{socket.gethostname()}",
    )


def _tls(scheme: str, configured: Any, shown: str) -> dict[str, Any] | None:
    if not configured and scheme != "amqps":
        return None
    tls = dict(configured) if isinstance(configured, dict) else {}
    unknown = tls.keys() - _TLS_OPTIONS
    if unknown:
        raise exceptions.ImproperlyConfigured(
            f"{shown!r}: broker_use_ssl has {', '.join(sorted(map(str, unknown)))}; "
            f"for RabbitMQ it takes {', '.join(sorted(_TLS_OPTIONS))}"
        )
    return tls


def tls_context(address: Address) -> ssl.SSLContext:
    """The TLS settings of an address, ready for use.

    Raises:
        ImproperlyConfigured: an option or a file is wrong.
    """
    import ssl

    tls = address.tls or {}
    wanted = tls.get("cert_reqs")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        verify = ssl.CERT_REQUIRED if wanted is None else ssl.VerifyMode(_verify_mode(wanted))
        context.check_hostname = verify == ssl.CERT_REQUIRED and bool(tls.get("check_hostname", True))
        context.verify_mode = verify
        if tls.get("ciphers"):
            context.set_ciphers(tls["ciphers"])
        if tls.get("certfile"):
            context.load_cert_chain(tls["certfile"], tls.get("keyfile"))
        if tls.get("ca_certs"):
            context.load_verify_locations(tls["ca_certs"])
        elif verify != ssl.CERT_NONE:
            context.load_default_certs()
    except (OSError, ValueError, TypeError) as error:
        raise exceptions.ImproperlyConfigured(f"{address.url!r}: broker_use_ssl cannot be used: {error}") from error
    return context


def _verify_mode(wanted: Any) -> Any:
    """`ssl.CERT_NONE` and friends, or their names in text: "none", "CERT_NONE"."""
    names = {"none": 0, "optional": 1, "required": 2}
    return names.get(wanted.lower().removeprefix("cert_"), wanted) if isinstance(wanted, str) else wanted


def unready(address: Address) -> tuple[type[OSError], ...]:
    """What a socket of that address raises where it would have to wait and may not."""
    if address.tls is None:
        return (BlockingIOError,)
    import ssl

    return ssl.SSLWantReadError, ssl.SSLWantWriteError


def server_name(address: Address) -> str:
    """The name that the server's certificate has to bear."""
    return str((address.tls or {}).get("server_hostname") or address.host)


def tune(connected: socket.socket) -> None:
    """Send small frames at once, and let the kernel find peers that vanished where nobody sends heartbeats."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
