"""What `|` makes of two signatures, and what a workflow comes to when it is run. Pure: nothing is sent here.

    x | y       task            chain              group              chord              nothing
    task        <x y>           <x *y>             <x y>              <x y>              <x y>
    chain       x with y        x with each of y   x with y           x with y           x
    group       {x; y}          {x; y}             {x; y}             {x; y}             x
    chord       {h; b | y}      <x *y>             <x y>              {h; b | y}         <x y>

<...> is a chain, {header; body} a chord. *Nothing* is an empty group, or an empty chain. A group of one member is that
member, on the right of anything but a group. A chain *with* one more step:

    last step       step            the last step becomes
    group           not a group     {last; step}, as the end of its body if a chord is before it
    chord {h; b}    not a chord     {h; b | step}
    else                            <... last step>

Operands are cloned; the right one becomes part of the result as it is. `chain(x, y, z)` is an empty chain | x | y | z,
and a chain with nothing but a group in it is that group.

A chain that is run is first *laid out* flat, as steps that follow each other: chains inside it are spliced in, what is
empty is left out, a group that something follows is the header of a chord, and of a body that is a chain all but the
first step come after the chord. What follows a chord travels with its body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from celery.canvas.nesting import limits_depth
from celery.canvas.signature import Signature, as_list, maybe_signature

#: A signature of any kind.
Sig = Signature[Any]
Rule = Callable[[Sig, Sig], Sig]

TASK, CHAIN, GROUP, CHORD, NOTHING = "task", "chain", "group", "chord", "nothing"
_COMPOSED = frozenset({CHAIN, GROUP, CHORD})


def kind_of(sig: Mapping[str, Any]) -> str:
    """task, chain, group or chord."""
    kind = sig.get("subtask_type")
    return cast(str, kind) if kind in _COMPOSED else TASK


def members_of(sig: Mapping[str, Any]) -> Any:
    """Steps of a chain, members of a group, members of a chord's header."""
    kwargs = sig["kwargs"]
    if kind_of(sig) != CHORD:
        return kwargs["tasks"]
    header = kwargs["header"]
    return members_of(header) if isinstance(header, Mapping) else header


def header_of(sig: Sig) -> Any:
    """What a group or a chain is as a header: its members; but a group with options stays one, to keep them."""
    return sig if kind_of(sig) == GROUP and sig.options else members_of(sig)


def size_known(members: Any) -> bool:
    """Whether members are here, and not in a generator that is to be drawn when they are sent."""
    return isinstance(members, (list, tuple))


def is_nothing(sig: Mapping[str, Any]) -> bool:
    """Whether it is a group or a chain without anything to run."""
    waiting = [sig]
    while waiting:
        found = waiting.pop()
        if kind_of(found) not in (CHAIN, GROUP) or not size_known(members_of(found)):
            return False
        waiting.extend(members_of(found))
    return True


# -- making


def make_chain(steps: Iterable[Sig], app: Any = None) -> Any:
    """A chain of exactly these steps."""
    return _make(CHAIN, {"tasks": list(steps)}, app)


def make_chord(header: Any, body: Sig, app: Any = None) -> Any:
    """A chord of these members, or of this group, and this body."""
    return _make(CHORD, {"kwargs": {}, "header": header, "body": body}, app)


def _make(kind: str, kwargs: dict[str, Any], app: Any) -> Sig:
    fields = {"task": f"celery.{kind}", "args": (), "kwargs": kwargs, "options": {}, "subtask_type": kind}
    return Signature.from_dict({**fields, "immutable": False}, app=app)


# -- composing


@limits_depth
def compose(left: Sig, right: Sig) -> Any:
    """`left | right`."""
    if kind_of(left) != GROUP:  # as a body it stays a group: its result is a list
        right = unrolled(right)
    rule = _rule(kind_of(left), right)
    return rule(left, right)


def _rule(kind: str, right: Sig) -> Rule:
    """The entry of the first table."""
    column = NOTHING if is_nothing(right) else kind_of(right)
    return _RULES[kind].get(column) or _RULES[kind][TASK]


def unrolled(sig: Sig) -> Sig:
    """The member of a group that has only one; anything else as it is."""
    while kind_of(sig) == GROUP:
        members = members_of(sig)
        if not size_known(members) or len(members) != 1:
            break
        sig = cast(Sig, maybe_signature(members[0], app=sig._app))
    return sig


def fold(operands: Iterable[Sig], app: Any = None) -> Any:
    """All operands, composed from left to right, in time that is in proportion to their number."""
    result = make_chain((), app=app)
    waiting: Sig | None = None
    for operand in operands:
        if waiting is not None:
            result = _followed(result, waiting.clone())
        waiting = operand
    return result if waiting is None else _followed(result, waiting)


def _followed(result: Sig, operand: Sig) -> Sig:
    """Compose with what is our own already: a chain grows in place."""
    if kind_of(result) == CHAIN:
        return _extended(result, unrolled(operand))
    return cast(Sig, compose(result, operand))


def _extended(chain: Sig, right: Sig) -> Sig:
    """A chain with a step, or with the steps of a chain, at its end."""
    if is_nothing(right):
        return chain
    steps = members_of(chain)
    if not steps and kind_of(right) == GROUP:
        return right
    for step in _steps_of(right) if kind_of(right) == CHAIN else (right,):
        _append(steps, step)
    return chain


def _append(steps: list[Sig], step: Sig) -> None:
    """The second table of this module, for steps that are our own."""
    last = kind_of(steps[-1]) if steps else TASK
    kind = kind_of(step)
    if last == CHORD and kind != CHORD:
        _follow_body(steps[-1], step)
    elif last == GROUP and kind != GROUP:
        chord = make_chord(header_of(steps[-1]), step, app=steps[-1]._app)
        steps.pop()
        if steps and kind_of(steps[-1]) == CHORD:
            _follow_body(steps[-1], chord)
        else:
            steps.append(chord)
    else:
        steps.append(step)


def _follow_body(chord: Sig, step: Sig) -> None:
    """Put a step behind the body of a chord, or of the chord that this is (the same rule), and so on downwards."""
    body = cast(Sig, maybe_signature(chord.kwargs["body"], app=chord._app))
    while kind_of(body) == CHORD and _rule(CHORD, step) is _after_body:
        chord.kwargs["body"] = body
        chord, body = body, cast(Sig, maybe_signature(body.kwargs["body"], app=body._app))
    chord.kwargs["body"] = _followed(body, step)


def _steps_of(chain: Sig) -> list[Sig]:
    """Copies of the steps; what the chain is linked to goes with them (CANVAS-030)."""
    steps = [cast(Sig, maybe_signature(step, app=chain._app, clone=True)) for step in members_of(chain)]
    link_steps(steps, chain.options)
    return steps


def link_steps(steps: list[Sig], options: Mapping[str, Any]) -> None:
    """Links of a chain among its steps: callbacks follow the last one, error callbacks each."""
    if steps:
        for callback in as_list(options.get("link")):
            steps[-1].link(callback)
    for errback in as_list(options.get("link_error")):
        for step in steps:
            step.link_error(errback)


def _as_steps(left: Sig, right: Sig) -> Sig:
    following = _steps_of(right) if kind_of(right) == CHAIN else (right,)
    return cast(Sig, make_chain([left.clone(), *following], app=left._app))


def _with(left: Sig, right: Sig) -> Sig:
    return _extended(make_chain(_steps_of(left), app=left._app), right)


def _unchanged(left: Sig, _right: Sig) -> Sig:
    return left.clone()


def _as_header(left: Sig, right: Sig) -> Sig:
    return cast(Sig, make_chord(header_of(left.clone()), right, app=left._app))


def _after_body(left: Sig, right: Sig) -> Sig:
    chord = left.clone()
    _follow_body(chord, right)
    return chord


#: Kind on the left -> kind on the right -> what makes the result; where there is no entry, as for a task.
_RULES: dict[str, dict[str, Rule]] = {
    TASK: {TASK: _as_steps},
    CHAIN: {TASK: _with, NOTHING: _unchanged},
    GROUP: {TASK: _as_header, NOTHING: _unchanged},
    CHORD: {TASK: _after_body, CHAIN: _as_steps, GROUP: _as_steps, NOTHING: _as_steps},
}


# -- laying out


def laid_out(steps: Iterable[Mapping[str, Any]], app: Any = None) -> list[Sig]:
    """The steps of a chain, ready to follow each other.

    Put together from the end, so that each is looked at once: from the front, each group of a row would be looked for
    at the bottom of all before it.
    """
    found: list[Sig] = []
    for step in reversed([*_spliced(steps, app)]):
        if found and ends_in_group(step):
            found[-1] = after_group(step, found[-1])
        else:
            found.append(step)
    found.reverse()
    return found


def after_group(ending: Sig, step: Sig) -> Sig:
    """What ends in a group and a step after it: that group becomes the header of a chord, however deep it is."""
    kind = kind_of(ending)
    if kind == CHAIN:
        return cast(Sig, make_chain([*_steps_of(ending), step], app=ending._app))
    if kind == CHORD:
        body = cast(Sig, maybe_signature(ending.kwargs["body"], app=ending._app))
        return _with_body(ending, after_group(body, step))
    return cast(Sig, make_chord(ending, step, app=ending._app))


def _spliced(steps: Iterable[Mapping[str, Any]], app: Any) -> Iterator[Sig]:
    for step in steps:
        sig = unrolled(cast(Sig, maybe_signature(step, app=app)))
        if kind_of(sig) == CHAIN:
            yield from _spliced(_steps_of(sig), app)
        elif kind_of(sig) == CHORD and kind_of(sig.kwargs["body"] or {}) == CHAIN:
            yield from _opened(sig, app)
        elif not is_nothing(sig):
            yield sig


def _opened(chord: Sig, app: Any) -> Iterator[Sig]:
    """A chord whose body is a chain as a chord and the steps after it."""
    body = cast(Sig, maybe_signature(chord.kwargs["body"], app=app))
    first, *rest = [*_spliced(_steps_of(body), app)] or [body]
    of_first = {name: value for name, value in body.options.items() if name not in _OF_WHOLE_CHAIN}
    first.options.update(of_first)
    yield _with_body(chord, first)
    yield from rest


def _with_body(chord: Sig, body: Sig) -> Sig:
    kwargs = {**chord.kwargs, "body": body}
    fields = {**chord, "kwargs": kwargs, "options": dict(chord.options)}
    return Signature.from_dict(fields, app=chord._app)


#: Options of a chain that are not those of its first step.
_OF_WHOLE_CHAIN = frozenset(("task_id", "link", "link_error", "group_id", "group_index", "chord", "chain"))


def give(sig: Sig, args: Iterable[Any], kwargs: Mapping[str, Any] | None) -> None:
    """Put arguments before those of whatever runs first, where it takes any (CANVAS-026, CANVAS-038)."""
    kind = kind_of(sig)
    if kind == TASK:
        sig.args, sig.kwargs, _ = sig._merge(args, kwargs)
        return
    members = members_of(sig)
    for member in members[:1] if kind == CHAIN else members:
        give(cast(Sig, member), args, kwargs)


def ends_in_group(sig: Mapping[str, Any]) -> bool:
    """Whether what it comes to is the values of a group."""
    kind = kind_of(sig)
    if kind == CHAIN:
        steps = laid_out(members_of(sig))
        return bool(steps) and ends_in_group(steps[-1])
    if kind == CHORD:
        return bool(sig["kwargs"].get("body")) and ends_in_group(sig["kwargs"]["body"])
    return kind == GROUP


def completions(sig: Mapping[str, Any]) -> int:
    """How many parts a member of a chord's header makes (CANVAS-053)."""
    kind = kind_of(sig)
    if kind == GROUP:
        return sum(map(completions, members_of(sig)))
    if kind == CHORD:
        body = sig["kwargs"].get("body")
        return completions(body) if body else 1
    if kind == CHAIN:
        steps = laid_out(members_of(sig))
        return completions(steps[-1]) if steps else 0
    return 1
