# shellcheck shell=bash
# Environment of a training process on any platform; sourced by the launch scripts. One reason a line. Flags of one's own
# (LIBTPU_INIT_ARGS, XLA_FLAGS, NCCL_*) are kept and, standing last, win.
#
# MMSEARCH_PLATFORM is tpu or gpu; other variables read are set by TPU machines and GKE themselves.

# Compiled programs are kept: after a pre-emption the same programs are loaded instead of compiled for minutes.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/mmsearch-jax/xla}"
# The tokenizers' own threads do not survive a fork and warn at each one.
export TOKENIZERS_PARALLELISM=false
# Progress and errors reach the log at once.
export PYTHONUNBUFFERED=1

case "${MMSEARCH_PLATFORM:-}" in
  tpu)
    flags=(
      # FSDP's all-gathers of the next layer's weights run while this one computes, fused with its products...
      --xla_tpu_enable_async_collective_fusion=true
      --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true
      # ...over several steps of the ring, and without a core of their own.
      --xla_tpu_enable_async_collective_fusion_multiple_steps=true
      --xla_tpu_overlap_compute_collective_tc=true
      --xla_enable_async_all_gather=true
    )
    if [ "${MEGASCALE_NUM_SLICES:-1}" -gt 1 ]; then
      # Between slices the gradients' all-reduce is the slow one: it starts as soon as each gradient is there, sizes mixed.
      flags+=(--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true)
    fi
    case "${TPU_ACCELERATOR_TYPE:-}" in
      # Twice the fast memory of v5: fusions may have 96 MiB of it (the default is 16).
      v6e*) flags+=(--xla_tpu_scoped_vmem_limit_kib=98304);;
    esac
    export LIBTPU_INIT_ARGS="${flags[*]} ${LIBTPU_INIT_ARGS:-}"
    ;;
  gpu)
    # JAX takes three quarters of a GPU's memory otherwise; nothing else runs beside the trainer.
    export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
    # Collectives of FSDP overlap with computation.
    export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
    # What NCCL cannot do (a card that is not found, a peer that is gone) is said; its every step is not.
    export NCCL_DEBUG="${NCCL_DEBUG:-WARN}"
    ;;
esac
