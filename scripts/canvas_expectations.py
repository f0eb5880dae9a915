"""What Celery 5.7 makes of workflows, as expectations for our tests: run this with an interpreter that has Celery.

    python scripts/canvas_expectations.py tests/data/canvas

Writes `forms.json`, what compositions come to, `shown.json`, how they are shown, and `calls.json`, what is published
when workflows are called. Tests do the same here and compare (tests/unit/canvas/test_expectations.py); ids are numbered
in the order in which they are met, so that both can be compared.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import warnings
from pathlib import Path
from typing import Any

#: Operands, by name; `n` numbers their tasks.
OPERANDS = {
    "task": "t('a{n}')",
    "linked": "linked(t('a{n}'), 'q{n}')",
    "fixed": "t('a{n}').set(immutable=True)",
    "chain": "chain(t('a{n}'), t('b{n}'))",
    "chain1": "chain(t('a{n}'))",
    "chainL": "linked(chain(t('a{n}'), t('b{n}')), 'q{n}')",
    "chainG": "chain(t('a{n}'), group(t('x{n}'), t('y{n}')))",
    "chainC": "chain(t('a{n}'), group(t('x{n}'), t('y{n}')), t('b{n}'))",
    "group0": "group()",
    "group1": "group(t('x{n}'))",
    "group": "group(t('x{n}'), t('y{n}'))",
    "groupG": "group(t('x{n}'), group(t('y{n}'), t('z{n}')))",
    "groupO": "group(t('x{n}'), t('y{n}')).set(queue='q{n}')",
    "chord": "chord([t('x{n}'), t('y{n}')], t('b{n}'))",
    "chord0": "chord([], t('b{n}'))",
    "chordG": "chord([t('x{n}'), t('y{n}')], group(t('u{n}'), t('v{n}')))",
    "chordc": "chord([t('x{n}'), t('y{n}')], chain(t('u{n}'), t('v{n}')))",
    "chordL": "linked(chord([t('x{n}')], t('b{n}')), 'q{n}')",
}
#: Operands of compositions of three.
OF_THREE = ("task", "chain", "chainG", "group0", "group1", "group", "chord", "chordG")

#: Calls of workflows.
CALLS = [
    "chain(t('a', 1), t('b')).delay()",
    "chain(t('a', 1), t('b'), t('c')).apply_async((9,), {'z': 5}, queue='q', priority=2, countdown=0)",
    "chain(t('a'), t('b')).apply_async(task_id='TID', link=e(), link_error=[e('f')])",
    "chain(t('a'), t('b')).apply_async(group_id='GID', group_index=4, chord=t('body'), root_id='R', parent_id='P')",
    "chain(t('a').set(immutable=True), t('b')).delay(7)",
    "linked(chain(t('a'), t('b')), 'q').delay()",
    "chain(t('a'), linked(chain(t('b'), t('c')), 'q'), t('d')).delay()",
    "chain(t('a'), group(t('b'), t('c'))).delay()",
    "chain(t('a'), group(t('b'), t('c')), t('d')).delay()",
    "chain(t('a'), group(t('b'), t('c')), group(t('d'), t('e'))).delay()",
    "chain(t('a'), group(t('b'), t('c')), t('d'), group(t('e'), t('f')), t('g')).delay()",
    "chain(group(t('b'), t('c')), t('d')).apply_async(link=e(), link_error=e('f'), queue='q')",
    "chain(group(t('b'), t('c'))).delay()",
    "chain(group(), t('a')).delay(1)",
    "chain(t('a'), group(), t('b')).delay(1)",
    "chain(t('a'), chord([t('b')], t('c')), t('d')).delay()",
    "(chord([t('a'), t('b')], t('c')) | t('d') | t('e') | group(t('f'), t('g'))).delay()",
    "(chord([t('a')], group(t('b'), t('c'))) | t('d')).delay()",
    "group(t('a'), t('b')).delay()",
    "group(t('a'), t('b').set(immutable=True)).apply_async((7,), {'k': 3}, queue='q', task_id='GID', priority=3)",
    "group(t('a')).set(queue='z').delay()",
    "group(group(t('a'), t('b')), t('c')).delay()",
    "group([t('a'), t('b')]).skew(start=2, stop=3).delay()",
    "group(chain(t('a'), t('b')), t('c')).delay()",
    "group(chain(t('a'), group(t('b'), t('c')))).delay()",
    "group(chord([t('a'), t('b')], t('c')), t('d')).delay()",
    "group((t(n) for n in 'abc')).delay()",
    "group().delay()",
    "chord([t('a'), t('b')], t('c')).delay()",
    "chord([t('a')], t('c'))()",
    "chord([t('a'), t('b')])(t('c'))",
    "chord(group(t('a'), t('b')), t('c')).apply_async((1,), {'k': 2})",
    "chord(chain(t('a'), t('b')), t('c')).delay()",
    "chord(t('a'), t('c')).delay()",
    "chord((t(n) for n in 'ab'), t('c')).delay()",
    "chord([], t('c')).delay()",
    "chord([t('a'), t('b')], t('c')).apply_async(queue='q', priority=3, headers={'h': 1}, time_limit=9)",
    "chord([t('a'), t('b')], t('c')).set(queue='q').apply_async(task_id='TID')",
    "chord([t('a'), t('b')], t('c')).apply_async(countdown=5)",
    "chord([t('a'), t('b')], t('c')).apply_async(link=e(), link_error=e('f'))",
    "chord([t('a'), t('b')], group(t('c'), t('d'))).apply_async(link=e(), link_error=e('f'))",
    "chord([t('a'), t('b')], chain(t('c'), t('d'))).apply_async(link=e(), link_error=e('f'))",
    "linked(chord([t('a'), t('b')], t('c')), 'q').delay()",
    "chord([t('a'), chord([t('b'), t('c')], t('d'))], t('e')).delay()",
    "chord([chain(t('a'), t('b')), t('c')], t('d')).delay()",
    "chord([t('a'), t('b')], chain(t('c'), t('d'))).delay()",
    "chord([t('a'), t('b')], chord([t('c'), t('d')], t('e'))).delay()",
    "chain(t('a'), group(t('b'), chord([t('c')], t('d')))).delay()",
    "chain(t('a'), chord([t('b')], chord([t('c')], t('d')))).delay()",
    "chain(t('a'), chord([chord([t('b')], t('c')), t('d')], chain(t('e'), t('f')))).delay()",
    "chord([t('a')], chord([t('b'), chord([t('c')], t('d'))], t('e'))).delay()",
    "chain(t('a'), chord([t('b')], group(t('c'), t('d'))), t('e')).delay()",
    "group(t('a'), chain(t('b'), chord([t('c')], t('d')))).delay()",
    "chord([chain(t('a'), chord([t('b')], t('c'))), t('d')], t('e')).delay()",
    "chord([chain(t('a'), group(t('b'), t('c'))), t('d')], t('e')).delay()",
    "t('a').chunked([(1, 2), (3, 4), (5, 6)], 2).delay()",
    "xmap(t('a'), [1, 2]).delay()",
    "xstarmap(t('a'), [[1, 2]]).set(queue='q').delay()",
    "chunks(t('a'), [[1], [2], [3]], 2).apply_async(queue='q')",
    "linked(t('a'), 'q').delay()",
    "t('a').apply_async(link=[e(), e('f')], link_error=e())",
]
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}")


def world() -> dict[str, Any]:
    """Names that expressions use, of the Celery that is installed."""
    import celery

    app = celery.Celery("w", broker="memory://", backend="cache+memory://", set_as_current=True)

    def t(name: str, *args: Any, **kwargs: Any) -> Any:
        return app.signature(f"t.{name}", args=args, kwargs=kwargs)

    def e(name: str = "e") -> Any:
        return app.signature(f"t.{name}", immutable=True)

    def linked(sig: Any, queue: str) -> Any:
        sig.link(e("done"))
        sig.link_error(e("failed"))
        return sig.set(queue=queue)

    named = ("chain", "chord", "chunks", "group", "xmap", "xstarmap", "signals")
    return {"app": app, "t": t, "e": e, "linked": linked, **{name: getattr(celery, name) for name in named}}


def forms() -> dict[str, str]:
    """Compositions: how they are called in the expectations -> expression."""

    def operand(name: str, number: int = 1) -> str:
        return OPERANDS[name].format(n=number)

    found: dict[str, str] = {}
    for name in OPERANDS:
        found |= {f"{kind}({name})": f"{kind}({operand(name)})" for kind in ("chain", "group")}
        found[f"chord({name}, z)"] = f"chord({operand(name)}, t('z'))"
    for left, right in itertools.product(OPERANDS, OPERANDS):
        pair = f"{operand(left)}, {operand(right, 2)}"
        found |= {f"{kind}({left}, {right})": f"{kind}({pair})" for kind in ("chain", "group", "chord")}
        found[f"{left} | {right}"] = f"{operand(left)} | {operand(right, 2)}"
    for names in itertools.product(OF_THREE, repeat=3):
        found[" | ".join(names)] = " | ".join(operand(name, number) for number, name in enumerate(names, 1))
    return found


def written(sig: Any) -> str:
    """A form in short: <chain>, (group), {header; body}, with its options."""
    if sig is None:
        return "None"
    kwargs, options = sig["kwargs"], sig.get("options") or {}
    shown = {name: _inner(value) for name, value in sorted(options.items()) if value is not None}
    end = ("!" if sig.get("immutable") else "") + (str(shown) if shown else "")
    kind = sig.get("subtask_type")
    if kind in ("chain", "group"):
        inside = " ".join(map(written, kwargs["tasks"]))
        return (f"<{inside}>" if kind == "chain" else f"({inside})") + end
    if kind == "chord":
        header = kwargs["header"]
        members = written(header) if isinstance(header, dict) else f"[{' '.join(map(written, header))}]"
        return f"{{{members}; {written(kwargs['body'])}}}{end}"
    arguments = (list(sig["args"]) or "") and str(list(sig["args"]))
    return str(sig["task"]).removeprefix("t.") + arguments + (str(kwargs) if kwargs else "") + end


def _inner(value: Any) -> Any:
    if isinstance(value, dict) and "task" in value:
        return written(value)
    return [_inner(item) for item in value] if isinstance(value, list) else value


def evaluated(expression: str, names: dict[str, Any]) -> Any:
    """The value of an expression, or the name of the exception that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return eval(expression, dict(names))
        except Exception as exc:  # noqa: BLE001 - it is what is asked
            return f"{type(exc).__name__}"


def form(expression: str, names: dict[str, Any]) -> str:
    """What a composition comes to."""
    made = evaluated(expression, names)
    return made if isinstance(made, str) else written(made)


def shown(expression: str, names: dict[str, Any]) -> str:
    """How a composition is shown."""
    return re.sub("@0x[0-9a-f]+", "@0x", repr(evaluated(expression, names)))


def call(expression: str, names: dict[str, Any]) -> dict[str, Any]:
    """What a call publishes, and what it returns."""
    messages: list[Any] = []

    def keep(headers: Any, body: Any, routing_key: str, **_: Any) -> None:
        embed = {name: _inner(value) for name, value in body[2].items() if value}
        fields = ("task", "id", "group", "group_index", "root_id", "parent_id")
        shown = {name: headers[name] for name in fields if headers[name] is not None}
        later = {"eta": True} if headers["eta"] else {}
        where = {"queue": routing_key} if routing_key != "celery" else {}
        messages.append({**shown, "args": list(body[0]), "kwargs": body[1], **embed, **later, **where})

    publishing = names["signals"].before_task_publish
    publishing.connect(keep, weak=False)
    try:
        result = evaluated(expression, names)
    finally:
        publishing.disconnect(keep)
    tree = result.as_tuple() if hasattr(result, "as_tuple") else result
    return _numbered({"result": tree, "messages": messages})


def _numbered(value: dict[str, Any]) -> dict[str, Any]:
    """The same with ids numbered."""
    known: dict[str, str] = {}
    text = json.dumps(value, default=_plain)
    numbered: dict[str, Any] = json.loads(
        _ID.sub(lambda found: known.setdefault(found.group(), f"#{len(known)}"), text)
    )
    return numbered


def _plain(value: Any) -> Any:
    return written(value) if isinstance(value, dict) else repr(value)


def main(folder: Path) -> None:
    """Write the expectations of the Celery that is installed."""
    names = world()
    folder.mkdir(parents=True, exist_ok=True)
    composed = forms()
    made = {
        "forms": {name: form(expression, names) for name, expression in composed.items()},
        "shown": {name: shown(expression, names) for name, expression in composed.items() if name.count("|") == 1},
        "calls": {expression: call(expression, names) for expression in CALLS},
    }
    for name, content in made.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=0, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
