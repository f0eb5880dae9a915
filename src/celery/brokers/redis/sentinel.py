"""Which server is the master now: asked of the Sentinels in turn (wire.md 3.9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from celery import exceptions
from celery.brokers.redis.blocking import Connection

if TYPE_CHECKING:
    from celery.brokers.redis.address import Address


def master(address: Address) -> Address:
    """The address of the master, with the login and options of `address`.

    Blocks for at most one connect time-out per Sentinel. A Sentinel that knows fewer than `min_other_sentinels`
    others is not believed.

    Raises:
        OSError: no Sentinel answered with a master.
    """
    complaints: list[str] = []
    for host, port in address.sentinels:
        try:
            found = _ask(address, host, port)
        except (exceptions.OperationalError, exceptions.ImproperlyConfigured) as error:
            complaints.append(str(error))
            continue
        if isinstance(found, tuple):
            return msgspec.structs.replace(address, host=found[0], port=found[1], sentinels=())
        complaints.append(f"{host}:{port} {found}")
    raise ConnectionError(f"no Sentinel names a master {address.master_name!r}: " + "; ".join(complaints))


def _ask(address: Address, host: str, port: int) -> tuple[str, int] | str:
    """One Sentinel's answer: host and port, or why not."""
    options = address.sentinel_options
    timeout = float(options.get("socket_timeout") or address.connect_timeout)
    connection = Connection(
        msgspec.structs.replace(
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
    )
    try:
        state = connection.call("SENTINEL", "MASTER", address.master_name)
    finally:
        connection.close()
    fields = dict(zip(state[::2], state[1::2], strict=True))
    flags = fields.get(b"flags", b"").decode().split(",")
    if {"s_down", "o_down", "disconnected"} & set(flags):
        return f"says that it is down ({','.join(flags)})"
    if int(fields.get(b"num-other-sentinels", 0)) < address.min_other_sentinels:
        return "knows fewer other Sentinels than min_other_sentinels"
    return fields[b"ip"].decode(), int(fields[b"port"])
