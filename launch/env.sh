# shellcheck shell=bash
# Environment of a training process on any platform. The launch scripts source it. Comments give the reason of each setting.
# Flags that you set yourself (LIBTPU_INIT_ARGS, XLA_FLAGS, NCCL_*) are kept; they come last, so they take precedence.
#
# MMSEARCH_PLATFORM is tpu or gpu; TPU machines and GKE set the other variables that this file reads.

# Keeps compiled programs: loading them after a pre-emption saves minutes of compilation.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/mmsearch-jax/xla}"
# The threads of the tokenizers do not survive a fork, and each fork prints a warning.
export TOKENIZERS_PARALLELISM=false
# Unbuffered, so that progress and errors reach the log at once.
export PYTHONUNBUFFERED=1

case "${MMSEARCH_PLATFORM:-}" in
  tpu)
    flags=(
      # The all-gathers of FSDP for the next layer's weights overlap with this layer's computation, fused with its matrix products...
      --xla_tpu_enable_async_collective_fusion=true
      --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
      # ...over several steps of the ring, and without a separate core.
      --xla_tpu_enable_async_collective_fusion_multiple_steps=true
      --xla_tpu_overlap_compute_collective_tc=true
      --xla_enable_async_all_gather=true
    )
    if [ "${MEGASCALE_NUM_SLICES:-1}" -gt 1 ]; then
      # The all-reduce of gradients between slices is slow: it starts for each gradient as soon as it is ready, with mixed sizes.
      flags+=(--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true)
    fi
    case "${TPU_ACCELERATOR_TYPE:-}" in
      # v6e has twice the VMEM of v5: fusions may use 96 MiB (the default is 16).
      v6e*) flags+=(--xla_tpu_scoped_vmem_limit_kib=98304);;
    esac
    export LIBTPU_INIT_ARGS="${flags[*]} ${LIBTPU_INIT_ARGS:-}"
    ;;
  gpu)
    # The default is three quarters of a GPU's memory; nothing else runs beside the trainer.
    export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
    # Overlaps the collectives of FSDP with computation.
    export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
    # Logs NCCL's problems (a missing card, a lost peer), but not its steps.
    export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
    ;;
esac
