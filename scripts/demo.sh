#!/usr/bin/env bash
# Runs the first-steps example as a person would: a worker in one terminal, calls in another.
# CELERY names the command, PYTHON the interpreter beside it; both default to those of .venv.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
celery=${CELERY:-$root/.venv/bin/celery}
python=${PYTHON:-$root/.venv/bin/python}
cd "$root/examples/first-steps"

log=$(mktemp)
worker=
finish() {
    if [ -n "$worker" ] && kill -TERM "$worker" 2>/dev/null; then
        wait "$worker" || true
    fi
    rm -f "$log"
}
trap finish EXIT

echo "\$ celery -A proj worker -l INFO -I proj.counting &"
"$celery" -A proj worker -l INFO -I proj.counting >"$log" 2>&1 &
worker=$!

for _ in $(seq 300); do
    if grep -q ' ready\.' "$log"; then
        ready=yes
        break
    fi
    kill -0 "$worker" 2>/dev/null || break
    sleep 0.1
done
cat "$log"
if [ -z "${ready:-}" ]; then
    echo "The worker did not get ready; above is what it said." >&2
    exit 1
fi

echo
echo "\$ python demo.py"
if ! "$python" demo.py; then
    echo "The demo failed; the worker said last:" >&2
    tail -n 40 "$log" >&2
    exit 1
fi
