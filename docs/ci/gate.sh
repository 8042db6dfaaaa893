#!/usr/bin/env bash
# Holds a package to gates: what the GitHub action and the GitLab template run.
#
#   MODEL     checkpoint that the package was made of, or the records of its evaluation
#   PACKAGE   package to judge
#   GATES     file with a gate in each line
#   TEXT      files for perplexity and divergence, with spaces between them; may be empty
#   TASKS     benchmarks, with commas between them; may be empty
#   RESULTS   folder for results [results]
#   ANNOTATE  1: annotations of GitHub Actions on stdout
#
# Exit code 0: every gate passed; 1: a gate failed; 2: an error.
set -u
: "${MODEL:?}" "${PACKAGE:?}" "${GATES:?}"
results=${RESULTS:-results}
mkdir -p "$results" || exit 2
worst=0
measure() { # name, arguments
  local name=$1
  shift
  milm-compress eval "$PACKAGE" --reference "$MODEL" --force \
    --json "$results/$name.json" --markdown "$results/$name.md" \
    --junit "$results/$name.junit.xml" --code-quality "$results/$name.quality.json" \
    ${ANNOTATE:+--annotate} "$@"
  local code=$?
  if [ "$code" -gt "$worst" ]; then worst=$code; fi
}

# Texts have gates on ppl, ppl-increase, kl, top1 and top5; tasks have all others.
figures='^[[:space:]]*(ppl|ppl-increase|kl|top1|top5)[[:space:]]'
grep -E "$figures" "$GATES" > "$results/text.gates"
grep -vE "$figures" "$GATES" > "$results/tasks.gates"
if [ -n "${TEXT:-}" ]; then
  # shellcheck disable=SC2086 # several files
  measure text --text $TEXT --gates "$results/text.gates"
fi
if [ -n "${TASKS:-}" ]; then
  measure tasks --tasks "$TASKS" --gates "$results/tasks.gates"
fi
if [ -z "${TEXT:-}${TASKS:-}" ]; then
  echo "error: nothing to measure: set TEXT or TASKS" >&2
  exit 2
fi
exit "$worst"
