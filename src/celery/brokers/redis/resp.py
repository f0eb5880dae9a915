"""What both connections say to a Redis server, and how they understand it: no I/O here.

Parsing and packing are hiredis's. A reply that is an error stays a value until somebody asks for it (`check`), so that
one bad command of a pipeline does not hide the answers to the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import exceptions

try:
    from hiredis import HiredisError, ProtocolError, PushNotification, Reader, ReplyError, pack_command
except ImportError as error:
    raise exceptions.ImproperlyConfigured(
        "The Redis driver needs hiredis: install celeriac[redis], or hiredis itself."
    ) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.brokers.redis.address import Address

__all__ = (
    "NOTHING",
    "HiredisError",
    "ProtocolError",
    "PushNotification",
    "ReplyError",
    "check",
    "displaced",
    "handshake",
    "lost",
    "pack",
    "pack_long",
    "pack_texts",
    "reader",
    "refused",
)

Word = str | bytes | int | float
#: Its words; or, as bytes, packed already; or that in pieces.
Command = tuple[Word, ...] | bytes | list[bytes]

#: What a reader gives when it needs more data.
NOTHING = object()

#: Words from which on a command is packed here, and the length of words below which what comes before them is kept.
_MANY, _COMMON = 128, 1024

#: Error replies that no new connection mends.
_SETTINGS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index", "ERR invalid DB")


def pack(command: Command) -> bytes:
    """A command as bytes."""
    if isinstance(command, bytes):
        return command
    if isinstance(command, list):
        return b"".join(command)
    if len(command) >= _MANY:
        return _pack_many(command)
    packed: bytes = pack_command(command)  # type: ignore[arg-type] # its stub allows for one word only
    return packed


class _Heads(dict[int, bytes]):
    """What comes before a word, by its length: the end of the word before, and the length."""

    def __missing__(self, length: int) -> bytes:
        head = b"\r\n$%d\r\n" % length
        if length < _COMMON:
            self[length] = head
        return head


_head = _Heads().__getitem__


def _pack_many(command: Sequence[Word]) -> bytes:
    """What hiredis makes of a command. In a worker, whose caches are full of other things, it takes for a long one
    almost twice as long: it formats each length, and its buffer grows by steps.
    """
    words = [
        word if type(word) is bytes else word.encode() if type(word) is str else str(word).encode() for word in command
    ]
    parts = [b""] * (2 * len(words))
    parts[::2] = map(_head, map(len, words))
    parts[1::2] = words
    return b"*%d%b\r\n" % (len(words), b"".join(parts))


def pack_long(words: Sequence[Sequence[bytes]]) -> list[bytes]:
    """A command in pieces, of words in pieces: none is copied, where `pack` copies long words three times."""
    parts = [b"*%d\r\n" % len(words)]
    for pieces in words:
        parts += (b"$%d\r\n" % sum(map(len, pieces)), *pieces, b"\r\n")
    return parts


def pack_texts(head: Sequence[str], texts: Sequence[bytes]) -> list[bytes]:
    """A command that ends in texts, in pieces. Where they are many this takes a tenth of the time of `pack`, whose
    buffer grows by steps; where they are few it takes longer.
    """
    parts = [b"*%d\r\n" % (len(head) + len(texts))]
    for word in map(str.encode, head):
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    for text in texts:
        parts += (b"$%d\r\n" % len(text), text, b"\r\n")
    return parts


def reader() -> Any:
    """A parser; it gives NOTHING between replies."""
    return Reader(notEnoughData=NOTHING)


def handshake(address: Address, *, pushes: bool) -> list[Command]:
    """The commands that make a fresh connection ours. With `pushes` it speaks RESP3 (Redis 6 and later)."""
    commands: list[Command] = []
    credentials = address.credentials()
    # By name also where the URL has none: a server that wants no password then takes any, as it does from redis-py.
    login = ("AUTH", *(credentials if len(credentials) > 1 else ("default", *credentials))) if credentials else ()
    if pushes:
        commands.append(("HELLO", 3, *login))
    elif login:
        commands.append(login)
    if address.database:
        commands.append(("SELECT", address.database))
    if address.client_name:
        commands.append(("CLIENT", "SETNAME", address.client_name))
    return commands


def check(address: Address, reply: Any) -> Any:
    """The reply, if it is no error.

    Raises:
        OperationalError: the server refused for now.
        ImproperlyConfigured: it will always refuse: password, rights, database.
    """
    if isinstance(reply, ReplyError):
        raise refused(address, reply)
    return reply


def displaced(reply: Any) -> bool:
    """Whether the reply says that this server is, for now, not the one to talk to: a fail-over, a restart."""
    return isinstance(reply, ReplyError) and str(reply).startswith(("READONLY", "LOADING", "MASTERDOWN"))


def refused(address: Address, error: Exception) -> Exception:
    """An error reply as one of our exceptions."""
    text = str(error)
    if text.startswith(_SETTINGS):
        return exceptions.ImproperlyConfigured(
            f"Redis at {address.url} refuses: {text.rstrip('.')}. Check user, password, rights and database in the URL."
        )
    if text.startswith("ERR unknown command") and "HELLO" in text:
        return exceptions.ImproperlyConfigured(f"Redis at {address.url} is too old: a worker needs version 6.0.")
    return exceptions.OperationalError(f"Redis at {address.url} refuses: {text}")


def lost(address: Address, error: BaseException | str) -> Exception:
    """A failed connection as one of our exceptions."""
    return exceptions.OperationalError(f"Redis at {address.url}: {error or type(error).__name__}")
