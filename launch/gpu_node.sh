#!/usr/bin/env bash
# Runs a training command on the GPUs of this machine, in one process:
#
#   launch/gpu_node.sh sft --config configs/sft_qwen2_5_vl_7b.py:h100:8 --config.checkpoint=models/Qwen2.5-VL-7B-Instruct \
#       --config.sft.data.sets=data/train.array_record --workdir runs/sft7b
#
# Creates .venv with CUDA on first use (MMSEARCH_CUDA=cuda12 for older drivers). If MMSEARCH_CORPUS names a corpus, a tools server for
# `grpo` is started on this machine, and the trainer gets its address. The command is
# checked first (mmsearch check). --dry-run before the command (or MMSEARCH_DRY_RUN=1) checks it and prints the commands, on any machine.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
fail() { echo "error: $*" >&2; exit 2; }
dry_run="${MMSEARCH_DRY_RUN:-}"
case "${1:-}" in
  -h|--help) while read -r line; do case "$line" in '#!'*) ;; '#'*) line="${line#\#}"; echo "${line# }";; *) break;; esac; done < "$0"; exit 0;;
  --dry-run) dry_run=1; MMSEARCH_DRY_RUN=1; export MMSEARCH_DRY_RUN; shift;;
esac
[ $# -gt 0 ] || fail "no training command: launch/gpu_node.sh sft --workdir runs/sft"
if [ -z "$dry_run" ] && ! command -v nvidia-smi > /dev/null; then fail "nvidia-smi is missing: this machine has no NVIDIA driver (on a CPU, run mmsearch directly)"; fi
export MMSEARCH_PLATFORM=gpu
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
# shellcheck source=launch/check.sh
. "$root/launch/check.sh"
do_it() { if [ -n "$dry_run" ]; then printf '+'; printf ' %q' "$@"; printf '\n'; else "$@"; fi; }

[ -x "$root/.venv/bin/mmsearch" ] || "$root/launch/install.sh" "${MMSEARCH_CUDA:-cuda13}"
more=()
if [ -n "${MMSEARCH_CORPUS:-}" ]; then
  [ -d "$MMSEARCH_CORPUS" ] || fail "MMSEARCH_CORPUS is not a folder: $MMSEARCH_CORPUS"
  port="${MMSEARCH_TOOLS_PORT:-8765}"
  more=("--config.tools.url=http://127.0.0.1:$port")
fi
gpus=0; if command -v nvidia-smi > /dev/null; then gpus="$(nvidia-smi --list-gpus | grep -c '^GPU ' || true)"; fi
there=(); [ "$gpus" = 0 ] || there=(--devices "$gpus")
check_command --processes 1 "${there[@]}" -- "$@" "${more[@]}"
if [ -n "${MMSEARCH_CORPUS:-}" ]; then
  if [ -n "$dry_run" ]; then
    do_it "$root/.venv/bin/mmsearch" serve-tools --corpus "$MMSEARCH_CORPUS" --port "$port"
  else
    "$root/.venv/bin/mmsearch" serve-tools --corpus "$MMSEARCH_CORPUS" --port "$port" &
    trap 'kill %1 2> /dev/null || true' EXIT
  fi
fi
do_it "$root/.venv/bin/mmsearch" "$@" "${more[@]}"
