"""Results on record: one JSON file for each workload, written after each run.

A record says what it is of: the state of the sources, the machine, the versions, the sizes. When any of it has changed,
the record is begun anew, as runs of different things do not belong into one median.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measures import ROOT, SYSTEMS, Contestant

if TYPE_CHECKING:
    from workloads import Workload


def source_state() -> str:
    """The commit that last changed the package or the benchmark."""
    command = ["git", "log", "-1", "--format=%h", "--", "src", "benchmarks"]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False).stdout.strip() or "unknown"


def machine() -> dict[str, str]:
    """Where this was measured."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def version(contestant: Contestant) -> str:
    """The version of what a contestant runs; empty where it is not installed."""
    system = SYSTEMS[contestant.system]
    if not system.python.exists():
        return ""
    program = f"import importlib.metadata; print(importlib.metadata.version({system.distribution!r}))"
    command = [str(system.python), "-c", program]
    return subprocess.run(command, text=True, capture_output=True, check=False).stdout.strip()


class Record:
    """The runs of one workload.

    Args:
        data: what the file holds.
        path: the file; None keeps it in memory.
    """

    def __init__(self, data: dict[str, Any], path: Path | None) -> None:
        self.data = data
        self.path = path

    @classmethod
    def begin(cls, workload: Workload, folder: Path | None, *, fresh: bool) -> Record:
        """Go on with a record that is of the same things, or begin one."""
        data: dict[str, Any] = {
            "workload": workload.name,
            "about": workload.about,
            "family": workload.family,
            "reference": workload.reference,
            "source": source_state(),
            "machine": machine(),
            "versions": {each.label: version(each) for each in workload.contestants},
            "contestants": [each._asdict() for each in workload.contestants],
            "runs": {each.label: [] for each in workload.contestants},
            "failures": {},
            "date": "",
        }
        path = folder / f"{workload.name}.json" if folder is not None else None
        if path is not None and path.exists() and not fresh:
            old = json.loads(path.read_text())
            same = ("source", "machine", "versions", "contestants", "reference")
            if all(old.get(name) == json.loads(json.dumps(data[name])) for name in same):
                return cls({**old, "failures": {}}, path)
        return cls(data, path)

    def installed(self, contestant: Contestant) -> bool:
        """Whether it can be run here."""
        return bool(self.data["versions"][contestant.label])

    def has(self, label: str, number: int) -> bool:
        """Whether its run of a round is there."""
        return any(run["round"] == number for run in self.data["runs"][label])

    def failed(self, label: str) -> int:
        """Its failures in this session."""
        return len(self.data["failures"].get(label, []))

    def add(self, label: str, number: int, measures: dict[str, float]) -> None:
        """Keep a run of a round."""
        self.data["runs"][label].append({"round": number, **measures})
        self.write()

    def fail(self, label: str, reason: str) -> None:
        """Keep a failure."""
        self.data["failures"].setdefault(label, []).append(reason)
        self.write()

    def write(self) -> None:
        """Put it on disk, whole or not at all."""
        self.data["date"] = time.strftime("%Y-%m-%d")
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.path.with_suffix(".part")
            draft.write_text(json.dumps(self.data, indent=1))
            draft.replace(self.path)
