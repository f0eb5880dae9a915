"""Task messages: what the options of a call become on the wire, and what a message means (wire.md 1.1 to 1.4, 1.10).

Vocabulary: *headers* are the metadata that a worker needs before it touches the body; the *embed* is the third element
of a protocol 2 body, the workflow around the task (callbacks, errbacks, chain, chord); a *hybrid* is a protocol 1 body
under a protocol 2 `task` header, as other languages' clients send it.

Rules:

1. Everything comes as an argument: ids, origin and reply queue are given, and there is no clock. What the calls of a
   task have in common is a *template*, filled for each call.
2. Signatures travel as the mappings they are. A `chain` is in reverse order: the next step is the last element.
3. A reader treats a missing header like null, and gives every message in the form of protocol 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celery.exceptions import InvalidTaskError
from celery.utils.saferepr import saferepr
from celery.wire.closed import Steps, read_body
from celery.wire.compression import compress, decompress
from celery.wire.envelope import Envelope, Headers
from celery.wire.forms import Filled, Form, Message, plain
from celery.wire.serializers import dumps, is_plain_json, loads
from celery.wire.times import eta_text, expiry, parse_time

if TYPE_CHECKING:
    from datetime import tzinfo

#: A signature as it travels (wire.md 1.5).
Signature = Mapping[str, Any]

#: How long `argsrepr` and `kwargsrepr` get, and how deep (wire.md 1.7).
REPR_MAXSIZE = 1024
REPR_MAXLEVELS = 3
#: What "no limit" comes to: deeper, the text would be over its size anyway.
_DEEPEST = 100

#: Bytes of a body from which on its workflow stays closed: reading it twice costs more below.
LARGE_BODY = 2048

_BODY_NAMES = ("args", "kwargs", "embed")
_EMBED_NAMES = ("callbacks", "errbacks", "chain", "chord")
_NOTHING_AROUND: dict[str, Any] = dict.fromkeys(_EMBED_NAMES)

#: Every header that protocol 2 names, missing.
_HEADERS: Mapping[str, Any] = dict.fromkeys((
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit",
    "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting",
    "stamped_headers", "stamps",
))  # fmt: skip
#: What a worker computes with, and so must be of the right type.
_KINDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("task", str),
    ("id", str),
    ("retries", int),
    ("replaced_task_nesting", int),
    ("timelimit", (list, tuple)),
    ("stamps", dict),
)
_checked = itemgetter(*(name for name, _ in _KINDS))
#: What nearly every message has: a comparison in place of six tests, which halves the time of reading headers.
_USUAL_KINDS = (str, str, int, int, list, dict)
#: Headers of the protocol that are not always there.
_OCCASIONAL_HEADERS = frozenset({"compression", "meth"})
#: What a broker adds on the way; a message that is sent again starts without.
_TRANSIT_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "redelivered")


class UnknownMessageError(InvalidTaskError):
    """The message is no task message of any protocol: it is logged and rejected without requeue."""


class TaskMessage(NamedTuple):
    """A task message, read. Whatever it came as, its parts are those of protocol 2."""

    #: What it came as: 1 or 2 (a hybrid counts as 2).
    protocol: int
    #: Every header of protocol 2, and the caller's own.
    headers: Headers
    args: list[Any]
    kwargs: dict[str, Any]
    #: callbacks, errbacks, chain, chord; each null when there is none.
    embed: dict[str, Any]

    @property
    def id(self) -> str:
        """The task id."""
        return self.headers["id"]  # type: ignore[no-any-return] # checked by the reader

    @property
    def task(self) -> str:
        """The task name."""
        return self.headers["task"]  # type: ignore[no-any-return] # checked by the reader


# --- writing ----------------------------------------------------------------------------------------------------------


class Packing(msgspec.Struct, kw_only=True, frozen=True):
    """What the messages of many calls may share: limits, and how they are packed (API-026). Durations are seconds."""

    time_limit: float | None = None
    soft_time_limit: float | None = None
    #: None leaves it to the receiver's task.
    ignore_result: bool | None = None
    #: How deep the shown arguments go (SET-191; 0 and None: all).
    repr_maxlevels: int | None = REPR_MAXLEVELS
    serializer: str = "json"
    compression: str | None = None
    priority: int | None = None
    #: 2 persistent, 1 transient.
    delivery_mode: int = 2
    #: The caller's own, which win over the protocol's.
    properties: Mapping[str, Any] | None = None


class CallOptions(msgspec.Struct, kw_only=True, frozen=True):
    """What one call says of itself (API-012, API-026). Durations are seconds."""

    #: The present, aware and in UTC; needed with `countdown` and `expires`.
    now: datetime | None = None
    #: Not before so long from now; wins over `eta`.
    countdown: float | None = None
    #: Not before this moment; without zone in UTC.
    eta: str | datetime | None = None
    #: Not after this moment, or so long from now.
    expires: float | str | datetime | None = None
    group_id: str | None = None
    group_index: int | None = None
    #: How often it was retried so far.
    retries: int = 0
    #: The workflow's first task; the task itself when None.
    root_id: str | None = None
    #: The task that sends this one.
    parent_id: str | None = None
    #: What to show instead of the name.
    shadow: str | None = None
    replaced_task_nesting: int = 0
    #: Names of the stamps, and their values.
    stamped_headers: Sequence[str] | None = None
    stamps: Mapping[str, Any] | None = None
    #: What to send on success, and on failure.
    callbacks: Sequence[Signature] | None = None
    errbacks: Sequence[Signature] | None = None
    #: The steps after this one, in reverse order.
    chain: Sequence[Signature] | None = None
    #: The chord body, if the task is a part of one.
    chord: Signature | None = None
    #: What to show for the arguments; made from them when None.
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    #: The caller's own, which win over the protocol's.
    headers: Mapping[str, Any] | None = None


#: A call that says nothing of itself.
PLAIN_CALL = CallOptions()
#: What its body says of the workflow around it.
_ALONE = dict.fromkeys(_EMBED_NAMES)
_ALONE_JSON = dumps(_ALONE)[2]


class Template:
    """A message with everything but id and arguments: made once for calls that are alike, filled for each (API-116).

    Args:
        name: task name.
        packing: what the messages of many calls share.
        own: what these calls say of themselves.

    Raises:
        EncodeError: something that follows the call does not serialize; says what.
        ValueError: a time is no time.
        ImproperlyConfigured: unknown serializer.
    """

    __slots__ = ("_body", "_form", "_headers", "_levels", "_own_headers", "_packing", "_properties", "_tail", "name")

    def __init__(self, name: str, packing: Packing, own: CallOptions = PLAIN_CALL) -> None:
        expires, expiration = (None, None) if own.expires is None else expiry(own.expires, own.now)
        self.name = name
        self._packing = packing
        self._levels = packing.repr_maxlevels or _DEEPEST
        self._own_headers = own.headers
        self._properties: dict[str, Any] = {
            "delivery_mode": packing.delivery_mode,
            "priority": packing.priority or 0,
        }
        if expiration is not None:
            self._properties["expiration"] = expiration
        if packing.properties:
            self._properties.update(packing.properties)
        self._form: Form | None = None
        self._take(own, expires)

    def _take(self, own: CallOptions, expires: str | None) -> None:
        """Headers, and what the body ends with."""
        packing = self._packing
        self._headers: Headers = {
            "lang": "py",
            "task": self.name,
            "id": None,
            "shadow": own.shadow,
            "eta": eta_text(own.eta, own.countdown, own.now),
            "expires": expires,
            "group": own.group_id,
            "group_index": own.group_index,
            "retries": own.retries,
            "timelimit": [packing.time_limit, packing.soft_time_limit],
            "root_id": own.root_id,
            "parent_id": own.parent_id,
            "argsrepr": own.argsrepr,
            "kwargsrepr": own.kwargsrepr,
            "origin": None,
            "ignore_result": packing.ignore_result,
            "replaced_task_nesting": own.replaced_task_nesting,
            "stamped_headers": own.stamped_headers,
            "stamps": own.stamps or {},
        }
        embed = {"callbacks": own.callbacks, "errbacks": own.errbacks, "chain": own.chain, "chord": own.chord}
        self._body: Any = embed
        #: The end of the body, from behind the arguments: in JSON it is the same in all these messages.
        self._tail = b""
        if packing.serializer == "json":
            self._tail = b", %b]" % (_ALONE_JSON if own is PLAIN_CALL else _embed_json(embed))
        elif isinstance(own.chain, Steps):
            embed["chain"] = list(own.chain)

    def fill(
        self,
        task_id: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        reply_to: str,
        origin: str | None = None,
        group_index: int | None = None,
    ) -> Message:
        """The message of one call: a `Filled`, or an envelope where it is compressed.

        Args:
            task_id: the id.
            args: positional arguments, a list or tuple.
            kwargs: keyword arguments.
            reply_to: the sender's reply queue.
            origin: who sends: `gen<pid>@<host>`.
            group_index: its place in a group, if that is not the template's.

        Raises:
            EncodeError: an argument does not serialize; says which.
            TypeError: `args` is no list or tuple, or `kwargs` no mapping.
            ImproperlyConfigured: unknown serializer or compression.
        """
        if type(args) is not tuple or type(kwargs) is not dict:
            args, kwargs = _checked_arguments(self.name, args, kwargs)
        fixed = self._headers
        argsrepr, kwargsrepr = fixed["argsrepr"], fixed["kwargsrepr"]
        if argsrepr is None:
            argsrepr = saferepr(args, REPR_MAXSIZE, self._levels)
        if kwargsrepr is None:
            kwargsrepr = saferepr(kwargs, REPR_MAXSIZE, self._levels) if kwargs else "{}"
        if group_index is None:
            group_index = fixed["group_index"]
        if not self._tail:
            content = dumps((args, kwargs, self._body), self._packing.serializer, names=_BODY_NAMES)
            content_type, content_encoding, payload = content
        else:
            content_type, content_encoding, payload = dumps((args, kwargs), names=_BODY_NAMES)
            payload = payload[:-1]
        form = self._form
        if form is None or form.origin is not origin:
            headers = {**fixed, "origin": origin}
            form = Form(headers, self._own_headers, self._properties, content_type, content_encoding, self._tail)
            self._form = form
        filled = Filled(form, task_id, payload, reply_to, argsrepr, kwargsrepr, group_index)
        if self._packing.compression:
            payload, name = compress(filled.body, self._packing.compression)
            headers, properties = {**filled.headers, "compression": name}, filled.properties
            return Envelope(headers, payload, content_type, content_encoding, properties)
        return filled


class TemplateV1(Template):
    """The same of protocol 1 (`task_protocol` 1, SET-184).

    What that cannot say (root, parent, stamps...) is left out; a chain travels as links nested in `callbacks`.
    """

    __slots__ = ()

    def _take(self, own: CallOptions, expires: str | None) -> None:
        self._headers = {}
        self._body = {
            "task": self.name,
            "id": None,
            "args": (),
            "kwargs": {},
            "group": own.group_id,
            "group_index": own.group_index,
            "retries": own.retries,
            "eta": eta_text(own.eta, own.countdown, own.now),
            "expires": expires,
            "utc": True,
            "callbacks": [*(own.callbacks or ()), _nest_links(own.chain)] if own.chain else own.callbacks,
            "errbacks": own.errbacks,
            "timelimit": [self._packing.time_limit, self._packing.soft_time_limit],
            "taskset": own.group_id,
            "chord": own.chord,
        }

    def fill(
        self,
        task_id: str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        reply_to: str,
        origin: str | None = None,  # noqa: ARG002 - cannot be said
        group_index: int | None = None,
    ) -> Message:
        """The message of one call; arguments and errors are those of `Template.fill`."""
        args, kwargs = _checked_arguments(self.name, args, kwargs)
        body = {**self._body, "id": task_id, "args": args, "kwargs": kwargs}
        if group_index is not None:
            body["group_index"] = group_index
        content_type, content_encoding, payload = dumps(body, self._packing.serializer)
        headers = dict(self._own_headers or ())
        if self._packing.compression:
            payload, headers["compression"] = compress(payload, self._packing.compression)
        properties = {"correlation_id": task_id, "reply_to": reply_to, **self._properties}
        return Envelope(headers, payload, content_type, content_encoding, properties)


def as_task_v2(
    task_id: str, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> Envelope:
    """Build one protocol 2 message: a template, filled.

    Args:
        task_id: the id.
        name: task name.
        args: positional arguments.
        kwargs: keyword arguments.
        options: the fields of `Packing` and `CallOptions`, `reply_to` and `origin`.

    Raises:
        TypeError: there is no such option; and as `Template.fill`.
    """
    return _as_task(Template, task_id, name, args, kwargs, options)


def as_task_v1(
    task_id: str, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> Envelope:
    """Build one protocol 1 message; arguments and errors are those of `as_task_v2`."""
    return _as_task(TemplateV1, task_id, name, args, kwargs, options)


def _as_task(
    kind: type[Template], task_id: str, name: str, args: Any, kwargs: Any, options: dict[str, Any]
) -> Envelope:
    reply_to, origin = options.pop("reply_to"), options.pop("origin", None)
    own = {option: options.pop(option) for option in CallOptions.__struct_fields__ if option in options}
    template = kind(name, Packing(**options), CallOptions(**own))
    return plain(template.fill(task_id, args, kwargs, reply_to=reply_to, origin=origin))


def _checked_arguments(
    name: str, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Replace missing arguments by empty ones, and refuse what a receiver could not call the task with."""
    if args is None:
        args = ()
    elif not isinstance(args, (list, tuple)):
        raise TypeError(f"args of task {name} must be a list or tuple, not {type(args).__name__}: {args!r}")
    if kwargs is None:
        kwargs = {}
    elif not isinstance(kwargs, dict):
        try:
            kwargs = dict(kwargs)
        except (TypeError, ValueError):
            raise TypeError(f"kwargs of task {name} must be a mapping, not {type(kwargs).__name__}") from None
    return args, kwargs


def _nest_links(chain: Sequence[Signature]) -> Signature:
    """Fold the steps of a chain, given in reverse order, into the first one's links."""
    folded: Signature | None = None
    for step in chain:
        options = dict(step.get("options") or {})
        if folded is not None:
            options["link"] = [*(options.get("link") or ()), folded]
        folded = {**step, "options": options}
    assert folded is not None
    return folded


def next_step(chain: Sequence[Signature] | None) -> tuple[Signature, Sequence[Signature]] | None:
    """Split a chain as it travels into the step to send now and what that step carries on; None when it is over."""
    return (chain[-1], chain[:-1]) if chain else None


def _embed_json(embed: dict[str, Any]) -> bytes:
    """The embed as JSON; steps that are still closed go on as they came."""
    chain = embed["chain"]
    if not isinstance(chain, Steps):
        return dumps(embed)[2]
    steps = [step if isinstance(step, bytes) else dumps(step)[2] for step in chain.texts()]
    fields = [
        b'"%s": %s' % (name.encode(), b"[" + b", ".join(steps) + b"]" if name == "chain" else dumps(value)[2])
        for name, value in embed.items()
    ]
    return b"{" + b", ".join(fields) + b"}"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_headers(envelope: Envelope) -> Headers | None:
    """Read what the headers alone tell, without touching the body.

    Returns:
        All headers of protocol 2 and the caller's own, or None for a message that keeps its metadata in the body
        (protocol 1, or no task message at all: only `read_task` can tell).

    Raises:
        InvalidTaskError: a `task` without `id`, or a time that is no time.
    """
    headers = envelope.headers
    return _complete(headers) if headers and headers.get("task") else None


def read_task(envelope: Envelope, accept: frozenset[str], zone: tzinfo = UTC, *, closed: bool = False) -> TaskMessage:
    """Read a task message of any protocol.

    Args:
        envelope: the message.
        accept: content types, from `serializers.resolve_accept`.
        zone: of the application; protocol 1 messages without UTC use it.
        closed: `chain` and `chord` of a large body may stay closed (`celery.wire.closed`).

    Raises:
        ContentDisallowed: the content type is missing or not accepted; nothing was decoded.
        DecodeError: the body is broken.
        UnknownMessageError: it is no task message.
        InvalidTaskError: it is one, but cannot be run: arguments of a wrong kind, or a time that is no time.
    """
    headers, payload = envelope.headers or {}, envelope.body
    if headers.get("compression") and envelope.content_type in accept:
        payload = decompress(payload, headers["compression"])
    if closed and len(payload) > LARGE_BODY and headers.get("task"):
        kind = envelope.content_type, envelope.content_encoding
        read = read_body(payload) if is_plain_json(payload, *kind, accept) else None
        if read is not None:
            return _message(2, headers, *read)
    body = loads(payload, envelope.content_type, envelope.content_encoding, accept)
    is_mapping = isinstance(body, dict)
    if headers.get("task"):
        if is_mapping and "args" in body:
            given = {name: value for name, value in headers.items() if value is not None}
            return _message(2, {**_headers_of_v1(body, zone), **given}, body.get("args"), body.get("kwargs"), body)
        if isinstance(body, (list, tuple)) and len(body) == len(_BODY_NAMES):
            return _message(2, headers, *body)
    elif is_mapping and body.get("task"):
        return _message(1, {**headers, **_headers_of_v1(body, zone)}, body.get("args"), body.get("kwargs"), body)
    raise UnknownMessageError(
        f"neither protocol 1 nor 2: headers {saferepr(headers, REPR_MAXSIZE)}, body {saferepr(body, REPR_MAXSIZE)}"
    )


def _message(protocol: int, headers: Headers, args: Any, kwargs: Any, embed: Any) -> TaskMessage:
    complete = _complete(headers)
    if not isinstance(args, (list, tuple)) and args is not None:
        raise InvalidTaskError(f"args of task {_title(complete)} must be a list, not {type(args).__name__}")
    if not isinstance(kwargs, dict) and kwargs is not None:
        raise InvalidTaskError(f"kwargs of task {_title(complete)} must be a mapping, not {type(kwargs).__name__}")
    if embed and not isinstance(embed, dict):
        raise InvalidTaskError(f"the embed of task {_title(complete)} must be a mapping, not {type(embed).__name__}")
    around = _NOTHING_AROUND.copy()
    if embed and embed != around:
        around.update((name, embed.get(name) or None) for name in _EMBED_NAMES)
    return TaskMessage(protocol, complete, list(args or ()), kwargs or {}, around)


_NO_LIMITS, _SECONDS = [None, None], (int, float, type(None))


def _complete(headers: Headers) -> Headers:
    """Add the headers that are missing, give null its meaning, and check what a worker must rely on."""
    complete = {**_HEADERS, **headers}
    task_id = complete["id"]
    if not task_id:
        raise InvalidTaskError(f"the message for task {complete['task']} has no id")
    if complete["root_id"] is None:
        complete["root_id"] = task_id
    complete["retries"] = complete["retries"] or 0
    complete["replaced_task_nesting"] = complete["replaced_task_nesting"] or 0
    complete["timelimit"] = complete["timelimit"] or [None, None]
    complete["stamps"] = complete["stamps"] or {}
    if tuple(map(type, _checked(complete))) != _USUAL_KINDS:
        for name, kind in _KINDS:
            if not isinstance(complete[name], kind):
                raise InvalidTaskError(f"{name} of task {_title(complete)} is {complete[name]!r}, of a wrong type")
    limits = complete["timelimit"]
    if limits != _NO_LIMITS and not (len(limits) == 2 and all(isinstance(limit, _SECONDS) for limit in limits)):
        raise InvalidTaskError(f"timelimit of task {_title(complete)} must be [hard, soft], in seconds, not {limits!r}")
    for name in ("eta", "expires"):
        if complete[name] is not None:
            header_time(complete, name)
    return complete


def _headers_of_v1(body: Mapping[str, Any], zone: tzinfo) -> Headers:
    """Give the metadata of a protocol 1 body as headers. `taskset` wins over `group`."""
    headers = {name: body[name] for name in _HEADERS if name in body}
    headers["group"] = body.get("taskset") or body.get("group")
    local = UTC if body.get("utc", True) else zone
    for name in ("eta", "expires"):
        if headers.get(name) is not None:
            headers[name] = _moment(headers, name, local).isoformat()
    return headers


def header_time(headers: Headers, name: str) -> datetime | None:
    """Read the `eta` or `expires` header.

    Returns:
        An aware datetime; None when there is none.

    Raises:
        InvalidTaskError: it is no time.
    """
    return None if headers.get(name) is None else _moment(headers, name, UTC)


def _moment(headers: Headers, name: str, zone: tzinfo) -> datetime:
    try:
        return parse_time(headers[name], zone)
    except ValueError as exc:
        raise InvalidTaskError(f"{name} of task {_title(headers)} is not a time: {exc}") from None


def _title(headers: Headers) -> str:
    return f"{headers.get('task')}[{headers.get('id')}]"


def custom_headers(headers: Headers) -> Headers | None:
    """Pick the caller's own headers, which `request.headers` shows (API-044); None when there are none."""
    own = {name: value for name, value in headers.items() if name not in _HEADERS and name not in _OCCASIONAL_HEADERS}
    return own or None


def retry_headers(headers: Headers) -> Headers:
    """Pick the caller's own headers for sending the task again: without what a broker added on the way."""
    own = custom_headers(headers) or {}
    return {name: value for name, value in own.items() if not name.startswith(_TRANSIT_HEADERS)}
