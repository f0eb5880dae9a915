"""What retries and refusals come to, as hooks and callers see it (API-032): what `ends` says, run by each Celery."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("ends.py")


def ends(python):
    ended = subprocess.run([python, "-P", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    return re.sub(r"\[[0-9a-f-]{36}\]", "[id]", ended.stdout)


def test_retries_and_refusals_end_alike(celery57):
    theirs, ours = ends(celery57), ends(sys.executable)
    assert ours == theirs
    assert "on_failure MaxRetriesExceededError" in ours
    assert "called Retry KeyError" in ours
