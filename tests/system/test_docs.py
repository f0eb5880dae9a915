"""The examples of docs/workflows.md run as they are written."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from celery.contrib.testing.worker import start_worker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "workflows.md"


def test_the_examples_of_the_page_on_workflows_run():
    from workflows_example import app

    text = re.sub(r"(?m)^```.*$", "", PAGE.read_text())
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    said: list[str] = []
    with start_worker(app, pool="solo", perform_ping_check=False):
        runner.run(examples, out=said.append)
    assert runner.summarize(verbose=False).attempted > 10
    assert not said, "".join(said)
