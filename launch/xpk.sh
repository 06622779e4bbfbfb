#!/usr/bin/env bash
# Runs a training command on a cluster that XPK created (github.com/AI-Hypercomputer/xpk), on one slice or several:
#
#   launch/xpk.sh up --cluster C --zone Z --project P --name sft7b --image REGISTRY/mmsearch-tpu --topology v5p:2x2x4:2 \
#       --storage runs --secret mmsearch-keys -- \
#       sft --config configs/sft_qwen2_5_vl_7b.py:v5p:2x2x4:2 --config.checkpoint=/mnt/models/Qwen2.5-VL-7B-Instruct \
#       --config.sft.data.sets=/mnt/data/train.array_record --workdir /mnt/runs/sft7b
#
# --storage names what `xpk storage attach` mounted, --mount where (/mnt). The command is checked first (mmsearch check), also in a dry run. Keys come from a Secret object (launch/gke.sh secret): XPK itself
# would write them into the job. Steps: up, list, delete. Logs: launch/gke.sh logs. --dry-run prints the commands.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=launch/command_line.sh
. "$here/command_line.sh"
# shellcheck source=launch/check.sh
. "$here/check.sh"
cluster="" zone="" project="" name="" image="" topology="" storage="" mount=/mnt secret="" priority=medium restarts=50 python="${PYTHON:-python3}"
options="options: --cluster NAME  --zone ZONE  --project ID  --name NAME  --image IMAGE  --topology TOPOLOGY (v5p:4x4x4:2 is two slices)
         --storage NAME  --mount DIR (/mnt: where it is)  --secret NAME  --priority LEVEL (medium)  --restarts N (50)"
read_command_line "up list delete" "cluster zone project name image topology storage mount secret priority restarts" "" "$@"
for option in cluster zone project; do [ -n "${!option}" ] || fail "--$option is missing: of the cluster that 'xpk cluster create' created"; done
[ "$step" = list ] || [ -n "$name" ] || fail "--name is missing: a name for the run"
place=(--cluster "$cluster" --zone "$zone" --project "$project")
[ -n "$dry_run" ] || command -v xpk > /dev/null || fail "xpk is not installed: pip install xpk"

up() {
  [ -n "$image" ] || fail "--image is missing: docker build -f launch/Dockerfile.tpu, and push it"
  [ -n "$topology" ] || fail "--topology is missing, such as v5p:2x2x4"
  [ ${#command[@]} -gt 0 ] || fail "no training command: put it after --, such as: -- sft --workdir /mnt/runs/sft"
  local type slices words
  # shellcheck disable=SC2016
  type="$("$python" "$here/fill.py" - --topology "$topology" <<< '${XPK_TYPE} ${SLICES}')" || exit 2
  check_command --topology "$topology" --mount "$mount" -- "${command[@]}" --distributed
  slices="${type#* }"; type="${type% *}"
  words="exec launch/container.sh$(printf ' %q' "${command[@]}" --distributed)"
  local create=(
    xpk workload create "${place[@]}" --workload "$name" --tpu-type "$type" --num-slices "$slices" --docker-image "$image"
    --priority "$priority" --max-restarts "$restarts" --termination-grace-period-seconds 300
    # 75: stopped by a signal, and saved. 1: a crash. XPK adds 42 and 127 to 255 (lost processes). 2 (an error that the user must fix) ends it.
    --restart-on-exit-codes "1,75" --command "$words"
  )
  [ -z "$storage" ] || create+=(--storage "$storage")
  if [ -z "$secret" ]; then do_it "${create[@]}" || fail_create; return; fi
  local manifest patch
  manifest="$(mktemp)"
  patch='[{"op": "add", "path": "/spec/replicatedJobs/0/template/spec/template/spec/containers/0/envFrom", "value": [{"secretRef": {"name": "'"$secret"'"}}]}]'
  do_it "${create[@]}" --dry-run --output-manifest-file "$manifest" || fail_create
  if [ -n "$dry_run" ]; then echo "+ kubectl patch --local --filename $manifest --type json --patch $(printf %q "$patch") --output yaml | kubectl apply --filename -"; return; fi
  kubectl patch --local --filename "$manifest" --type json --patch "$patch" --output yaml | kubectl apply --filename - || fail_create
}
fail_create() { fail "the run could not be created (see above): 'gcloud auth login', 'xpk cluster list', and quota for $topology in $zone"; }

case "$step" in
  up) up;;
  list) do_it xpk workload list "${place[@]}";;
  delete) do_it xpk workload delete "${place[@]}" --workload "$name" --force;;
esac
