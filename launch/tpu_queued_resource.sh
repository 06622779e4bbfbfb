#!/usr/bin/env bash
# Runs a training command on a TPU slice that it requests as a queued resource:
#
#   launch/tpu_queued_resource.sh up --name sft7b --zone us-east5-a --type v5p-16 --setup mount.sh -- \
#       sft --config configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2 --config.checkpoint=/mnt/models/Qwen2.5-VL-7B-Instruct \
#       --config.sft.data.sets=/mnt/data/train.array_record --workdir /mnt/runs/sft7b
#
# up checks the command (mmsearch check, also in a dry run), creates the slice, waits for it, pushes the committed code, starts the
# command on every worker, and follows it. A pre-empted slice is deleted and requested again, and the run resumes from its last
# checkpoint, so --workdir must outlive the slice (a bucket or disk that --setup mounts at --mount). When the run has ended or failed
# the slice is deleted; --keep keeps it after a failure. Each step is also a separate command:
#   create, wait, push, run, follow, logs, delete      (--dry-run prints the commands)
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=launch/command_line.sh
. "$here/command_line.sh"
# shellcheck source=launch/check.sh
. "$here/check.sh"
name="" zone="" type="" project="" secrets="" setup="" mount=/mnt spot="" keep="" runtime="" attempts=20 poll=60
options="options: --name NAME  --zone ZONE  --type ACCELERATOR (v5litepod-16, v5p-16, v6e-16)  --project ID
         --runtime VERSION (default: by type)  --spot  --keep  --attempts N (20)  --poll SECONDS (60)
         --secrets FILE (lines KEY=VALUE; copied to the workers, never an argument)  --setup FILE (run on each worker first)
         --mount DIR (/mnt: what --setup mounts)"
read_command_line "up create wait push run follow logs delete" "name zone type project runtime secrets setup mount attempts poll" "spot keep" "$@"
[ -n "$name" ] || fail "--name is missing: a name for the slice"
[ -n "$zone" ] || fail "--zone is missing: the zone of the slice, such as us-east5-a"
case "$step" in up|create) [ -n "$type" ] || fail "--type is missing, such as v5p-16";; esac
case "$step" in up|run) [ ${#command[@]} -gt 0 ] || fail "no training command: put it after --, such as: -- sft --workdir /mnt/runs/sft";; esac
for file in "$secrets" "$setup"; do [ -z "$file" ] || [ -f "$file" ] || fail "no file $file"; done
if [ -z "$runtime" ]; then
  case "$type" in v4*) runtime=tpu-ubuntu2204-base;; v5p*) runtime=v2-alpha-tpuv5;; v6e*) runtime=v2-alpha-tpuv6e;; *) runtime=v2-alpha-tpuv5-lite;; esac
fi
[ -n "$dry_run" ] || command -v gcloud > /dev/null || fail "gcloud is not installed: install the Google Cloud CLI, then 'gcloud auth login'"

place=(--zone "$zone")
[ -z "$project" ] || place+=(--project "$project")

on_workers() { do_it gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command "$2"; }
to_workers() { do_it gcloud compute tpus tpu-vm scp "$1" "$name:$2" "${place[@]}" --worker=all; }
describe() { gcloud compute tpus queued-resources describe "$name" "${place[@]}" --format="value($1)" 2> /dev/null; }
state() { describe state.state || echo NONE; }
explain() { # fails with a remedy, for errors that another request would not solve
  case "$1" in
    *uota*) fail "the project has no quota for $type in $zone: request it in the console (IAM & Admin, Quotas), or use another zone or --spot";;
    *ermission*|*PERMISSION*) fail "this account may not create TPUs: it needs the role TPU Admin ('gcloud auth list' shows the account)";;
    *ALREADY_EXISTS*|*already\ exists*) fail "$name exists already: '$0 delete --name $name --zone $zone', or another --name";;
    *active\ account*|*auth\ login*|*eauthentication*) fail "gcloud is not logged in: 'gcloud auth login'";;
    *'[project]'*) fail "gcloud has no project: --project ID, or 'gcloud config set project ID'";;
    *SERVICE_DISABLED*) fail "the TPU API is off in this project: 'gcloud services enable tpu.googleapis.com'";;
  esac
}

create() {
  local tier=()
  [ -z "$spot" ] || tier=(--spot)
  local said
  if ! said="$(do_it gcloud compute tpus queued-resources create "$name" --node-id "$name" "${place[@]}" \
      --accelerator-type "$type" --runtime-version "$runtime" "${tier[@]}" 2>&1)"; then
    echo "$said" >&2
    explain "$said"
    fail "the slice could not be requested (see above)"
  fi
  echo "$said"
}
wait_active() {
  if [ -n "$dry_run" ]; then echo "+ (wait until $name is ACTIVE)"; return; fi
  local now last="" why
  while :; do
    now="$(state)"
    [ "$now" = "$last" ] || { echo "$name: $now"; last="$now"; }
    case "$now" in
      ACTIVE) return 0;;
      FAILED) why="$(describe state.failedData.error.message || true)"; echo "$why" >&2; explain "$why"; return 1;;
      SUSPENDED|SUSPENDING|NONE) return 1;;
    esac
    sleep "$poll"
  done
}
push() {
  local code; code="$(mktemp -d)/code.tar.gz"
  git -C "$here/.." archive --format=tar.gz -o "$code" HEAD
  to_workers "$code" code.tar.gz || return 1
  [ -z "$setup" ] || to_workers "$setup" setup.sh || return 1
  if [ -n "$secrets" ]; then
    to_workers "$secrets" .mmsearch_secrets && on_workers all 'chmod 600 ~/.mmsearch_secrets' || return 1
  fi
  on_workers all "set -e; mkdir -p ~/mmsearch; tar xzf code.tar.gz -C ~/mmsearch; [ ! -f setup.sh ] || bash setup.sh; \
bash ~/mmsearch/launch/install.sh tpu"
}
run() { # detached from the connection, which may break; its exit code is written to job.rc
  local words; words="$(printf ' %q' "${command[@]}")"
  on_workers all "cd ~/mmsearch; rm -f job.rc; nohup bash -c '\
set -a; [ ! -f ~/.mmsearch_secrets ] || . ~/.mmsearch_secrets; set +a; MMSEARCH_PLATFORM=tpu; . launch/env.sh; \
.venv/bin/mmsearch$(printf '%s' "$words" | sed "s/'/'\\\\''/g") --distributed; echo \$? > job.rc' > job.log 2>&1 < /dev/null &"
}
follow() { # returns the job's exit code, or 75 if the slice is gone
  if [ -n "$dry_run" ]; then echo "+ (follow job.rc on worker 0)"; return 0; fi
  local code
  while :; do
    sleep "$poll"
    if code="$(on_workers 0 'cat ~/mmsearch/job.rc 2> /dev/null || tail -c 200 ~/mmsearch/job.log >&2')"; then
      if [ -n "$code" ]; then
        return "$code"
      fi
    elif [ "$(state)" != ACTIVE ]; then
      return 75
    fi
  done
}
delete() { do_it gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet; }

check_run() {
  local keys=(); [ -z "$secrets" ] || keys=(--secrets "$secrets")
  check_command --topology "$type" --mount "$mount" "${keys[@]}" -- "${command[@]}" --distributed
}
fail_run() { # the run has failed: the slice is billed until it is deleted
  [ -z "$keep" ] || fail "$*; the slice is kept and billed: '$0 logs' shows its log, '$0 delete' deletes it (both with --name $name --zone $zone)"
  on_workers 0 'tail -n 200 ~/mmsearch/job.log' >&2 || true
  delete || true
  fail "$* (its last lines are above); the slice is deleted, --keep keeps it"
}

up() {
  local attempt code
  check_run
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    create
    if wait_active; then
      code=0
      { push && run && follow; } || code=$?
      # If the slice is gone, the code means nothing.
      [ -n "$dry_run" ] || [ "$code" = 0 ] || [ "$(state)" = ACTIVE ] || code=75
      case "$code" in
        0) echo "done"; delete; return 0;;
        2) fail_run "the command has an error that you must fix";;
        75) echo "$name was pre-empted: requesting it again (attempt $attempt of $attempts)";;
        *) fail_run "the command ended with code $code";;
      esac
    else
      echo "$name is $(state): requesting it again (attempt $attempt of $attempts)"
    fi
    delete || true
  done
  fail "stopped after $attempts attempts"
}

case "$step" in
  up) up;; create) create;; wait) wait_active || fail "$name is $(state)";; push) push;; run) [ -z "$type" ] || check_run; run;; follow) follow;;
  logs) on_workers 0 'tail -n 200 -f ~/mmsearch/job.log';; delete) delete;;
esac
