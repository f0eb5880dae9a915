"""Stamps: headers of one's own on every call of a workflow (API-078..080).

Rules
    1. A stamp is an option of the call, whose name is in its option `stamped_headers`; in the message it is in the
       header `stamps`.
    2. A visitor is asked at every call, and at the start of what contains calls. What it says there is inherited by
       all that is inside, and by a chord's body from its header; what is linked inherits it too, but not the stamps
       of the call it is linked to.
    3. What comes from further out wins, and a stamp that is given now wins over one that was there; with
       `append_stamps` all are kept, in a list, in the order in which they would win.
    4. If what a visitor says contains `stamped_headers`, only those that it lists are stamps, the others plain options.
    5. Members that come from a generator are stamped when they are drawn.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

from celery.canvas.algebra import CHAIN, CHORD, GROUP, kind_of
from celery.canvas.groups import Drawn
from celery.canvas.signature import Signature, as_list, maybe_signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Sig = Signature[Any]

_NAMES = "stamped_headers"


class StampingVisitor(abc.ABC):
    """Says which stamps calls get, as a dict: name -> value. Each hook is given those inherited, as keywords."""

    @abc.abstractmethod
    def on_signature(self, sig: Sig, **headers: Any) -> dict[str, Any]:
        """Stamps of a call."""

    def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Stamps of all members."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - need not be overridden
        """All members are stamped."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Stamps of all steps."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - need not be overridden
        """All steps are stamped."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict[str, Any]:
        """Stamps of all members of a chord's header, and of its body; by default those of a group."""
        return self.on_group_start(sig._header(), **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:  # noqa: B027 - need not be overridden
        """All members of the header are stamped."""

    def on_chord_body(self, sig: Any, **header: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Stamps of the body of this chord."""
        return {}

    def on_callback(self, callback: Sig, **header: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Stamps of a callback."""
        return {}

    def on_errback(self, errback: Sig, **header: Any) -> dict[str, Any]:  # noqa: ARG002 - for subclasses
        """Stamps of an error callback."""
        return {}


def stamp(sig: Sig, visitor: Any, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp a signature of any kind, all that is inside it, and what is linked to it."""
    Stamper(visitor, append).stamp(sig, _said(headers))


def stamp_links(sig: Sig, visitor: Any, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp what is linked to a signature."""
    Stamper(visitor, append).links(sig, _said(headers))


class Stamper:
    """Walks a workflow. What is inherited is a dict in the form that hooks return."""

    def __init__(self, visitor: StampingVisitor | None, append: bool) -> None:
        self._visitor = visitor
        self._append = append

    def stamp(self, sig: Sig, inherited: dict[str, Any]) -> None:
        """Stamp a signature."""
        kind = kind_of(sig)
        if kind == CHAIN:
            self._chain(sig, inherited)
        elif kind == GROUP:
            self._group(sig, inherited)
        elif kind == CHORD:
            self._chord(sig, inherited)
        else:
            self.links(sig, inherited)
            self._put(sig, self._with(inherited, "on_signature", sig))

    def links(self, sig: Sig, inherited: dict[str, Any]) -> None:
        """Stamp what is linked to a signature."""
        for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
            if sig.options.get(option):
                sig.options[option] = [
                    self._linked(link, hook, inherited, sig._app) for link in as_list(sig.options[option])
                ]

    def _linked(self, link: Any, hook: str, inherited: dict[str, Any], app: Any) -> Any:
        link = maybe_signature(link, app=app)
        self.stamp(link, self._with(inherited, hook, link))
        return link

    def _chain(self, chain: Sig, inherited: dict[str, Any]) -> None:
        inside = self._with(inherited, "on_chain_start", chain)
        self.links(chain, inside)
        for step in chain.kwargs["tasks"]:
            self.stamp(step, inside)
        self._tell("on_chain_end", chain, inside)

    def _group(self, group: Sig, inherited: dict[str, Any]) -> None:
        inside = self._with(inherited, "on_group_start", group)
        self.links(group, inside)
        self._members(group.kwargs, "tasks", inside)
        self._tell("on_group_end", group, inside)

    def _chord(self, chord: Sig, inherited: dict[str, Any]) -> None:
        inside = self._with(inherited, "on_chord_header_start", chord)
        header = chord.kwargs["header"]
        if isinstance(header, Signature):
            self._members(header.kwargs, "tasks", inside)
        else:
            self._members(chord.kwargs, "header", inside)
        self._tell("on_chord_header_end", chord, inside)
        if chord.kwargs.get("body") is not None:
            self.stamp(chord.kwargs["body"], self._with(inside, "on_chord_body", chord))

    def _members(self, holder: dict[str, Any], name: str, inside: dict[str, Any]) -> None:
        members = holder[name]
        if isinstance(members, Drawn):
            holder[name] = members.each(self._stamping(inside))
        else:
            for member in members:
                self.stamp(member, inside)

    def _stamping(self, inside: dict[str, Any]) -> Callable[[Sig], Sig]:
        def stamped(member: Sig) -> Sig:
            self.stamp(member, inside)
            return member

        return stamped

    # -- asking the visitor, and merging

    def _with(self, inherited: dict[str, Any], hook: str, sig: Sig) -> dict[str, Any]:
        if self._visitor is None:
            return inherited
        said = _said(getattr(self._visitor, hook)(sig, **inherited) or {})
        return self._merged(inherited, said)

    def _tell(self, hook: str, sig: Sig, inside: dict[str, Any]) -> None:
        if self._visitor is not None:
            getattr(self._visitor, hook)(sig, **inside)

    def _put(self, sig: Sig, stamps: dict[str, Any]) -> None:
        names = [*sig.options.get(_NAMES, ()), *stamps.get(_NAMES, ())]
        old = {name: sig.options[name] for name in sig.options.get(_NAMES, ()) if name in sig.options}
        sig.options.update(self._merged(stamps, {**old, _NAMES: list(old)}))
        if names:
            sig.options[_NAMES] = sorted(set(names))

    def _merged(self, first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
        """Both; where both have a stamp the first one wins, or they are kept in this order (rule 3)."""
        names = {*first.get(_NAMES, ()), *then.get(_NAMES, ())}
        merged = {**then, **first}
        if self._append:
            both = names & first.keys() & then.keys()
            merged.update((name, [*as_list(first[name]), *as_list(then[name])]) for name in both)
        return {**merged, _NAMES: sorted(names)} if names else merged


def _said(stamps: Mapping[str, Any]) -> dict[str, Any]:
    """What a hook or a caller gave, with the names of what are stamps (rule 4)."""
    said = dict(stamps)
    if said and _NAMES not in said:
        said[_NAMES] = list(said)
    return said
