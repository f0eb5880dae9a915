"""Stamps: by keyword and by visitor, on everything inside a workflow (API-078..080; CANVAS-081)."""

from __future__ import annotations

import pytest

from celery import chain, chord, group
from celery.canvas import StampingVisitor
from celery.utils.uniqueid import uuid


def stamps_of(sig):
    return {name: sig.options[name] for name in sig.options.get("stamped_headers", ())}


class Says(StampingVisitor):
    """Says at each hook what it was told to, and remembers who asked."""

    def __init__(self, **said):
        self.said = said
        self.asked = []

    def _hook(self, name, sig, headers):
        self.asked.append((name, headers))
        return dict(self.said.get(name, {}))

    def on_signature(self, sig, **headers):
        return self._hook("signature", sig, headers)

    def on_group_start(self, group, **headers):
        return self._hook("group", group, headers)

    def on_group_end(self, group, **headers):
        self._hook("group_end", group, headers)

    def on_chain_start(self, chain, **headers):
        return self._hook("chain", chain, headers)

    def on_chain_end(self, chain, **headers):
        self._hook("chain_end", chain, headers)

    def on_chord_header_end(self, sig, **header):
        self._hook("header_end", sig, header)

    def on_chord_body(self, sig, **header):
        return self._hook("body", sig, header)

    def on_callback(self, callback, **header):
        return self._hook("callback", callback, header)

    def on_errback(self, errback, **header):
        return self._hook("errback", errback, header)


def test_a_visitor_must_say_what_calls_get():
    with pytest.raises(TypeError, match="on_signature"):
        StampingVisitor()


def test_stamps_by_keyword_reach_everything_inside(tasks, sent):
    """API-078; the body of a chord too, which 5.7 leaves out."""
    add = tasks.add
    made = chain(add.s(1), group(add.s(2), add.s(3)), add.s(4)) | group(add.s(5), chain(add.s(6), add.s(7)))
    assert made.stamp(team="red") is made
    first, middle = made.tasks
    inside = [first, *middle.tasks, *middle.body.tasks[:1], *middle.body.tasks[-1].tasks[:1]]
    assert [stamps_of(sig) for sig in inside] == [{"team": "red"}] * 5
    made.delay()
    assert (sent[0].stamps, sent[0].stamped_headers) == ({"team": "red"}, ["team"])


def test_a_visitor_is_asked_at_every_call(tasks):
    """API-079."""

    class Unique(StampingVisitor):
        def on_signature(self, sig, **headers):
            return {"mark": uuid()}

    made = group(tasks.add.s(i) for i in range(3))
    made.stamp(Unique())
    assert len({stamps_of(sig)["mark"] for sig in made.tasks}) == 3


def test_what_is_said_at_the_start_is_inherited_inside(tasks):
    """API-079, API-080."""
    visitor = Says(chain={"c": 1}, group={"g": 2}, signature={"s": 3})
    made = chain(tasks.add.s(1), group(tasks.add.s(2), tasks.add.s(3)))
    made.stamp(visitor)
    step, inner = made.tasks
    assert stamps_of(step) == {"c": 1, "s": 3}
    assert [stamps_of(member) for member in inner.tasks] == [{"c": 1, "g": 2, "s": 3}] * 2
    assert [name for name, _ in visitor.asked] == [
        "chain", "signature", "group", "signature", "signature", "group_end", "chain_end"
    ]  # fmt: skip
    assert visitor.asked[1][1] == {"c": 1, "stamped_headers": ["c"]}


def test_a_header_is_a_group_and_its_body_inherits_from_it(tasks):
    """API-079."""
    visitor = Says(group={"g": 1}, body={"b": 2})
    made = chord([tasks.add.s(1)], tasks.total.s())
    made.stamp(visitor)
    assert stamps_of(made.tasks[0]) == {"g": 1}
    assert stamps_of(made.body) == {"g": 1, "b": 2}
    assert "header_end" in dict(visitor.asked)


def test_links_have_stamps_of_their_own_and_not_those_of_the_call(tasks):
    """API-080."""
    made = tasks.add.s(1).on_error(tasks.failed.s())
    made.link(tasks.done.s())
    made.stamp(Says(signature={"s": 1}, callback={"cb": 2}, errback={"eb": 3}), team="red")
    assert stamps_of(made) == {"s": 1, "team": "red"}
    assert stamps_of(made.options["link"][0]) == {"s": 1, "cb": 2, "team": "red"}
    assert stamps_of(made.options["link_error"][0]) == {"s": 1, "eb": 3, "team": "red"}


def test_what_comes_from_further_out_wins(tasks):
    """API-080, as 5.7 does it."""
    made = chain(tasks.add.s(1).stamp(mark="old"))
    made.stamp(Says(chain={"mark": "chain"}, signature={"mark": "call"}))
    assert stamps_of(made.tasks[0]) == {"mark": "chain"}
    made.stamp(Says(chain={"mark": 2}, signature={"mark": 3}), append_stamps=True, mark=1)
    assert stamps_of(made.tasks[0]) == {"mark": [1, 2, 3, "chain"]}


def test_only_what_is_listed_is_a_stamp(tasks):
    """API-079."""
    made = tasks.add.s(1)
    made.stamp(Says(signature={"mark": 1, "priority": 5, "stamped_headers": ["mark"]}))
    assert stamps_of(made) == {"mark": 1}
    assert made.options["priority"] == 5


def test_members_from_a_generator_are_stamped_when_they_are_drawn(tasks, sent):
    """API-080."""
    drawn = []

    def members():
        for number in range(2):
            drawn.append(number)
            yield tasks.add.s(number)

    made = group(members())
    made.stamp(Says(signature={"s": 1}), team="red")
    assert drawn == []
    made.delay()
    assert [message.stamps for message in sent] == [{"s": 1, "team": "red"}] * 2


def test_stamps_stay_when_a_call_is_merged(tasks):
    """API-077."""
    assert stamps_of(tasks.add.s(1).stamp(team="red").clone(team="blue")) == {"team": "red"}
