#!/usr/bin/env bash
# Runs a training command on TPU slices of a GKE cluster (JobSet), and the search server in the same run or as a separate deployment:
#
#   launch/gke.sh secret --name mmsearch-keys --secrets keys.env
#   launch/gke.sh tools --name search --image REGISTRY/mmsearch-tools --replicas 3 --secret mmsearch-keys -- --config configs/tools/serper.py
#   launch/gke.sh up --name grpo7b --image REGISTRY/mmsearch-tpu --topology v5p:2x2x4 --bucket BUCKET --secret mmsearch-keys -- \
#       grpo --config configs/grpo_qwen2_5_vl_7b.py:v5p:2x2x4 --config.checkpoint=/mnt/runs/sft7b/policies/sft \
#       --config.grpo.rows=/mnt/data/fvqa.array_record --config.tools.url=http://search:8765 \
#       --config.grpo.judge.url=http://judge:8000/v1 --config.grpo.judge.model=Qwen3-32B --workdir /mnt/runs/grpo7b
#
# The command is checked first (mmsearch check), also in a dry run. The bucket is mounted at /mnt. up creates the run and follows it
# until it ends. After a pre-emption the JobSet restarts the run, which resumes. A JobSet that fails is deleted, so that its nodes can
# be released; --keep keeps it for inspection. Steps: up, apply, follow, logs, delete; secret; tools, tools-delete.
# --dry-run prints every command and the YAML.
set -euo pipefail

here="$(cd "$(dirname "$0")" && pwd)"
# shellcheck source=launch/command_line.sh
. "$here/command_line.sh"
# shellcheck source=launch/check.sh
. "$here/check.sh"
name="" image="" topology="" bucket="" secret="" secrets="" service_account=default queue="" spot="" keep="" tools="" tools_image=""
replicas=2 restarts=50 poll=30 namespace="" python="${PYTHON:-python3}"
options="options: --name NAME  --image IMAGE  --topology TOPOLOGY (v5p:2x2x4; v5p:4x4x4:2 is two slices)  --bucket BUCKET  --secret NAME
         --service-account NAME (with access to the bucket)  --spot  --keep  --queue NAME (of Kueue)  --restarts N (50)  --poll SECONDS (30)
         --tools CONFIG --tools-image IMAGE (the search server beside the trainer; its address is added to the command)
         --replicas N (2, of tools)  --secrets FILE (lines KEY=VALUE, of secret)  --namespace NAME"
read_command_line "up apply follow logs delete secret tools tools-delete" \
  "name image topology bucket secret secrets service-account queue tools tools-image replicas restarts poll namespace" "spot keep" "$@"
[ -n "$name" ] || fail "--name is missing: a name for the run or the server"
[[ "$name" =~ ^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || fail "--name $name: lower-case letters, digits and -, at most 32 characters, starting with a letter"
case "$step" in up|apply|tools) [ -n "$image" ] || fail "--image is missing: docker build -f launch/Dockerfile.tpu (or .tools), and push it";; esac
case "$step" in
  up|apply)
    [ -n "$topology" ] || fail "--topology is missing, such as v5p:2x2x4"
    [ -n "$bucket" ] || fail "--bucket is missing: its name without gs://; it is mounted at /mnt"
    [ ${#command[@]} -gt 0 ] || fail "no training command: put it after --, such as: -- sft --workdir /mnt/runs/sft"
    [ -z "$tools" ] || [ -n "$tools_image" ] || fail "--tools needs --tools-image: docker build -f launch/Dockerfile.tools, and push it";;
  tools) [ ${#command[@]} -gt 0 ] || fail "no server config: put it after --, such as: -- --config configs/tools/serper.py";;
  secret) [ -f "$secrets" ] || fail "--secrets must name a file with lines KEY=VALUE";;
esac
[ -n "$dry_run" ] || command -v kubectl > /dev/null || fail "kubectl is not installed: 'gcloud components install kubectl gke-gcloud-auth-plugin'"
space=(); [ -z "$namespace" ] || space=(--namespace "$namespace")
part=(); [ -z "$secret" ] || part+=(--with secret --set "SECRET=$secret")

kube() { # runs the command and explains its errors; prints it in a dry run
  if [ -n "$dry_run" ]; then do_it kubectl "$@" "${space[@]}"; return; fi
  local said
  if said="$(kubectl "$@" "${space[@]}" 2>&1)"; then echo "$said"; return; fi
  echo "$said" >&2
  case "$said" in
    *'no matches for kind "JobSet"'*) fail "the cluster has no JobSet: install it (docs/launch.md, GKE)";;
    *nauthorized*|*'logged in'*|*auth-plugin*|*'connection refused'*|*'current-context'*)
      fail "kubectl is not connected to a cluster: 'gcloud auth login' and 'gcloud container clusters get-credentials CLUSTER --location ZONE'";;
    *orbidden*) fail "this account has no permission in the cluster: it needs the role Kubernetes Engine Developer";;
    *xists*|*immutable*) fail "$name exists already: '$0 delete --name $name', or use another --name";;
    *) fail "kubectl $1 failed";;
  esac
}
apply_file() { # applies the filled file from standard input
  local file; file="$(mktemp)"; cat > "$file"
  [ -z "$dry_run" ] || cat "$file"
  kube apply --filename "$file"
  rm -f "$file"
}

fail_run() { # the run has failed: shows why, and releases its nodes
  logs 20 >&2 || true
  ask get jobset "$name" -o 'jsonpath={.status.conditions[?(@.type=="Failed")].message}' >&2 || true
  [ -z "$keep" ] || fail "$* The JobSet is kept: '$0 delete --name $name' releases its nodes"
  kube delete jobset "$name" || true
  fail "$* Its JobSet is deleted (--keep keeps it); nodes without autoscaling are billed until their pool is deleted"
}

apply() {
  local words=("${command[@]}" --distributed)
  local more=(--topology "$topology" --set "IMAGE=$image" --set "BUCKET=$bucket" --set "RESTARTS=$restarts")
  [ -z "$spot" ] || more+=(--with spot)
  [ -z "$queue" ] || more+=(--with queue --set "QUEUE=$queue")
  if [ -n "$tools" ]; then
    words+=("--config.tools.url=http://$name-tools-0-0.$name:8765")
    more+=(--with tools --set "TOOLS_IMAGE=$tools_image" --args TOOLS_ARGS 2 --config "$tools")
  fi
  check_command --topology "$topology" --mount /mnt -- "${words[@]}"
  [ -z "$tools" ] || check_command --mount /mnt -- serve-tools --config "$tools"
  local filled
  filled="$("$python" "$here/fill.py" "$here/gke_jobset.yaml" --set "NAME=$name" --set "SERVICE_ACCOUNT=$service_account" \
    "${part[@]}" "${more[@]}" --args ARGS "${#words[@]}" "${words[@]}")" || exit 2
  apply_file <<< "$filled"
}
tools() {
  [ -z "$bucket" ] || part+=(--with bucket --set "BUCKET=$bucket")
  local words=("${command[@]}" --config.cache.redis_url_env=REDIS_URL) filled
  check_command --mount /mnt -- serve-tools "${words[@]}"
  filled="$("$python" "$here/fill.py" "$here/gke_tools_server.yaml" --set "NAME=$name" --set "SERVICE_ACCOUNT=$service_account" \
    --set "IMAGE=$image" --set "REPLICAS=$replicas" "${part[@]}" --args ARGS "${#words[@]}" "${words[@]}")" || exit 2
  apply_file <<< "$filled"
  kube rollout status "deployment/$name" --timeout 10m
}

ask() { kubectl "$@" "${space[@]}" 2> /dev/null; }
pods=(get pods --selector "jobset.sigs.k8s.io/jobset-name=$name")
follow() { # until the JobSet has ended; prints why it waits and each restart, and stops at errors that a restart does not solve
  if [ -n "$dry_run" ]; then echo "+ (follow the JobSet $name)"; return 0; fi
  local ended="" restarted=0 last=0 misses=0 waiting said=""
  while [ -z "$ended" ]; do
    sleep "$poll"
    if ! ended="$(ask get jobset "$name" -o 'jsonpath={.status.terminalState}')"; then
      # A lost connection comes back; a deleted JobSet does not.
      misses=$((misses + 1)); [ "$misses" -lt 5 ] || fail "the JobSet $name no longer exists, or the cluster cannot be reached ('$0 follow')"
      ended=""; continue
    fi
    misses=0
    restarted="$(ask get jobset "$name" -o 'jsonpath={.status.restarts}')" || true
    if [ "${restarted:-0}" != "$last" ]; then last="$restarted"; echo "$name was stopped and restarts (restart $last of $restarts)"; fi
    waiting="$(ask "${pods[@]}" -o 'jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}')" || true
    case "$waiting" in
      *ImagePull*|*InvalidImageName*) fail_run "the image cannot be pulled: is $image pushed, and can the nodes read its registry?";;
      *CreateContainerConfigError*) fail_run "a pod's settings are missing: is the secret '$secret' in this namespace? ('$0 secret --name $secret --secrets FILE')";;
    esac
    waiting="$(ask "${pods[@]}" -o 'jsonpath={.items[0].status.conditions[?(@.status=="False")].message}')" || true
    case "$waiting" in
      *nschedulable*|*'nodes are available'*|*"didn't match"*)
        [ "$said" = "$waiting" ] || { said="$waiting"; echo "waiting for nodes: $waiting"; echo "(no node pool with this topology, or no quota: docs/launch.md)"; };;
    esac
  done
  [ "$ended" = Completed ] && { echo "done"; return 0; }
  fail_run "the run failed (see above); fix the error and start it again: it resumes."
}
logs() { kube logs --selector "jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/replicatedjob-name=slice,batch.kubernetes.io/job-completion-index=0" \
  --container trainer --prefix --tail "${1:-200}"; }

case "$step" in
  up) apply; follow;; apply) apply;; follow) follow;; logs) logs;; tools) tools;;
  delete) kube delete jobset "$name";;
  tools-delete) kube delete "deployment/$name" "service/$name" "statefulset/$name-redis" "service/$name-redis" "poddisruptionbudget/$name";;
  secret) kube create secret generic "$name" --from-env-file "$secrets";;
esac
