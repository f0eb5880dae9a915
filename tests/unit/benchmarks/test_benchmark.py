"""The benchmark counts right, keeps what it measured, and says what it found: the page must not lie."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import ledger  # noqa: E402
import measures  # noqa: E402
import processes  # noqa: E402
import report  # noqa: E402
from records import Record  # noqa: E402
from systems.starting import PROGRAMS  # noqa: E402
from workloads import WORKLOADS  # noqa: E402

FOUR_THREADS = """
import threading, ledger
threads = [threading.Thread(target=lambda: [ledger.completed() for _ in range(500)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def of_two(runs, reference="theirs", **more):
    """A record as `compare.py` leaves it."""
    return {
        "workload": "drain",
        "about": "drain a queue",
        "family": "celery",
        "reference": reference,
        "source": "abc1234",
        "machine": {"processor": "2 x slow", "memory": "1 GiB", "system": "Linux", "python": "3.11"},
        "versions": {"ours": "1", "theirs": "2"},
        "runs": runs,
        "failures": {},
        "date": "2026-11-22",
        **more,
    }


def rates(*values):
    """The runs of one contestant."""
    return [{"round": number, "tasks_per_second": value} for number, value in enumerate(values)]


def test_completions_of_all_threads_and_processes_are_counted(tmp_path):
    with ledger.Reader(tmp_path / "ledger") as book:
        environment = {"BENCH_LEDGER": str(tmp_path / "ledger"), "PYTHONPATH": str(BENCHMARKS)}
        commands = [subprocess.Popen([sys.executable, "-c", FOUR_THREADS], env=environment) for _ in range(2)]
        assert [command.wait(30) for command in commands] == [0, 0]
        totals = book.totals()
    assert totals.completions == 4000
    assert 0 < totals.first < totals.last


BURNED_BY_A_CHILD = """
import os, signal
pid = os.fork()
if not pid:
    sum(range(3_000_000))
    os._exit(0)
os.waitpid(pid, 0)
print("done", flush=True)
signal.pause()
"""


def test_cpu_time_of_children_that_have_ended_is_not_lost(tmp_path):
    command = [sys.executable, "-c", BURNED_BY_A_CHILD]
    with processes.Command("burner", command, tmp_path, {}, tmp_path / "log") as burner:
        while "done" not in burner.said():
            burner.check()
        assert sum(burner.processes().values()) >= 0.02


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds():
    record = of_two({"ours": rates(100, 20, 50), "theirs": rates(10, 1, 10)})
    assert report.ratios(record, "ours", "tasks_per_second") == [10, 20, 5]
    assert "| 50 | 10 | **10** (5 to 20) | 3 |" in "\n".join(report.table(record))


def test_a_round_in_which_one_failed_gives_no_ratio():
    runs = {"ours": rates(100, 20), "theirs": [{"round": 1, "tasks_per_second": 2}]}
    assert report.ratios(of_two(runs), "ours", "tasks_per_second") == [10]


def test_less_is_better_where_time_is_measured():
    runs = {"ours": [{"round": 0, "p50_ms": 1}], "theirs": [{"round": 0, "p50_ms": 4}]}
    assert report.ratios(of_two(runs), "ours", "p50_ms") == [4]


def test_who_did_not_get_through_is_named():
    record = of_two({"ours": rates(100), "theirs": []}, failures={"theirs": ["it ended"]})
    assert "theirs failed" in "\n".join(report.table(record))


def test_only_the_measured_part_of_the_page_is_written(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    data = of_two({"ours": rates(100), "theirs": rates(10)})
    (tmp_path / "drain-redis.json").write_text(json.dumps(data))
    command = [sys.executable, str(BENCHMARKS / "report.py"), "--results", str(tmp_path), "--page", str(page)]
    subprocess.run(command, check=True, timeout=30)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "drain a queue" in text
    assert "old" not in text


def test_an_interrupted_workload_goes_on_where_it_was(tmp_path):
    workload = WORKLOADS["drain-sqlite-results"]
    label = workload.contestants[0].label
    Record.begin(workload, tmp_path, fresh=False).add(label, 0, {"tasks_per_second": 1.0})
    again = Record.begin(workload, tmp_path, fresh=False)
    assert again.has(label, 0)
    assert not again.has(label, 1)


def test_runs_of_different_sizes_do_not_come_into_one_record(tmp_path):
    workload = WORKLOADS["drain-sqlite-results"]
    label = workload.contestants[0].label
    Record.begin(workload, tmp_path, fresh=False).add(label, 0, {"tasks_per_second": 1.0})
    contestants = [each._replace(tasks=each.tasks + 1) for each in workload.contestants]
    assert not Record.begin(workload._replace(contestants=contestants), tmp_path, fresh=False).has(label, 0)


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS)
def test_every_workload_can_be_told_from_its_table(workload):
    labels = [each.label for each in workload.contestants]
    assert len(labels) == len(set(labels))
    assert workload.reference in labels
    assert workload.family in report.TITLES


@pytest.mark.parametrize("system", measures.SYSTEMS.values(), ids=measures.SYSTEMS)
def test_every_system_has_its_module(system):
    assert (BENCHMARKS / "systems" / f"{system.module}.py").exists()
    assert system.module in PROGRAMS


def test_a_small_run_ends_with_a_table():
    command = [sys.executable, str(BENCHMARKS / "compare.py"), "--workload", "drain-sqlite-results"]
    ended = subprocess.run(
        [*command, "--system", "celeriac", "--tasks", "100", "--pairs", "1"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "| Celeriac |" in ended.stdout
