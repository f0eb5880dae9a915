"""Finding modules and the objects in them."""

import sys
import types

import pytest

import celery.utils
from celery import states
from celery.utils.imports import (
    NotAPackage,
    find_module,
    gen_task_name,
    import_from_cwd,
    instantiate,
    qualname,
    symbol_by_name,
)


@pytest.mark.parametrize("name", ["celery.states:precedence", "celery.states.precedence"])
def test_a_name_with_dot_or_colon_stands_for_an_object(name):
    assert symbol_by_name(name) is states.precedence


def test_aliases_defaults_and_objects_are_accepted():
    assert symbol_by_name("short", {"short": "celery.states:precedence"}) is states.precedence
    assert symbol_by_name(".states:precedence", package="celery") is states.precedence
    assert symbol_by_name("no_such_module:x", default=3) == 3
    assert symbol_by_name(states) is states
    assert instantiate("celery.states:state", "RETRY") == "RETRY"
    with pytest.raises(ImportError):
        symbol_by_name("no_such_module:x")
    with pytest.raises(AttributeError):
        symbol_by_name("celery.states:nothing")


def test_modules_of_the_working_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "proj_of_test_imports.py").write_text("value = 5\n")
    monkeypatch.chdir(tmp_path)
    assert find_module("proj_of_test_imports")
    assert import_from_cwd("proj_of_test_imports").value == 5
    assert str(tmp_path) not in sys.path
    with pytest.raises(NotAPackage):
        find_module("celery.states.nothing")


def test_classes_and_tasks_are_named_after_their_module():
    assert qualname(dict) == qualname({}) == "builtins.dict"
    app = types.SimpleNamespace(main="proj")
    assert gen_task_name(app, "add", "proj.tasks") == "proj.tasks.add"
    assert gen_task_name(app, "add", "__main__") == "proj.add"
    assert gen_task_name(types.SimpleNamespace(main=None), "add", "__main__") == "__main__.add"


def test_every_public_name_of_the_package_is_found():
    for name in celery.utils.__all__:
        assert getattr(celery.utils, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = celery.utils.nothing


def test_ids_are_random_uuids():
    import uuid

    ids = {celery.utils.uuid() for _ in range(100)}
    assert len(ids) == 100
    assert all(uuid.UUID(text).version == 4 and str(uuid.UUID(text)) == text for text in ids)
