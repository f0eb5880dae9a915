"""The page of performance, written from the records: `python benchmarks/report.py` fills in docs/performance.md.

Only what stands between the two markers is written; the rest of the page is for people. Ratios are medians of the
ratios of single rounds, so that what slowed down a whole round cancels out; above 1 is better.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured: written by benchmarks/report.py -->", "<!-- /measured -->"

Data = dict[str, Any]


class Metric(NamedTuple):
    """How a measure is shown."""

    label: str
    higher_is_better: bool = False
    #: families of workloads that show it
    families: tuple[str, ...] = ("celery", "peers", "shape", "canvas")


METRICS = {
    "tasks_per_second": Metric("tasks/s", higher_is_better=True),
    "sends_per_second": Metric("sends/s", higher_is_better=True),
    "total_seconds": Metric("s, call to last result"),
    "first_task_seconds": Metric("s, call to first task"),
    "p50_ms": Metric("p50, ms"),
    "p99_ms": Metric("p99, ms"),
    "worker_us": Metric("worker CPU, µs/task"),
    # What the main process is differs from one system to the next.
    "main_us": Metric("of it the main process, µs/task", families=("shape",)),
    "send_us": Metric("producer CPU, µs/task"),
    "broker_us": Metric("broker CPU, µs/task"),
    "fetches_per_second": Metric("results fetched one by one/s", higher_is_better=True, families=("celery", "peers")),
    "pss_mib": Metric("memory (PSS), MiB"),
    "idle_percent": Metric("CPU while idle, % of a core"),
    "import_ms": Metric("CPU ms to import and make an application"),
    "import_modules": Metric("modules"),
    "first_send_ms": Metric("CPU ms to the first task sent, all in all"),
    "first_send_modules": Metric("modules by then"),
    "producer_mib": Metric("memory the call needs, MiB"),
}
TITLES = {
    "celery": "Against Celery 5.7.0",
    "canvas": "Workflows",
    "peers": "Against everyone",
    "shape": "How the cost grows",
}


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def median(record: Data, label: str, metric: str) -> float | None:
    """Of all its runs; None where it was not measured."""
    values = [run[metric] for run in record["runs"].get(label, ()) if metric in run]
    return statistics.median(values) if values else None


def ratios(record: Data, label: str, metric: str) -> list[float]:
    """How many times better than the reference a contestant was, round by round."""
    reference = {run["round"]: run for run in record["runs"].get(record["reference"], ())}
    runs = ((run, reference.get(run["round"], {})) for run in record["runs"].get(label, ()))
    values = [(mine[metric], theirs[metric]) for mine, theirs in runs if metric in mine and metric in theirs]
    if METRICS[metric].higher_is_better:
        return [mine / theirs for mine, theirs in values if theirs]
    return [theirs / mine for mine, theirs in values if mine]


def metrics(record: Data) -> list[str]:
    """What was measured and is worth showing. A server that is not there has used no CPU time at all."""
    runs = [run for each in record["runs"].values() for run in each]
    return [
        name
        for name, metric in METRICS.items()
        if record["family"] in metric.families
        and any(name in run for run in runs)
        and not (name == "broker_us" and not any(run.get(name) for run in runs))
    ]


def table(record: Data) -> list[str]:
    """The lines of a record's table: two contestants side by side, more of them below each other."""
    return pair_rows([record]) if len(record["runs"]) == 2 else matrix(record)


def pair_rows(records: list[Data]) -> list[str]:
    """One table of many records of two contestants: a line for each measure."""
    ours, theirs = records[0]["runs"]
    lines = [f"| | | {ours} | {theirs} | ratio | rounds |", "|---|---|---|---|---|---|"]
    for record in records:
        about = record["about"]
        for metric in metrics(record):
            cells = [median(record, label, metric) for label in (ours, theirs)]
            shown = " | ".join("-" if value is None else number(value) for value in cells)
            found = ratios(record, ours, metric)
            spread = f"({number(min(found))} to {number(max(found))})" if found else ""
            ratio = f"**{number(statistics.median(found))}** {spread}" if found else ""
            lines.append(f"| {about} | {METRICS[metric].label} | {shown} | {ratio} | {len(found)} |")
            about = ""
        lines += [f"| {about} | {label} failed | | | | |" for label in failed(record)]
    return lines


def matrix(record: Data) -> list[str]:
    """A line for each contestant, with the ratio to the reference in brackets."""
    shown, reference = metrics(record), record["reference"]
    lines = [f"| | {' | '.join(METRICS[name].label for name in shown)} |", "|---|" + "---|" * len(shown)]
    for label in record["runs"]:
        cells = []
        for name in shown:
            value, found = median(record, label, name), ratios(record, label, name)
            against = f" ({number(statistics.median(found))})" if found and label != reference else ""
            cells.append("-" if value is None else number(value) + against)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += [f"| {label} failed |{' |' * len(shown)}" for label in failed(record)]
    return [*lines, "", f"In brackets: better than {reference} by this factor. {rounds(record)}."]


def failed(record: Data) -> list[str]:
    """The contestants that did not get through."""
    return [label for label in record["failures"] if not record["runs"].get(label)]


def rounds(record: Data) -> str:
    """How many runs there are."""
    numbers = {len(runs) for runs in record["runs"].values() if runs} or {0}
    return f"Rounds: {min(numbers)}" if len(numbers) == 1 else f"Rounds: {min(numbers)} to {max(numbers)}"


def head(records: list[Data]) -> list[str]:
    """Where, when, of what."""
    first = records[0]
    machine = first["machine"]
    dates = sorted({record["date"] for record in records})
    sources = sorted({record["source"] for record in records})
    where = f"{machine['processor']}, {machine['memory']}, {machine['system']}, Python {machine['python']}"
    when = f"Measured on {' and '.join(dates)} at {', '.join(sources)}"
    lines = [f"{when}: {where}. Worker, producer and broker share it."]
    peers = [record["versions"] for record in records if record["family"] == "peers"]
    versions = {label: version for each in peers for label, version in each.items() if label.islower() and version}
    if versions:
        lines += ["", f"Peers: {', '.join(f'{label} {version}' for label, version in sorted(versions.items()))}."]
    return lines


def page(records: list[Data]) -> list[str]:
    """The measured part of the page."""
    if not records:
        return ["Nothing is on record."]
    lines = head(records)
    for family, title in TITLES.items():
        members = [record for record in records if record["family"] == family]
        pairs = [record for record in members if len(record["runs"]) == 2]
        if members:
            lines += ["", f"### {title}"]
        if pairs:
            lines += ["", *pair_rows(pairs)]
        for record in members:
            if record not in pairs:
                lines += ["", f"**{record['about'][0].upper()}{record['about'][1:]}**", "", *matrix(record)]
    return lines


def main() -> None:
    """Write the page."""
    # Only here: the driver, too, uses this module, and workloads use measures.
    from workloads import WORKLOADS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--page", type=Path, default=PAGE, help="page to write")
    options = parser.parse_args()
    paths = [options.results / f"{name}.json" for name in WORKLOADS]
    records = [json.loads(path.read_text()) for path in paths if path.exists()]
    before, begin, rest = options.page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{options.page} lacks the lines {BEGIN} and {END}")
    options.page.write_text("\n".join([before + begin, "", *page(records), "", end + after]))


if __name__ == "__main__":
    main()
