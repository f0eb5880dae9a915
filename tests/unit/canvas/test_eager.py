"""Workflows in place come to the values that they come to for real (CANVAS-074..077)."""

from __future__ import annotations

import pytest

from celery import chain, chord, group
from celery.exceptions import Ignore


@pytest.fixture(params=["apply", "task_always_eager"])
def run(app, request):
    """Runs a signature in place, called so or by the setting."""
    app.conf.task_always_eager = request.param == "task_always_eager"

    def run(sig, *args, **options):
        call = sig.apply_async if app.conf.task_always_eager else sig.apply
        return call(args, **options)

    return run


def test_values_are_those_of_real_runs(tasks, run):
    add, total, same = tasks.add, tasks.total, tasks.same
    both = group(add.s(1), add.s(2))
    assert run(chain(add.s(1), add.s(2), add.s(3))).get() == 6
    assert run(both, 5).get() == [6, 7]
    assert run(chord([add.s(1), add.s(2)], total.s())).get() == 3
    assert run(chord([], total.s())).get() == 0
    assert run(chain(add.s(1), both, total.s(), both, total.s())).get() == 13
    assert run(chain(add.s(1), both, group(total.s(), same.s()))).get() == [5, [2, 3]]
    assert run(chord([add.s(1), both, chain(add.s(0), both), add.s(9)], same.s())).get() == [1, 1, 2, [1, 2], 9]
    assert run(add.chunks([(1, 2), (3, 4), (5, 6)], 2)).get() == [[3, 7], [11]]
    assert run(add.starmap([(1, 2)]) | total.s()).get() == 3


def test_results_lead_back_to_the_first_step(tasks, run):
    """CANVAS-028."""
    result = run(chain(tasks.add.s(1), tasks.add.s(2), tasks.add.s(3)))
    assert [result.get(), result.parent.get(), result.parent.parent.get()] == [6, 3, 1]
    assert run(chord([tasks.add.s(1)], tasks.total.s())).parent.get() == [1]


def test_ids_are_as_for_real(tasks, run):
    """CANVAS-028, CANVAS-077."""
    assert run(chain(tasks.add.s(1), tasks.add.s(2)), task_id="mine").id == "mine"
    assert run(group(tasks.add.s(1), tasks.add.s(2)), task_id="mine").id == "mine"
    assert run(chord([tasks.add.s(1)], tasks.total.s()), task_id="mine").id == "mine"


def test_what_a_step_raises_comes_out_when_the_next_one_needs_its_value(tasks, run):
    """CANVAS-074."""
    with pytest.raises(ValueError, match="failed"):
        run(chain(tasks.add.s(1), tasks.fail.s(), tasks.add.s(2)))
    last = run(chain(tasks.add.s(1), tasks.fail.s()))
    assert last.state == "FAILURE"


def test_nothing_follows_a_step_that_is_ignored(app, tasks, run):
    """CANVAS-074."""

    @app.task
    def ignored(*_):
        raise Ignore

    result = run(chain(tasks.add.s(1), ignored.s(), tasks.add.s(2)))
    assert result.state == "IGNORED"
    assert tasks.ran == [("add", 1)]


def test_links_are_run_in_place_once_after_the_last_step(tasks, run):
    """CANVAS-074."""
    add, done = tasks.add, tasks.done
    run(add.s(1), link=done.s())
    assert tasks.ran == [("add", 1), ("done", 1)]
    tasks.ran.clear()
    run(chain(add.s(1), add.s(2)), link=done.s())
    assert tasks.ran == [("add", 1), ("add", 1, 2), ("done", 3)]
    tasks.ran.clear()
    linked = chord([add.s(1), add.s(2)], tasks.total.s())
    linked.link(done.s())
    run(linked)
    assert tasks.ran[-1] == ("done", 3)
    assert [name for name, *_ in tasks.ran].count("done") == 1


def test_an_error_callback_is_told_of_the_step_that_failed(tasks, run):
    """CANVAS-011, CANVAS-074."""
    result = run(chain(tasks.add.s(1), tasks.fail.s()), link_error=tasks.failed.s())
    assert tasks.ran[-1] == ("failed", result.id)


def test_a_member_that_fails_fails_the_chord_with_its_own_exception(tasks, run):
    """CANVAS-075."""
    with pytest.raises(ValueError, match="failed"):
        run(chord([tasks.add.s(1), tasks.fail.s()], tasks.total.s()))


def test_a_chord_can_go_on_with_exceptions_as_values(tasks):
    """CANVAS-075."""
    values = chord([tasks.add.s(1), tasks.fail.s()], tasks.same.s()).apply(propagate=False).get()
    assert values[0] == 1
    assert isinstance(values[1], ValueError)


def test_a_group_has_the_results_of_all_its_members(tasks, run):
    """CANVAS-075."""
    result = run(group(tasks.add.s(1), tasks.fail.s()))
    assert [child.state for child in result.results] == ["SUCCESS", "FAILURE"]


def test_a_header_of_one_member_that_ends_in_a_group_is_a_list_of_one_list(app, tasks):
    """CANVAS-040 is about groups alone; a body gets the values of its header, as for real."""
    inner = chain(tasks.add.s(1, 1), group(tasks.add.s(1), tasks.add.s(2)))
    assert chord([inner], tasks.same.s()).apply().get() == [[3, 4]]
    assert group(inner).apply().get() == [3, 4]


def test_a_task_called_for_real_in_eager_mode_may_be_replaced(app, tasks):
    """CANVAS-070, CANVAS-076."""

    @app.task(bind=True)
    def replaced(self):
        return self.replace(tasks.add.s(1, 2))

    app.conf.task_always_eager = True
    assert replaced.delay().get() == 3


def test_a_replaced_task_gives_the_value_of_its_replacement(app, tasks, run):
    """CANVAS-070."""

    @app.task(bind=True)
    def replaced(self, number):
        return self.replace(group(tasks.add.s(number, i) for i in range(2)) | tasks.total.s())

    assert run(chain(replaced.s(5), tasks.add.s(1))).get() == 12
    assert tasks.ran[-1] == ("add", 11, 1)
