"""Figures of the machine."""

from celery.utils.sysinfo import available_cpu_count, cpu_budget, df, is_auto_concurrency, load_average


def test_the_plan_never_exceeds_the_processors_allowed():
    budget = cpu_budget()
    assert 1 <= budget.count <= budget.available == available_cpu_count()
    assert cpu_budget(use_cgroup_quota=False).count == available_cpu_count()


def test_auto_is_recognised():
    assert is_auto_concurrency(" Auto ")
    assert not is_auto_concurrency(4)


def test_load_and_disk_are_numbers():
    assert len(load_average()) == 3
    assert 0 <= df("/").capacity <= 100
    assert df("/").total_blocks >= df("/").available
