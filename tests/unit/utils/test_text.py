"""Text and colors for people."""

import pytest

from celery.utils.debug import humanbytes, sample
from celery.utils.deprecated import Callable
from celery.utils.term import colored
from celery.utils.text import abbr, abbrtask, fill_paragraphs, indent, pluralize, remove_repeating_from_task, truncate


def test_text_is_cut():
    assert abbr("hello world", 8) == "hello..."
    assert abbr("hello world", 8, None) == "hello wo"
    assert abbrtask("proj.tasks.add", 12) == "proj.t[.]add"
    assert abbrtask("proj.tasks.add", 8) == "pr[.]add"
    assert truncate("hello world foo", 12) == "hello world..."


def test_text_is_laid_out():
    assert indent("a\nb", 2) == "  a\n  b"
    assert fill_paragraphs("a b c d\n\ne f", 3) == "a b\nc d\n\ne f"
    assert [pluralize(n, "task") for n in (0, 1, 2, 1.5)] == ["tasks", "task", "tasks", "tasks"]
    assert remove_repeating_from_task("t.add", "%(t.add(2), t.add(3), t.mul(4))") == "%(t.add(2), add(3), mul(4))"


def test_styles_nest_and_can_be_left_out():
    assert str(colored().green("x")) == "\x1b[1;32mx\x1b[0m"
    nested = colored().red("a", colored().blue("b"), "c")
    assert nested.no_color() == "abc"
    assert str(nested) == "\x1b[1;31ma\x1b[1;34mb\x1b[0m\x1b[1;31mc\x1b[0m"
    assert str(colored(enabled=False).red("x")) == "x"
    assert str(colored().red("a") + "b").endswith("b")


def test_sizes_are_said_in_their_largest_unit():
    assert [humanbytes(n) for n in (0, 500, 1024, 1500, 2**20)] == ["0b", "500b", "1KB", "1.4648KB", "1MB"]
    assert list(sample(list(range(100)), 4)) == [0, 25, 50, 75]


def test_calling_what_is_deprecated_warns_where_it_is_called():
    @Callable(removal="6.0", alternative="Use new().")
    def old():
        return 1

    with pytest.warns(DeprecationWarning, match=r"6\.0.*new") as caught:
        assert old() == 1
    assert caught[0].filename == __file__
