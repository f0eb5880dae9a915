"""Which server is the master now: asked of the Sentinels in turn (wire.md 3.9). The asking itself is the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from celery import exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.brokers.redis.address import Address


def master(address: Address, ask: Callable[[Address, str], Sequence[Any]]) -> Address:
    """The address of the master, with the login and options of `address`.

    A Sentinel that knows fewer than `min_other_sentinels` others is not believed.

    Args:
        address: names the Sentinels, and what they call the master.
        ask: gives a Sentinel's reply to SENTINEL MASTER, from its address and that name.

    Raises:
        OSError: no Sentinel answered with a master.
    """
    complaints: list[str] = []
    for host, port in address.sentinels:
        try:
            found = _read(address, ask(_sentinel(address, host, port), address.master_name))
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured) as error:
            complaints.append(str(error))
            continue
        if isinstance(found, tuple):
            return msgspec.structs.replace(address, host=found[0], port=found[1], sentinels=())
        complaints.append(f"{host}:{port} {found}")
    raise ConnectionError(f"no Sentinel names a master {address.master_name!r}: " + "; ".join(complaints))


def _sentinel(address: Address, host: str, port: int) -> Address:
    """Where a Sentinel is, and how to log in to it."""
    options = address.sentinel_options
    timeout = float(options.get("socket_timeout") or address.connect_timeout)
    return msgspec.structs.replace(
        address,
        url=f"sentinel://{host}:{port}",
        host=host,
        port=port,
        database=0,
        username=options.get("username"),
        password=options.get("password"),
        tls=address.tls if options.get("ssl", address.tls is not None) else None,
        sentinels=(),
        connect_timeout=timeout,
        timeout=timeout,
        client_name=None,
        credential_provider=None,
    )


def _read(address: Address, state: Sequence[Any]) -> tuple[str, int] | str:
    """One Sentinel's answer: host and port, or why not."""
    fields = dict(zip(state[::2], state[1::2], strict=True))
    flags = fields.get(b"flags", b"").decode().split(",")
    if {"s_down", "o_down", "disconnected"} & set(flags):
        return f"says that it is down ({','.join(flags)})"
    if int(fields.get(b"num-other-sentinels", 0)) < address.min_other_sentinels:
        return "knows fewer other Sentinels than min_other_sentinels"
    return fields[b"ip"].decode(), int(fields[b"port"])
