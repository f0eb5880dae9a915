"""The machine: load, disks and processors."""
from __future__ import annotations

import math
import os
from functools import cached_property
from typing import Any, NamedTuple

__all__ = (
    "AUTO_CONCURRENCY",
    "CpuBudget",
    "available_cpu_count",
    "cgroup_cpu_quota",
    "cpu_budget",
    "df",
    "is_auto_concurrency",
    "load_average",
)

#: Value of ``worker_concurrency`` that stands for the processors this process may use.
AUTO_CONCURRENCY = "auto"


def load_average() -> tuple[float, ...]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return tuple(math.ceil(load * 100) / 100 for load in os.getloadavg())


class df:  # noqa: N801 - the documented name
    """Space on the file system that holds ``path``."""

    def __init__(self, path: str | bytes | os.PathLike[str]) -> None:
        self.path = path

    @property
    def total_blocks(self) -> float:
        """Blocks of the file system, free or not, that unprivileged users may use."""
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> float:
        """KiB free for unprivileged users."""
        return self.stat.f_bavail * self.stat.f_frsize / 1024

    @property
    def capacity(self) -> int:
        """Percent in use."""
        used = self.stat.f_blocks - self.stat.f_bfree
        usable = used + self.stat.f_bavail
        return math.ceil(used * 100 / usable) if usable else 0

    @cached_property
    def stat(self) -> os.statvfs_result:
        """The system's answer, asked for once."""
        return os.statvfs(os.path.abspath(self.path))


def is_auto_concurrency(value: Any) -> bool:
    """Tell whether a concurrency setting asks for the number of processors."""
    return isinstance(value, str) and value.strip().lower() == AUTO_CONCURRENCY


def available_cpu_count() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first_line(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as fh:
            return fh.readline().strip()
    except OSError:
        return None


def cgroup_cpu_quota() -> float | None:
    """Return how many processors' time the container may use (1.5 for one and a half); None for no limit."""
    line = _first_line("/sys/fs/cgroup/cpu.max")
    if line is not None:
        quota, _, period = line.partition(" ")
    else:
        quota = _first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or "max"
        period = _first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    if quota in {"max", "-1"}:
        return None
    try:
        return int(quota) / int(period or 100_000)
    except (ValueError, ZeroDivisionError):
        return None


class CpuBudget(NamedTuple):
    """How many processors to plan with, and why."""

    count: int  # type: ignore[assignment] # the documented name hides the method of tuple
    available: int
    quota: float | None


def cpu_budget(use_cgroup_quota: bool = True) -> CpuBudget:
    """Return the number of processors to plan with: those allowed, or fewer if the container's quota is smaller."""
    available = available_cpu_count()
    quota = cgroup_cpu_quota() if use_cgroup_quota else None
    count = available if quota is None else max(1, min(available, math.ceil(quota)))
    return CpuBudget(count, available, quota)
