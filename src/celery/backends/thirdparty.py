"""What backends of third parties call on themselves, and Celery's own offer them (API-064): ours do without.

Keys
    A store is handed keys in the form that its `key_t` makes of text: bytes, unless the class says otherwise.
Values
    They are text where the serializer makes text, else bytes; compressed ones are bytes.
Waits
    What is pending is known to nobody: who waits looks records up.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import TimeoutError  # noqa: A004 - the documented name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from celery.backends.asynchronous import Meta


def as_bytes(key: str | bytes) -> bytes:
    """A key as bytes."""
    return key if isinstance(key, bytes) else key.encode()


def as_text(key: str | bytes) -> str:
    """A key as text."""
    if isinstance(key, (str, bytes)):
        return key if isinstance(key, str) else key.decode()
    raise TypeError(f"The id of a task or group must be text, not {key!r}.")


class SyncBackendMixin:
    """Waits that are handed a result; the result asks its backend in turn."""

    #: Whether results are announced to whoever waits.
    is_async = False

    def wait_for_pending(self, result: Any, **options: Any) -> Any:
        """The value of a result, or its exception: `result.get`, with the same options."""
        return result.get(**options)

    def iter_native(self, result: Any, **options: Any) -> Any:
        """(id, record) of a set of results as they arrive: `result.iter_native`, with the same options."""
        return result.iter_native(**options)

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:  # noqa: ARG002 - in Celery's signature
        """Somebody will wait for this result, which is given back."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Nobody will."""
        return result


class KeyForm:
    """Keys as a store wants them, and the wait for many of them."""

    #: Of text or bytes makes a key; a function, or `str`.
    key_t: Any = staticmethod(as_bytes)

    task_keyprefix: Any = "celery-task-meta-"
    group_keyprefix: Any = "celery-taskset-meta-"
    chord_keyprefix: Any = "chord-unlock-"

    get_many_meta: Callable[[Sequence[str]], list[Meta]]

    def form_keys(self, prefix: str) -> None:
        """Bring the prefixes into form, behind one for all of them."""
        # A plain function in a subclass is no method of it.
        self.key_t = getattr(self.key_t, "__func__", self.key_t)
        if prefix and prefix[-1] not in ":_-.":
            prefix += "_"
        for name in ("task_keyprefix", "group_keyprefix", "chord_keyprefix"):
            setattr(self, name, self.key_t(prefix) + self.key_t(getattr(self, name)))

    def get_key_for_task(self, task_id: str, key: str = "") -> Any:
        """Where the record of a task is."""
        return self.task_keyprefix + self.key_t(task_id) + self.key_t(key)

    def get_key_for_group(self, group_id: str, key: str = "") -> Any:
        """Where a group is."""
        return self.group_keyprefix + self.key_t(group_id) + self.key_t(key)

    def get_key_for_chord(self, group_id: str, key: str = "") -> Any:
        """Where a chord counts."""
        return self.chord_keyprefix + self.key_t(group_id) + self.key_t(key)

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 - in Celery's signature, without a meaning for stores
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: Collection[str] = states.READY_STATES,  # noqa: N803 - Celery's name
    ) -> Iterator[tuple[str, Meta]]:
        """(id, record) of tasks as they become ready, by looking every `interval` seconds.

        Args:
            task_ids: the tasks.
            timeout: seconds for the whole wait, None for no bound.
            interval: seconds between two looks.
            no_ack: nothing.
            on_message: called with each record before it is given.
            on_interval: called after each look that was not the last.
            max_iterations: looks at most; what is not ready by then is left out.
            READY_STATES: which states are.

        Raises:
            TimeoutError: not all came in time.
        """
        waiting = list(dict.fromkeys(task_ids))
        deadline = None if timeout is None else time.monotonic() + timeout
        looks = 0
        while waiting:
            found = zip(waiting, self.get_many_meta(waiting), strict=True)
            ready = {task_id: meta for task_id, meta in found if meta["status"] in READY_STATES}
            for task_id, meta in ready.items():
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
            waiting = [task_id for task_id in waiting if task_id not in ready]
            looks += 1
            if not waiting or looks == max_iterations:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"Operation timed out ({timeout})")
            if on_interval is not None:
                on_interval()
            time.sleep(interval)
