# shellcheck shell=bash
# Environment of a training process on any platform; sourced by the launch scripts. One reason a line.

# Compiled programs are kept: after a pre-emption the same programs are loaded instead of compiled for minutes.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/mmsearch-jax/xla}"
# The tokenizers' own threads do not survive a fork and warn at each one.
export TOKENIZERS_PARALLELISM=false
# Progress and errors reach the log at once.
export PYTHONUNBUFFERED=1
if [ "${MMSEARCH_PLATFORM:-}" = gpu ]; then
  # JAX takes three quarters of a GPU's memory otherwise; nothing else runs beside the trainer.
  export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
  # Collectives of FSDP overlap with computation.
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_latency_hiding_scheduler=true"
fi
