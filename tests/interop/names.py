"""Prints, as JSON, what users of the installed Celery can name: options of commands, public members of classes.

Runs under Celery 5.7 and under ours: no import but of what both have.
"""

from __future__ import annotations

import inspect
import json
import sys
import warnings
from importlib import import_module

import click

warnings.simplefilter("ignore")


def options(command, path=()):
    """The options of a command and of those below it, by path."""
    found = {" ".join(path): sorted(name for option in command.params for name in option.opts + option.secondary_opts)}
    if isinstance(command, click.Group):
        for name in command.list_commands(None):
            below = command.get_command(None, name)
            if below is not None:
                found |= options(below, (*path, name))
    return found


def members(path):
    """Public members of a class, with the parameters of those that are functions; what else it takes any of is "*"."""
    module, _, name = path.partition(":")
    cls = getattr(import_module(module), name)
    found = {}
    for member in dir(cls):
        if not member.startswith("_"):
            value = inspect.getattr_static(cls, member, None)
            value = getattr(value, "__func__", value)
            found[member] = parameters(value) if inspect.isfunction(value) else []
    return found


def parameters(function):
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return ["*" if each.kind in variadic else each.name for each in inspect.signature(function).parameters.values()]


def main():
    celery = import_module("celery.bin.celery").celery
    json.dump({"options": options(celery), "members": {path: members(path) for path in sys.argv[1:]}}, sys.stdout)


if __name__ == "__main__":
    main()
