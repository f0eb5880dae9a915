"""What `ps` shows of a worker, where setproctitle is installed (CLI-049): here, a module that takes its place."""

import pytest

STANDS_IN = """\
import os


def setproctitle(title):
    with open(os.environ["TITLES"], "a") as file:
        file.write(f"{os.getpid()} {title}\\n")
"""


@pytest.fixture
def titles(tmp_path, monkeypatch):
    """The file that the titles are written to."""
    file = tmp_path / "titles"
    file.touch()
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "setproctitle.py").write_text(STANDS_IN)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("TITLES", str(file))
    return file


def test_each_process_is_named_after_its_node_and_its_part(make_stage, titles):
    worker = make_stage("sqlite").worker("-c", "2")
    children = set(worker.children())
    assert worker.stop() == 0
    seen = dict(line.split(" ", 1) for line in titles.read_text().splitlines())
    assert seen.pop(str(worker.pid)).startswith(f"[celeryd: {worker.node}:MainProcess] -")
    assert set(map(int, seen)) == children
    assert sorted(seen.values()) == [f"[celeryd: {worker.node}:ForkPoolWorker-{number}]" for number in (1, 2)]


def test_titles_may_be_left_as_they_are(make_stage, titles, monkeypatch):
    monkeypatch.setenv("NOSETPS", "1")
    assert make_stage("sqlite").worker("-c", "1").stop() == 0
    assert not titles.read_text()
