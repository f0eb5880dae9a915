"""Which processes live."""

from __future__ import annotations

import os
import subprocess
import sys

from celery.brokers.sqlite.liveness import birth_of, new_owner, this_host


def test_a_living_process_keeps_its_birth():
    assert birth_of(os.getpid()) == birth_of(os.getpid()) is not None


def test_a_process_that_ended_does_not_exist_even_before_its_parent_has_noticed():
    process = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=-1, stdout=-1)
    assert process.stdout.readline() == b"up\n"
    assert birth_of(process.pid) is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert birth_of(process.pid) is None
    process.wait()
    process.stdout.close()
    assert birth_of(process.pid) is None


def test_owners_are_never_alike():
    assert len({new_owner() for _ in range(1000)}) == 1000


def test_the_host_is_the_same_for_all_processes_of_a_machine():
    script = "from celery.brokers.sqlite.liveness import this_host; print(this_host())"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == this_host()
