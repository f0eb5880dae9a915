"""Chords counted on Redis, under the keys of wire.md 4.5, so that members may run on workers of Celery 5.7 as well.

Where the sizes and the parts are, and what claims them, is written in `brokers/redis/scripts/chord_rules.lua`.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from celery.backends.chords import ChordBook, Member, orphan, read_members, terms_of
from celery.brokers.base import ChordClaim
from celery.brokers.redis.chords import ChordStore
from celery.brokers.redis.scripts import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.backends.redis import RedisBackend
    from celery.brokers.base import ChordPart, ChordStart

#: Parts in one run of the script, so that no single one holds the server up.
_PARTS_AT_ONCE = 500
#: Claims of chords whose producers have died, in one question.
_ORPHANS_AT_ONCE = 10
#: Put behind a prefix of the user's, it begins the keys of groups.
GROUP_KEY = "celery-taskset-meta-"


def chord_store(backend: RedisBackend) -> ChordStore:
    """How a backend counts, by its settings."""
    options = backend.app.conf.result_backend_transport_options or {}
    terms = terms_of(backend.app.conf, backend.expires)
    ordered = bool(options.get("result_chord_ordered", True))
    prefix = backend.get_key_for_group("")
    own = prefix.removesuffix(GROUP_KEY) + "celeriac.chords"
    return ChordStore(prefix, f"{own}.open", f"{own}.bodies", terms, backend.expires, ordered)


class RedisBook(ChordBook):
    """Counts with scripts, on the connections of the backend."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._store = chord_store(backend)

    def begin(self, starts: Sequence[ChordStart]) -> None:
        life = self._store.life
        commands: list[tuple[str | bytes | float, ...]] = []
        for start in starts:
            key = self._store.key(start.group_id)
            commands.append(("DEL", f"{key}.c"))
            commands.append(("SET", f"{key}.s", start.size, *(("EX", life) if life else ())))
        self._backend._retried(lambda link: link.pipeline(commands, check=True))

    def add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        starts = range(0, len(parts), _PARTS_AT_ONCE)
        return [claim for start in starts for claim in self._add(parts[start : start + _PARTS_AT_ONCE])]

    def _add(self, parts: Sequence[ChordPart]) -> list[ChordClaim]:
        token = uuid.uuid4().hex
        arguments = [
            word for number, part in enumerate(parts) for word in self._store.part(part, f"{token}.{number}")
        ]
        found = self._backend._run(load("chord_rules", "chord_add"), [*self._store.counting, *arguments])
        return [
            ChordClaim(parts[number], token.decode()) for number, token in zip(found[::2], found[1::2], strict=True)
        ]

    def members(self, group_id: str) -> list[Member]:
        read = "ZRANGE" if self._store.ordered else "LRANGE"
        return read_members(self._backend, self._backend._call(read, f"{self._store.key(group_id)}.j", 0, -1))

    def hold(self, claim: ChordClaim) -> bool:
        return bool(self._run("chord_hold", claim, self._store.terms.hold))

    def close(self, claim: ChordClaim) -> None:
        self._run("chord_close", claim, self._store.terms.mark)

    def _run(self, script: str, claim: ChordClaim, seconds: int) -> object:
        arguments = (self._store.key(claim.part.group_id), claim.token, seconds)
        return self._backend._run(load("chord_rules", script), arguments)

    def extend(self, group_id: str) -> None:
        arguments = (self._store.key(group_id), uuid.uuid4().hex, self._store.life)
        self._backend._run(load("chord_extend"), arguments)

    def open(self, group_id: str, body: bytes, lease: float) -> bool:
        store = self._store
        arguments = (store.key(group_id), store.opened, store.bodies, body, str(lease))
        return bool(self._backend._run(load("chord_rules", "chord_open"), arguments))

    def sent(self, group_id: str) -> None:
        store, key = self._store, self._store.key(group_id)
        commands = (("ZREM", store.opened, key), ("HDEL", store.bodies, key))
        self._backend._retried(lambda link: link.pipeline(commands, check=True))

    def abandoned(self) -> list[ChordClaim]:
        store = self._store
        arguments = (
            *(store.opened, store.bodies, _ORPHANS_AT_ONCE),
            *("1" if store.ordered else "0", store.terms.claim, uuid.uuid4().hex),
        )
        found = self._backend._run(load("chord_rules", "chord_abandoned"), arguments)
        return [
            orphan(key.decode().removeprefix(store.prefix), body or b"{}", token.decode()) for key, body, token in found
        ]
