# shellcheck shell=bash
# Reads the command line of gke.sh, xpk.sh and tpu_queued_resource.sh: STEP [--OPTION VALUE]... [--FLAG]... [-- COMMAND...].
# Sourced. The help is the script's opening comment and $options.

fail() { echo "error: $*" >&2; exit 2; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; echo "${options:-}"; }

# read_command_line "STEP..." "OPTION..." "FLAG..." WORD... sets step, a variable for each option ("-" becomes "_"; 1 for a flag),
# dry_run, and command, an array.
read_command_line() {
  local steps=" $1 " valued=" $2 " flags=" $3 dry-run " option
  shift 3
  [ $# -gt 0 ] || { usage; exit 2; }
  case "$1" in -h|--help) usage; exit 0;; esac
  step="$1" dry_run="" command=()
  [[ "$steps" == *" $step "* ]] || fail "unknown step '$step': see --help"
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    option="${1#--}"
    if [[ "$1" == --* && "$valued" == *" $option "* ]]; then
      [ $# -ge 2 ] || fail "$1 needs a value"
      printf -v "${option//-/_}" '%s' "$2"; shift 2
    elif [[ "$1" == --* && "$flags" == *" $option "* ]]; then
      printf -v "${option//-/_}" 1; shift
    else
      fail "unknown option '$1': see --help (the command comes after --)"
    fi
  done
  # shellcheck disable=SC2034  # for the script that sources this
  command=("${@:2}")
}

# Runs a command, or prints it in a dry run.
do_it() { if [ -n "$dry_run" ]; then printf '+'; printf ' %q' "$@"; printf '\n'; else "$@"; fi; }
