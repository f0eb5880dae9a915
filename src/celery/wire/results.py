"""Result records and result tuples (wire.md 4.1 and 4.3).

A *record* is what a store keeps for one task: its state, its value or exception, and what is known about the run. A
*group record* only holds a result tuple. A *result tuple* is how a result's place in a tree of tasks travels: ids only,
no values. Everything here is plain data; which store a record goes to, and whether it may replace what is there
(`celery.states.may_follow`), is the backend's business.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import exceptions, states
from celery.wire.compression import unpack_result
from celery.wire.errors import decode_exception, encode_exception
from celery.wire.serializers import content_of, dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

#: A record as it is stored, before serialization.
Record = dict[str, Any]
#: `((id, parent tuple or None), None)` for a task, `((id, parent tuple or None), [member tuples])` for a group.
ResultTuple = tuple[tuple[str, Any], list[Any] | None]

#: Values that are written without an encoder: exactly these types, as what derives from them may look otherwise.
SCALARS: Mapping[type, Callable[[Any], str]] = {
    int: int.__repr__,
    str: quoted,
    bool: {True: "true", False: "false"}.__getitem__,
    type(None): {None: "null"}.__getitem__,
}


def make_record(
    task_id: str,
    result: Any,
    state: str,
    *,
    now: datetime,
    traceback: str | None = None,
    children: Sequence[Any] | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None,
    serializer: str = "json",
) -> Record:
    """Build a result record.

    Args:
        task_id: the task.
        result: the value; in a state that has one, an exception, which becomes what wire.md 4.2 says.
        state: its state.
        now: aware; the `date_done` of a finished state.
        traceback: its text.
        children: result tuples of the tasks it sent; None when there was no request.
        group_id: its group; left out when None.
        parent_id: the task that sent it; left out when None.
        extended: the fields of `extended_fields`.
        serializer: the name of the one that will write the record.
    """
    record: Record = {
        "status": state,
        "result": _result_form(state, result, serializer),
        "traceback": traceback,
        "children": children,
        "date_done": now.isoformat() if state in states.READY_STATES else None,
    }
    if group_id:
        record["group_id"] = group_id
    if parent_id:
        record["parent_id"] = parent_id
    if extended:
        record.update(extended)
    record["task_id"] = task_id
    return record


def success_json(
    task_id: str,
    result: Any,
    done: str,
    children: Sequence[Any] | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
) -> bytes:
    """Write the record of a success as JSON: the bytes that `encode_record` makes of what `make_record` gives.

    Nearly all records are of this shape, in which only id, value and date vary.

    Args:
        task_id: the task.
        result: the value.
        done: the `date_done`.
        children: as for `make_record`.
        group_id: the same.
        parent_id: the same.

    Raises:
        EncodeError: the value cannot be serialized.
        TypeError: an id is no text.
        ValueError: the value is a number of too many digits.
    """
    write = SCALARS.get(type(result))
    value = dumps(result)[2].decode() if write is None else write(result)
    sent = "[]" if children == [] else dumps(children)[2].decode()
    place = ""
    if group_id:
        place = f', "group_id": {quoted(group_id)}'
    if parent_id:
        place += f', "parent_id": {quoted(parent_id)}'
    return (
        f'{{"status": "SUCCESS", "result": {value}, "traceback": null, "children": {sent}, '
        f'"date_done": "{done}"{place}, "task_id": {quoted(task_id)}}}'
    ).encode()


def success_part_json(task_id: str, result: Any) -> bytes:
    """Write what a member that succeeded tells its chord as JSON: the bytes that `dumps` makes of the list.

    Raises what `success_json` raises.
    """
    return f'[1, {quoted(task_id)}, "SUCCESS", {_value_json(result)}]'.encode()


def _value_json(result: Any) -> str:
    write = SCALARS.get(type(result))
    return dumps(result)[2].decode() if write is None else write(result)


def _result_form(state: str, result: Any, serializer: str) -> Any:
    if state in states.EXCEPTION_STATES and isinstance(result, BaseException):
        return encode_exception(result, serializer)
    return result


def extended_fields(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    worker: str | None,
    retries: int,
    queue: str | None,
    stamped_headers: Sequence[str] | None = None,
    stamps: Mapping[str, Any] | None = None,
) -> Record:
    """Build what `result_extended` adds to a record.

    Args:
        name: task name.
        args: its arguments.
        kwargs: its keyword arguments.
        worker: the node that ran it.
        retries: how often it was retried before.
        queue: the routing key it came by.
        stamped_headers: names of its stamps; each becomes a field.
        stamps: their values.
    """
    fields: Record = {
        "name": name,
        "args": args,
        "kwargs": kwargs,
        "worker": worker,
        "retries": retries,
        "queue": queue,
    }
    if stamped_headers:
        fields["stamped_headers"] = stamped_headers
        fields.update((stamp, (stamps or {}).get(stamp)) for stamp in stamped_headers)
    return fields


def encode_record(record: Mapping[str, Any], serializer: str = "json") -> bytes:
    """Serialize a task's or a group's record.

    Raises:
        EncodeError: the result does not serialize; says where.
    """
    return dumps(record, serializer)[2]


def decode_record(payload: bytes | str, serializer: str = "json", accept: frozenset[str] | None = None) -> Record:
    """Read a stored record, compressed or not (wire.md 4.4).

    Args:
        payload: as stored.
        serializer: the name of the one that wrote it (`result_serializer`).
        accept: content types (`result_accept_content`); None accepts only what the serializer writes.

    Raises:
        ContentDisallowed: the serializer's type is not accepted.
        DecodeError: the payload is broken, or no record.
    """
    content_type, content_encoding = content_of(serializer)
    if isinstance(payload, bytes):
        payload = unpack_result(payload)
    record = loads(payload, content_type, content_encoding, frozenset((content_type,)) if accept is None else accept)
    if not isinstance(record, dict):
        raise exceptions.DecodeError(f"a result record must be a mapping, not {type(record).__name__}")
    return record


def with_exception(record: Record) -> Record:
    """Give the record with the exception that it stands for as its result, where its state has one.

    Raises:
        SecurityError: see `celery.wire.errors.decode_exception`; TypeError and ValueError too.
    """
    if record.get("status") not in states.EXCEPTION_STATES:
        return record
    return {**record, "result": decode_exception(record.get("result"))}


def task_tuple(task_id: str, parent: ResultTuple | None = None) -> ResultTuple:
    """Give the result tuple of one task."""
    return (task_id, parent), None


def group_tuple(group_id: str, members: Iterable[ResultTuple], parent: ResultTuple | None = None) -> ResultTuple:
    """Give the result tuple of a group."""
    return (group_id, parent), list(members)


class ResultNode(NamedTuple):
    """A result tuple, read."""

    id: str
    parent: ResultNode | None
    #: The members of a group; None for a task.
    members: list[ResultNode] | None


def read_tuple(value: Any) -> ResultNode:
    """Read a result tuple. Where a pair of id and parent belongs, a bare id is taken too.

    Raises:
        ValueError: the value has another shape.
    """
    try:
        head, members = value
        task_id, parent = (head, None) if isinstance(head, str) else head
    except (TypeError, ValueError):
        raise ValueError(f"a result tuple is [[id, parent], members], not {value!r}") from None
    if not isinstance(task_id, str):
        raise ValueError(f"a result tuple starts with the id of a task or group, not {task_id!r}")  # noqa: TRY004 - one error for callers to catch
    return ResultNode(
        task_id,
        None if parent is None else read_tuple(parent),
        None if members is None else [read_tuple(member) for member in members],
    )
