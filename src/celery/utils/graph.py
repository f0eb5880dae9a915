"""Dependencies: what must come before what, and a drawing of it.

An edge from A to B says that A depends on B. `DependencyGraph.topsort` is a depth-first walk that lists a node after
all it depends on; a node met again while it is still being walked closes a cycle.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ("CycleError", "DependencyGraph", "GraphFormatter")


class CycleError(Exception):
    """Nodes depend on each other in a circle."""


class DependencyGraph:
    """A directed graph of hashable nodes.

    Args:
        it: Pairs of a node and the nodes that it depends on.
        formatter: Draws the graph for `to_dot`.
    """

    def __init__(
        self, it: Iterable[tuple[Any, Iterable[Any]]] | None = None, formatter: GraphFormatter | None = None
    ) -> None:
        self.formatter = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:  # noqa: N803 - the documented names
        """Say that the node A depends on B.

        Raises:
            KeyError: A was not added.
        """
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Add the nodes and edges of another graph."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add nodes with what they depend on."""
        pairs = [(obj, list(dependencies)) for obj, dependencies in it]
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, dependencies in pairs:
            for dependency in dependencies:
                self.add_edge(obj, dependency)

    def topsort(self) -> list[Any]:
        """Return the nodes, each after all that it depends on.

        Raises:
            CycleError: There is no such order; the text names the circle.
        """
        done: dict[Any, None] = {}
        path: dict[Any, None] = {}

        def visit(node: Any) -> None:
            if node in done:
                return
            if node in path:
                circle = [*list(path)[list(path).index(node) :], node]
                raise CycleError(f"these depend on each other: {' -> '.join(map(str, circle))}")
            path[node] = None
            for dependency in self.adjacent.get(node, ()):
                visit(dependency)
            del path[node]
            done[node] = None

        for node in self.adjacent:
            visit(node)
        return list(done)

    def valency_of(self, obj: Any) -> int:
        """Return how many nodes ``obj`` depends on, directly or not, counting each way to them."""
        return sum(1 + self.valency_of(dependency) for dependency in self.adjacent.get(obj, ()))

    def edges(self) -> Iterator[Any]:
        """Yield the nodes that depend on others."""
        return (obj for obj, dependencies in self.items() if dependencies)

    def to_dot(self, fh: Any, formatter: GraphFormatter | None = None) -> None:
        """Write the graph in the language of Graphviz.

        Args:
            fh: A file for text.
            formatter: Draws it instead of the graph's own.
        """
        draw = formatter or self.formatter
        drawn: set[str] = set()

        def write(line: str) -> None:
            fh.write(f"{line}\n")

        def write_node(line: str, obj: Any) -> None:
            if draw.label(obj) not in drawn:
                drawn.add(draw.label(obj))
                write(line)

        write(draw.head())
        for obj, dependencies in self.items():
            if not dependencies:
                write_node(draw.terminal_node(obj), obj)
            for dependency in dependencies:
                write_node(draw.node(obj), obj)
                write(draw.edge(obj, dependency))
        write(draw.tail())

    def format(self, obj: Any) -> str:
        """Return the label of a node."""
        return self.formatter.label(obj)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: object) -> bool:
        return obj in self.adjacent

    def items(self) -> Iterator[tuple[Any, list[Any]]]:
        """Yield nodes with what they depend on."""
        return iter(self.adjacent.items())

    iteritems = items

    def __repr__(self) -> str:
        return "\n".join(self.repr_node(node) for node in self)

    def repr_node(self, obj: Any, level: int = 1, fmt: str = "{0}({1})") -> str:
        """Return a node and what it depends on as an indented list."""
        below = (" " * 4 * level + self.repr_node(other, level + 1, fmt) for other in self.adjacent.get(obj, ()))
        return "\n".join([fmt.format(obj, self.valency_of(obj)), *below])


class GraphFormatter:
    """Writes nodes and edges in the language of Graphviz; subclass it to draw otherwise.

    Args:
        root: Node shown as the root.
        type: ``digraph`` or ``graph``.
        id: Name of the graph.
        indent: Columns in front of every line.
        inw: What to indent with.
        scheme: Attributes of everything, over `scheme`.
    """

    _dirs: Mapping[str, str] = {"graph": "--", "digraph": "->"}
    scheme: dict[str, Any] = {"shape": "box", "arrowhead": "vee", "style": "filled", "fontname": "HelveticaNeue"}
    edge_scheme: dict[str, Any] = {"color": "darkseagreen4", "arrowcolor": "black", "arrowsize": 0.7}
    node_scheme: dict[str, Any] = {"fillcolor": "palegreen3", "color": "palegreen4"}
    term_scheme: dict[str, Any] = {"fillcolor": "palegreen1", "color": "palegreen2"}
    graph_scheme: dict[str, Any] = {"bgcolor": "mintcream"}

    def __init__(
        self, root: Any = None, type: str | None = None, id: str | None = None, indent: int = 0, inw: str = "    ",
        **scheme: Any,
    ) -> None:  # fmt: skip
        self.id = id or "dependencies"
        self.root = root
        self.type = type or "digraph"
        self.direction = self._dirs[self.type]
        self.IN = inw * (indent or 0)
        self.INp = self.IN + inw
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme = {**self.graph_scheme, "root": self.label(root)}

    def attr(self, name: str, value: Any) -> str:
        """Return one attribute."""
        return f'{name}="{value}"'

    def attrs(self, d: Mapping[str, Any] | None, scheme: Mapping[str, Any] | None = None) -> str:
        """Return attributes over those of a scheme."""
        merged = {**self.scheme, **(scheme or {}), **(d or {})}
        return ", ".join(self.attr(name, value) for name, value in merged.items())

    def head(self, **attrs: Any) -> str:
        """Return the first lines."""
        return f"{self.IN}{self.type} {self.id} {{\n{self.INp}graph [{self.attrs(attrs, self.graph_scheme)}]"

    def tail(self) -> str:
        """Return the last line."""
        return f"{self.IN}}}"

    def label(self, obj: Any) -> str:
        """Return what to call a node."""
        return str(obj)

    def node(self, obj: Any, **attrs: Any) -> str:
        """Return the line of a node that depends on others."""
        return self.draw_node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> str:
        """Return the line of a node that depends on nothing."""
        return self.draw_node(obj, self.term_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> str:
        """Return the line of an edge."""
        return self.draw_edge(a, b, **attrs)

    def draw_edge(self, a: Any, b: Any, scheme: Mapping[str, Any] | None = None, attrs: Any = None) -> str:
        """Return the line of an edge in a scheme."""
        style = self.attrs(attrs, scheme or self.edge_scheme)
        return f'{self.INp}"{self.label(a)}" {self.direction} "{self.label(b)}" [{style}]'

    def draw_node(self, obj: Any, scheme: Mapping[str, Any] | None = None, attrs: Any = None) -> str:
        """Return the line of a node in a scheme."""
        return f'{self.INp}"{self.label(obj)}" [{self.attrs(attrs, scheme or self.node_scheme)}]'
