"""Workflows as pictures: DOT and Mermaid text of a signature, or of the results of one that was sent.

A *drawing* is nodes and arrows. A part of a workflow has entries, where data comes in, and exits, where it goes on;
composing two parts draws an arrow from each exit of the first to each entry of the second, through a small joint where
both are many, so that a header of n and a group of m give n + m arrows and not n times m.

    | part         | entries                 | exits                     |
    |--------------|-------------------------|---------------------------|
    | task         | itself                  | itself                    |
    | chain        | those of its first step | those of its last step    |
    | group        | those of all members    | those of all members      |
    | chord        | those of its header     | those of its body         |
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import states

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: Fill of a node, by state; a task that nothing is known of is left white.
_FILLS = {
    states.SUCCESS: "#c6e9c6",
    states.FAILURE: "#f4c2c2",
    states.REVOKED: "#d9d9d9",
    states.STARTED: "#cfe2f3",
    states.RETRY: "#fff2cc",
}


class Node(NamedTuple):
    """A task in the picture."""

    label: str
    state: str | None = None
    #: When it ended, for people.
    ended: str | None = None

    def lines(self) -> list[str]:
        """What is written on it."""
        state = " ".join(filter(None, (self.state, self.ended)))
        return [self.label, state] if state else [self.label]


class Part(NamedTuple):
    """Where data comes in and goes on, as numbers of nodes."""

    entries: Sequence[int]
    exits: Sequence[int]


class Drawing:
    """Nodes and arrows of one workflow."""

    def __init__(self) -> None:
        #: None: a joint.
        self.nodes: list[Node | None] = []
        self.arrows: list[tuple[int, int]] = []

    def add(self, node: Node | None) -> Part:
        """Draw a task, or a joint."""
        self.nodes.append(node)
        return Part((len(self.nodes) - 1,), (len(self.nodes) - 1,))

    def join(self, first: Part, second: Part) -> None:
        """Data goes from one part to the next."""
        if len(first.exits) > 1 and len(second.entries) > 1:
            joint = self.add(None)
            self.join(first, joint)
            first = joint
        self.arrows += [(start, end) for start in first.exits for end in second.entries]

    def beside(self, parts: Iterable[Part]) -> Part:
        """Parts side by side are a part."""
        drawn = list(parts)
        return Part([n for part in drawn for n in part.entries], [n for part in drawn for n in part.exits])

    def along(self, parts: Iterable[Part]) -> Part:
        """Parts one after the other are a part; those that are empty are passed over."""
        drawn = [part for part in parts if part.entries]
        for first, second in pairwise(drawn):
            self.join(first, second)
        return Part(drawn[0].entries, drawn[-1].exits) if drawn else Part((), ())

    def dot(self) -> str:
        """The picture for Graphviz."""
        lines = ["digraph workflow {", "  rankdir=LR", '  node [shape=box style="rounded,filled" fillcolor=white]']
        for number, node in enumerate(self.nodes):
            if node is None:
                lines.append(f"  n{number} [shape=point]")
            else:
                text = "\\n".join(map(_escaped, node.lines()))
                fill = f' fillcolor="{_FILLS[node.state]}"' if node.state in _FILLS else ""
                lines.append(f'  n{number} [label="{text}"{fill}]')
        lines += [f"  n{start} -> n{end}" for start, end in self.arrows]
        return "\n".join([*lines, "}"])

    def mermaid(self) -> str:
        """The picture for Mermaid, which Markdown viewers draw."""
        lines = ["flowchart LR"]
        for number, node in enumerate(self.nodes):
            if node is None:
                lines.append(f"  n{number}(( ))")
            else:
                text = "<br>".join(line.replace('"', "#quot;") for line in node.lines())
                lines.append(f'  n{number}["{text}"]')
        lines += [f"  n{start} --> n{end}" for start, end in self.arrows]
        used = [(number, node.state) for number, node in enumerate(self.nodes) if node and node.state in _FILLS]
        lines += [f"  style n{number} fill:{_FILLS[state]}" for number, state in used if state]
        return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


# -- of a signature


def of_signature(signature: Mapping[str, Any]) -> Drawing:
    """The picture of a workflow that need not have been sent.

    Args:
        signature: of any kind, as an object or in its dict form.
    """
    drawing = Drawing()
    _draw(drawing, signature)
    return drawing


def _draw(drawing: Drawing, signature: Mapping[str, Any]) -> Part:
    kwargs = signature.get("kwargs") or {}
    draw = _KINDS.get(signature.get("subtask_type") or "")
    return draw(drawing, kwargs) if draw else drawing.add(Node(_label(signature)))


def _draw_chain(drawing: Drawing, kwargs: Mapping[str, Any]) -> Part:
    return drawing.along([_draw(drawing, step) for step in kwargs["tasks"]])


def _draw_group(drawing: Drawing, kwargs: Mapping[str, Any]) -> Part:
    return drawing.beside([_draw(drawing, member) for member in kwargs["tasks"]])


def _draw_chord(drawing: Drawing, kwargs: Mapping[str, Any]) -> Part:
    header = kwargs["header"]
    members = [header] if isinstance(header, dict) else header
    body = kwargs.get("body")
    parts = [drawing.beside([_draw(drawing, member) for member in members])]
    if body:
        parts.append(_draw(drawing, body))
    return drawing.along(parts)


_KINDS: dict[str, Callable[[Drawing, Mapping[str, Any]], Part]] = {
    "chain": _draw_chain,
    "group": _draw_group,
    "chord": _draw_chord,
}


def _label(signature: Mapping[str, Any]) -> str:
    """The task's name; of a mapped call that of the task it maps."""
    inner = (signature.get("kwargs") or {}).get("task")
    if isinstance(inner, dict):
        return f"{signature['task']} of {inner['task']}"
    return str(signature["task"])


# -- of results


def of_result(result: Any) -> Drawing:
    """The picture of a workflow that was sent, with states and times as far as they are stored.

    Args:
        result: what sending it gave: its parents are what came before, its children what each task has sent. Names of
            tasks are known with `result_extended` only; else a node shows its id.

    Raises:
        OperationalError: the store cannot be reached.
    """
    drawing = Drawing()
    _of_result(drawing, result, {})
    return drawing


def _of_result(drawing: Drawing, result: Any, known: dict[str, Part]) -> Part:
    if result.id in known:
        return known[result.id]
    members = getattr(result, "results", None)
    if members is not None:
        part = drawing.beside([_of_result(drawing, member, known) for member in members])
    else:
        part = drawing.add(_node_of(result))
    known[result.id] = part
    if result.parent is not None:
        drawing.join(_of_result(drawing, result.parent, known), part)
    if members is None and result.ready():
        for child in result.children or ():
            if child.id not in known:
                drawing.join(part, _of_result(drawing, child, known))
    return part


def _node_of(result: Any) -> Node:
    ended = result.date_done
    return Node(
        result.name or result.id, result.state, f"{ended:%H:%M:%S}.{ended.microsecond // 1000:03}" if ended else None
    )
