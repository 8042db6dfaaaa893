#!/usr/bin/env bash
# An evaluation as a Slurm array: each task evaluates a part, the last job joins them.
#
#   docs/cluster/slurm.sh 16 ./package --tasks ceval,cmmlu --num-fewshot 5 --data /data
#
# Results: results/parts/*.json, then results/all.json and results/all.jsonl, the same bytes as one run.
# RESULTS names another folder; SBATCH_… variables and `sbatch`'s own settings hold as usual.
#SBATCH --cpus-per-task=2
set -euo pipefail
if [ -z "${SLURM_JOB_ID:-}" ]; then
  if [ $# -lt 2 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
  fi
  parts=$1
  shift
  export RESULTS=${RESULTS:-$PWD/results}
  mkdir -p "$RESULTS/parts"
  array=$(sbatch --parsable --array="1-$parts" "$0" "$@")
  joined=$(sbatch --parsable --dependency="afterok:$array" "$0")
  echo "array $array, joined by $joined"
  exit
fi
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  # --force: a part that Slurm starts again replaces itself; --cache makes that short.
  exec milm-compress eval "$@" --shard auto --cache "$RESULTS/cache/$SLURM_ARRAY_TASK_ID" \
    --json "$RESULTS/parts/$SLURM_ARRAY_TASK_ID.json" --force --threads "${SLURM_CPUS_PER_TASK:-1}"
fi
exec milm-compress eval --merge "$RESULTS/parts" --json "$RESULTS/all.json" --force
