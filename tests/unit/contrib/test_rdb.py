"""The debugger over a socket (API-109, MOD-0998..1014): somebody connects, looks around, and lets the code go on."""

import io
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from celery.contrib import rdb

#: In seconds.
SOON = 20

#: A program that stops twice; the second time in a loop that nobody wants to see again.
PROGRAM = """
from celery.contrib import rdb

def add(x, y):
    total = x + y
    rdb.set_trace()
    return total

print("sum", add(1, 2), flush=True)
print("sum", add(3, 4), flush=True)
"""


class Caller:
    """Who connects, and reads up to each prompt."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SOON)
        self.file = self.socket.makefile("rw")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def read(self):
        said = ""
        while not said.endswith("(Pdb) "):
            character = self.file.read(1)
            if not character:
                break
            said += character
        return said

    def say(self, line):
        self.file.write(f"{line}\n")
        self.file.flush()
        return self.read()


@pytest.fixture
def program(monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CELERY_RDB_PORT", str(probe.getsockname()[1]))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process, pattern):
    deadline = time.monotonic() + SOON
    while not (found := re.search(pattern, line := process.stdout.readline())):
        assert line, "it has ended"
        assert time.monotonic() < deadline
    return found


@pytest.mark.parametrize("end", ["c", "quit", "exit"])
def test_a_session_ends_and_the_code_goes_on(program, end):
    for total in (3, 7):
        port = int(line_with(program, r"telnet 127\.0\.0\.1 (\d+)")[1])
        with Caller(port) as caller:
            assert "add()" in caller.read()
            assert str(total) in caller.say("p total")
            assert "(Pdb) " not in caller.say(end)
        assert line_with(program, r"sum (\d+)")[1] == str(total)
    assert program.wait(SOON) == 0


def test_who_hangs_up_ends_the_session(program):
    for _ in range(2):
        with Caller(int(line_with(program, r"telnet 127\.0\.0\.1 (\d+)")[1])) as caller:
            caller.read()
    assert program.wait(SOON) == 0


def test_the_next_free_port_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"ports {port} to {port} of 127.0.0.1 are taken; set CELERY_RDB_PORT"):
            rdb.Rdb(port=port, port_search_limit=1)
        said = io.StringIO()
        waiting = threading.Thread(target=lambda: rdb.Rdb(port=port, out=said).__exit__())
        waiting.start()
        deadline = time.monotonic() + SOON
        while not (found := re.search(r"telnet \S+ (\d+)", said.getvalue())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert int(found[1]) > port
        with Caller(int(found[1])):
            waiting.join(SOON)
        assert "Session ended." in said.getvalue()
