#!/usr/bin/env bash
# What a container of the trainer starts with: the environment of launch/env.sh, then mmsearch with the container's arguments.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
[ $# -gt 0 ] || { echo "error: no training command: give the container's arguments, such as: sft --workdir /mnt/runs/sft" >&2; exit 2; }
# shellcheck source=launch/env.sh
. "$here/env.sh"
exec mmsearch "$@"
