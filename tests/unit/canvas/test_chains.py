"""Chains: built, frozen and sent (CANVAS-022..035, CANVAS-067, 068)."""

from __future__ import annotations

import json

import pytest

from celery import Celery, chain, chord, group
from celery.canvas import _chain


def test_what_is_composed_is_no_instance_of_the_public_class(tasks):
    """CANVAS-023."""
    made = chain(tasks.add.s(1), tasks.add.s(2))
    assert isinstance(made, _chain)
    assert not isinstance(made, chain)


def test_a_subclass_of_chain_keeps_its_type(tasks):
    class mine(chain):
        pass

    assert type(mine(tasks.add.s(1), tasks.add.s(2))) is mine


def test_an_empty_chain_gives_nothing(app):
    """CANVAS-022."""
    assert chain()() is None
    assert repr(chain()).startswith("<chain@0x")


@pytest.mark.parametrize("operand", [1, "w.add", None, {"task": "w.add", "args": (), "kwargs": {}}])
def test_what_is_no_signature_cannot_follow(tasks, operand):
    """CANVAS-024."""
    with pytest.raises(TypeError):
        tasks.add.s(1) | operand
    with pytest.raises(TypeError):
        operand | tasks.add.s(1)


def test_a_chain_of_what_is_no_signature_is_refused(tasks):
    with pytest.raises(TypeError, match="signatures, not int: 5"):
        chain(tasks.add.s(1), 5)


def test_the_dict_form_of_a_signature_is_a_step(tasks):
    """CANVAS-024."""
    one, two = tasks.add.s(1, 1), tasks.add.s(2)
    for made in (chain(one, dict(two)), chain(dict(one), two), chain([dict(one), dict(two)])):
        assert made == chain(one, two)


def test_composing_leaves_the_left_operand_alone(tasks):
    """CANVAS-014, CANVAS-025."""
    left, last = tasks.add.s(1) | tasks.add.s(2), tasks.add.s(3)
    whole = left | last
    whole.tasks[0].set(queue="q")
    assert len(left.tasks) == 2
    assert left.tasks[0].options == {}
    assert whole.tasks[-1] is last
    left |= last
    assert len(left.tasks) == 3


def test_only_the_first_step_is_sent_and_brings_the_others_in_reverse(tasks, sent):
    """CANVAS-026, CANVAS-027."""
    result = chain(tasks.add.s(1), tasks.add.s(2), tasks.add.s(3)).apply_async((9,), {"y": 1}, queue="slow")
    (message,) = sent
    assert (message.args, message.kwargs, message.queue) == ([9, 1], {"y": 1}, "slow")
    assert [step["args"] for step in message.chain] == [[3], [2]]
    assert "queue" not in message.chain[0]["options"]
    assert [message.chain[0]["options"]["task_id"], message.chain[1]["options"]["task_id"], message.id] == [
        result.id, result.parent.id, result.parent.parent.id
    ]  # fmt: skip
    assert result.parent.parent.parent is None


def test_links_instead_of_a_chain_on_request(tasks, sent):
    """CANVAS-027."""
    chain(tasks.add.s(1), tasks.add.s(2), tasks.add.s(3)).apply_async(use_link=True)
    (message,) = sent
    assert message.chain is None
    assert message.callbacks[0]["args"] == [2]
    assert message.callbacks[0]["options"]["link"][0]["args"] == [3]


def test_the_id_of_a_chain_is_that_of_its_last_step(tasks, sent):
    """CANVAS-028."""
    made = chain(tasks.add.s(1), tasks.add.s(2))
    assert made.apply_async(task_id="mine").id == "mine" == sent[0].chain[0]["options"]["task_id"]
    assert made.freeze("frozen").id == made.id == "frozen"
    assert made.delay().id == "frozen"


def test_each_call_of_a_chain_has_new_ids_unless_frozen(tasks, sent):
    """CANVAS-005, CANVAS-067."""
    made = chain(tasks.add.s(1), tasks.add.s(2))
    assert made.delay().id != made.delay().id
    promised = made.freeze()
    assert made.delay() == promised
    assert made.delay().parent == promised.parent


def test_links_of_a_chain_are_the_last_steps_and_error_links_everyones(tasks, sent):
    """CANVAS-029, CANVAS-030."""
    made = chain(tasks.add.s(1), tasks.add.s(2))
    made.link(tasks.done.s())
    made.link_error(tasks.failed.s())
    made.apply_async(link_error=[tasks.failed.s()])
    (message,) = sent
    assert message.callbacks is None
    assert [errback["task"] for errback in message.errbacks] == ["w.failed"]
    options = message.chain[0]["options"]
    assert [link["task"] for link in options["link"]] == ["w.done"]
    assert [link["task"] for link in options["link_error"]] == ["w.failed"]


def test_links_stay_with_the_steps_when_a_chain_goes_on(tasks):
    """CANVAS-030."""
    made = chain(tasks.add.s(1), tasks.add.s(2))
    made.link(tasks.done.s())
    whole = made | tasks.add.s(3)
    assert [step.options for step in whole.tasks] == [{}, {"link": [tasks.done.s()]}, {}]


def test_the_place_of_a_chain_is_its_last_steps(tasks, sent):
    """CANVAS-029."""
    chain(tasks.add.s(1), tasks.add.s(2)).apply_async(group_id="g", group_index=3, chord=tasks.total.s())
    assert (sent[0].group, sent[0].group_index, sent[0].chord) == (None, None, None)
    options = sent[0].chain[0]["options"]
    assert (options["group_id"], options["group_index"], options["chord"]["task"]) == ("g", 3, "w.total")


def test_a_countdown_delays_the_first_step(tasks, sent):
    """CANVAS-034."""
    chain(tasks.add.s(1), tasks.add.s(2)).set(countdown=60).delay()
    assert sent[0].eta
    assert "countdown" not in sent[0].chain[0]["options"]


def test_what_is_empty_is_left_out(tasks, sent):
    """CANVAS-032."""
    chain(group(), chain([group(), chain()]), tasks.add.s(2)).delay(1)
    assert sent[0].args == [1, 2]
    nothing = _chain(group(), group()).delay()
    assert nothing.results == []


def test_chains_in_chains_are_spliced_and_groups_become_chords(tasks, sent):
    """CANVAS-033."""
    inner = chain(tasks.add.s(2), group(tasks.add.s(3), tasks.add.s(4)))
    _chain(tasks.add.s(1), inner, tasks.total.s()).delay(0)
    kinds = [step["subtask_type"] for step in sent[0].chain]
    assert kinds == ["chord", None]


def test_what_follows_a_chord_travels_with_its_body(tasks, sent):
    """CANVAS-021, CANVAS-033: flat, so that messages grow with what is left, not with its square."""
    header = [tasks.add.s(1), tasks.add.s(2)]
    (chord(header, tasks.total.s()) | tasks.add.s(3) | group(header) | tasks.total.s()).delay()
    body = sent[0].chord
    assert body["task"] == "w.total"
    assert [step["subtask_type"] for step in body["options"]["chain"]] == ["chord", None]


def test_chords_later_in_a_chain_carry_no_copy_of_their_body_in_each_member(tasks, sent):
    """CANVAS-080."""
    chain(tasks.add.s(1), group(tasks.add.s(i) for i in range(50)), tasks.total.s(), tasks.add.s(1)).delay()
    assert json.dumps(sent[0].chain).count("w.total") == 1


def test_a_chain_with_a_chord_needs_a_backend_that_can(tasks, sent):
    """CANVAS-033, CANVAS-063: told before anything is sent."""
    with Celery("none", broker="memory://") as other:
        steps = [other.signature("w.add"), other.signature("w.add")]
        made = other.signature("w.first") | group(steps) | other.signature("w.total")
        with pytest.raises(NotImplementedError):
            made.delay()
    assert sent == []


def test_what_cannot_be_written_is_told_before_anything_is_sent(tasks, sent):
    with pytest.raises(Exception, match="not JSON serializable|object"):
        chain(tasks.add.s(1), tasks.add.s(object())).delay()
    assert sent == []


def test_the_message_of_a_long_chain_grows_with_what_is_left(tasks, sent):
    for length in (100, 200):
        chain([tasks.add.s(1)] * length).delay()
    sizes = [len(json.dumps(message.chain)) for message in sent]
    assert sizes[1] < 2.1 * sizes[0]
