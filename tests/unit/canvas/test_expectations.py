"""Workflows are composed, shown and sent as Celery 5.7 does it (captured by scripts/canvas_expectations.py).

Every difference is here with its reason, and in docs/canvas-differences.md. CANVAS-014..025, 026..056, 079.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import canvas_expectations as expectations
import pytest

import celery.canvas

DATA = Path(__file__).parents[2] / "data/canvas"
FORMS, SHOWN, CALLS = (
    json.loads((DATA / f"{name}.json").read_text(encoding="utf-8")) for name in ("forms", "shown", "calls")
)

#: Calls that publish something else here, and why.
OTHER_CALLS = {
    "group(t('a'), chain(t('b'), chord([t('c')], t('d')))).delay()": "the result has the id that the header will have",
    "chord([chain(t('a'), chord([t('b')], t('c'))), t('d')], t('e')).delay()": "the same",
    "chord([chain(t('a'), group(t('b'), t('c'))), t('d')], t('e')).delay()": "one copy of a body (CANVAS-080)",
    "group(group(t('a'), t('b')), t('c')).delay()": "positions in a group are unique (CANVAS-039)",
    "chain(t('a'), t('b')).apply_async(group_id='GID', group_index=4, chord=t('body'), root_id='R', parent_id='P')": (
        "parent_id is the first step's too"
    ),
}


@pytest.fixture
def names():
    made = expectations.world()
    with made["app"]:
        yield made


def keeps_options(name: str) -> bool:
    """A group with options becomes a header: they are kept here, and lost there."""
    return re.search(r"groupO \||(chain|chord)\(groupO, ", name) is not None


def test_compositions_come_to_the_same(names):
    differing = {
        name: (made, FORMS[name])
        for name, expression in expectations.forms().items()
        if (made := expectations.form(expression, names)) != FORMS[name] and not keeps_options(name)
    }
    assert not differing


def bare(text: str) -> str:
    """Headers are shown as the tuple or list that they were given as, which a copy need not be; nothing is left out."""
    return text.replace("[", "(").replace("]", ")").replace(" | <chain@0x: empty>", "")


def test_compositions_are_shown_in_the_same_way(names):
    composed = expectations.forms()
    differing = {
        name: (made, shown)
        for name, shown in SHOWN.items()
        if bare(made := expectations.shown(composed[name], names)) != bare(shown) and not keeps_options(name)
    }
    assert not differing


@pytest.mark.parametrize("expression", [call for call in expectations.CALLS if call not in OTHER_CALLS])
def test_calls_publish_the_same(names, expression):
    made, expected = expectations.call(expression, names), CALLS[expression]
    assert made["result"] == expected["result"]
    assert [comparable(message) for message in made["messages"]] == [
        comparable(message) for message in expected["messages"]
    ]


def comparable(message: dict[str, object]) -> dict[str, object]:
    """A message without what nobody reads: that a chord's body is no child, and whose reply queue it is."""
    text = json.dumps(message, sort_keys=True)
    text = re.sub(r"\\*'(add_to_parent|reply_to)\\*': (False|\\*'[#\w]+\\*')(, )?", "", text)
    return json.loads(text.replace(", }", "}"))


def test_the_names_of_the_package_are_those_of_celery():
    """API-001: what `celery.canvas` gives does not depend on what was imported before."""

    for name in ("chain", "chord", "chunks", "group", "signature", "xmap", "xstarmap"):
        assert getattr(celery.canvas, name) is getattr(celery, name)
