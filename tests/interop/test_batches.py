"""Packages that require Celery are content with us beside `packaging/celery`, from wheels; celery-batches works."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: Nothing that a batch, or a worker's end, needs takes longer, in seconds.
SOON = 30


def run(*command, **options):
    """What a command printed."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    return ended.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with both of our distributions, and two that ask for `celery`."""
    folder = tmp_path_factory.mktemp("environment")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT, ROOT / "packaging" / "celery")
    python = folder / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", *folder.glob("*.whl"), "celery-singleton==0.3.1")
    # The latest celery-batches asks for a Celery below 5.7: Celery 5.7.0 itself is refused as we are.
    run(*pip, "--python", python, "install", "--no-deps", "celery-batches==0.11")
    return python


@pytest.fixture
def environment(tmp_path):
    """Variables of the project's processes."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY", "PYTHON"))}
    return {**inherited, "PYTHONPATH": str(HERE), "BATCHES_URL": f"sqlite:///{tmp_path}/celery.sqlite"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_batch_tasks_run_in_an_environment_that_resolved_onto_us(python, environment, tmp_path):
    code = "import celery_singleton, importlib.metadata as m; print(m.version('celery'))"
    assert run(python, "-c", code) == "5.7.0+celeriac\n"
    options = {"env": environment, "cwd": tmp_path}
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [python, "-m", "celery", "-A", "batches", "worker", "-c", "2"], stdout=log, stderr=log, **options
        )
    try:
        results = json.loads(run(python, HERE / "batches.py", timeout=2 * SOON, **options))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SOON) == 0, (tmp_path / "log").read_text()
    finally:
        worker.kill()
        worker.wait()
    for batches in (results["batches.early"], results["batches.late"]):
        assert [number for number, _ in batches] == list(range(12))
        assert [size for _, size in batches] == [5] * 10 + [2] * 2
