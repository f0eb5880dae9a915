"""The same work on Celeriac, on Celery 5.7.0 and on its peers, in turns; prints medians and ratios.

A round is one run of every contestant of a workload, each time beginning with another. Each finished run is on record
at once, under `benchmarks/results`, so what was interrupted goes on where it was; a record of another state of the
sources is begun anew. `report.py` writes docs/performance.md from the records.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path

import report
from brokers import BROKERS, Broker
from measures import Contestant, Run
from records import Record
from workloads import WORKLOADS, Workload

#: Failures of one contestant after which it is left out of the workload.
PATIENCE = 2
#: Characters of a failure that are printed; the record has more.
SAID = 1000


def once(workload: Workload, contestant: Contestant, brokers: dict[str, Broker]) -> dict[str, float]:
    """One run."""
    return workload.measure(Run(contestant, brokers[contestant.broker]))


def rounds(workload: Workload, record: Record, wanted: int) -> None:
    """Run every contestant until each has so many runs, in turns."""
    contestants = [each for each in workload.contestants if record.installed(each)]
    with contextlib.ExitStack() as stack:
        brokers = {name: stack.enter_context(BROKERS[name]()) for name in {each.broker for each in contestants}}
        # Again from the start for what has failed once.
        for number in [*range(wanted), *range(wanted)]:
            first = number % len(contestants)
            for contestant in [*contestants[first:], *contestants[:first]]:
                if record.has(contestant.label, number) or record.failed(contestant.label) >= PATIENCE:
                    continue
                try:
                    record.add(contestant.label, number, once(workload, contestant, brokers))
                except Exception as error:  # noqa: BLE001  one contestant must not end the comparison of the others
                    record.fail(contestant.label, str(error))
                    print(f"{workload.name}: {str(error)[-SAID:]}", file=sys.stderr, flush=True)


def chosen(options: argparse.Namespace) -> list[Workload]:
    """The workloads that the command line asks for."""
    families = options.family or ["celery"]
    names = options.workload or [name for name, each in WORKLOADS.items() if each.family in families]
    workloads = [WORKLOADS[name] for name in names]
    if options.system:
        workloads = [
            each._replace(contestants=[one for one in each.contestants if one.system in options.system])
            for each in workloads
        ]
    if options.tasks:
        workloads = [
            each._replace(contestants=[one._replace(tasks=options.tasks) for one in each.contestants])
            for each in workloads
        ]
    return [each for each in workloads if each.contestants]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", action="append", choices=WORKLOADS, help="may be repeated")
    parser.add_argument("--family", action="append", choices=report.TITLES, help="may be repeated")
    parser.add_argument("--pairs", type=int, help="runs of each contestant (default 5; 3 of the longest)")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever is on record")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the records")
    trial = parser.add_argument_group("trials, which leave no record")
    trial.add_argument("--tasks", type=int, help="tasks of a run, instead of the workload's own number")
    trial.add_argument("--system", action="append", help="only this one; may be repeated")
    return parser.parse_args()


def main() -> int:
    """Compare what the command line says; the exit status is 1 when a run of ours failed."""
    # Told to end, take workers and servers along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options = arguments()
    trial = bool(options.tasks or options.system)
    failed = False
    for workload in chosen(options):
        record = Record.begin(workload, None if trial else options.results, fresh=options.fresh)
        rounds(workload, record, options.pairs or workload.rounds)
        print(f"\n{workload.name}: {workload.about}\n", *report.table(record.data), sep="\n", flush=True)
        failed |= any(
            record.failed(each.label) and each.system == "celeriac" for each in workload.contestants
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
