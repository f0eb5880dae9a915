"""The examples of docs/workflows.md run as they are written."""

from __future__ import annotations

import doctest
import re
import sys
from pathlib import Path

from celery import current_app
from celery.contrib.testing.worker import start_worker

PAGE = Path(__file__).resolve().parents[2] / "docs" / "workflows.md"


def test_the_examples_of_the_page_on_workflows_run(tmp_path, monkeypatch):
    """In a fresh folder, with the tasks that the page shows."""
    page = PAGE.read_text()
    project = re.search(r"(?s)```python\n(# workflows_example\.py\n.*?)```\n", page)
    (tmp_path / "workflows_example.py").write_text(project.group(1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = current_app._get_current_object()
    from workflows_example import app

    text = re.sub(r"(?m)^```.*$", "", page.replace(project.group(), ""))
    examples = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    said: list[str] = []
    try:
        with app, start_worker(app, pool="solo", perform_ping_check=False):
            runner.run(examples, out=said.append)
    finally:
        before.set_current()
        del sys.modules["workflows_example"]
    assert runner.summarize(verbose=False).attempted > 10
    assert not said, "".join(said)
    assert (tmp_path / "celery.sqlite").exists()
