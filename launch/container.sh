#!/usr/bin/env bash
# Entry point of the trainer's container: sets the environment (launch/env.sh) and runs mmsearch with the container's arguments.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
[ $# -gt 0 ] || { echo "error: no training command: give the container's arguments, such as: sft --workdir /mnt/runs/sft" >&2; exit 2; }
# shellcheck source=launch/env.sh
. "$here/env.sh"
exec mmsearch "$@"
