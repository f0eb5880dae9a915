"""The atomic steps, in Lua. Each file opens with what it takes and gives.

They take all names as arguments and none as KEYS: several of them work on keys that they find in the store, so they
need one server that holds everything. Times are the server's, so that no client's clock matters (wire.md 6.7).
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text, and the name by which a server that has seen it knows it."""

    text: str
    sha: str


@cache
def load(*names: str) -> Script:
    """The script in `<name>.lua`; of several, one after the other."""
    import hashlib  # producers load no script

    text = "\n".join(_read(name) for name in names)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), f"{name}.lua"), encoding="utf-8") as file:
        return file.read()
