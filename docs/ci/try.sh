#!/usr/bin/env bash
# Runs what the action and the template run, on the model that the program carries: a gate that
# passes (exit code 0), one that fails (1), one that cannot be judged (2). `milm-compress` must be on
# the PATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
milm-compress quantize builtin:milm-mini --scheme w8a16 --preset fast -o package > quantize.log

export MODEL=builtin:milm-mini PACKAGE=package GATES=gates.txt RESULTS=results TASKS=
attempt() { # wanted exit code, gates
  printf '%s\n' "$2" > gates.txt
  local code=0
  # The action's own step, with the variables that GitHub sets.
  GITHUB_ACTION_PATH=$here/github GITHUB_STEP_SUMMARY=summary.md ANNOTATE=1 TEXT=${3:-builtin:en} \
    bash -e -c "$(sed -n '/      run: |/,$p' "$here/github/action.yml" | sed '1d;s/^        //')" \
    > out.log 2> err.log || code=$?
  echo "gate \"$2\": exit code $code"
  grep '^::' out.log || true
  if [ "$code" != "$1" ]; then
    cat out.log err.log
    echo "wanted $1"
    exit 1
  fi
}
attempt 0 "kl <= 0.05"
test -s summary.md
grep -q 'failures="0"' results/text.junit.xml
attempt 1 "kl <= 1e-9"
grep -q 'failures="1"' results/text.junit.xml
grep -q '"check_name": "max-kl"' results/text.quality.json
attempt 2 "kl <= 0.05" no-such-file.txt
