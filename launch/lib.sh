# shellcheck shell=bash
# What the launchers share. Sourced by bash, with ROOT set to the repository (or the image's copy of launch/).

# Of a run that a signal stopped after it had saved itself: started again, it goes on (framework.core.errors.Preempted).
RESUME_ME=75
# Of a run that Ctrl-C stopped after it had saved itself: its user starts it again, nobody else does (Interrupted).
INTERRUPTED=130

fail() { # problem, hint
  echo "error: $1: $2" >&2
  exit 2
}

find_framework() {
  FRAMEWORK=$(command -v framework) || FRAMEWORK=$ROOT/.venv/bin/framework
  [ -x "$FRAMEWORK" ] || fail "there is no command 'framework'" "run 'make install', or activate its environment"
}

# Refuses a recipe or an override that `framework fit` would refuse, without starting anything; sets RUN_DIR and WANDB.
check_run() { # RECIPE [override...]
  local word resolved
  [ $# -gt 0 ] || fail "no recipe" "give a YAML file, such as recipes/pra/digits.yaml, then overrides"
  [ -f "$1" ] || fail "recipe $1 is not a file" "give a YAML file, such as recipes/pra/digits.yaml"
  for word in "${@:2}"; do
    case $word in
      --trainer.num_nodes | --trainer.num_nodes=* | --trainer.devices | --trainer.devices=*)
        fail "${word%%=*} among the overrides" "the launcher sets it from its own options" ;;
      --config | --config=* | -c) fail "$word among the overrides" "the recipe is the first argument" ;;
    esac
  done
  find_framework
  resolved=$("$FRAMEWORK" where --config "$@") || exit $(($? == INTERRUPTED ? INTERRUPTED : 2))
  RUN_DIR=$(sed -n 's/^run\.dir: //p' <<<"$resolved")
  WANDB=$(sed -n 's/^run\.wandb: //p' <<<"$resolved")
  [ -n "$RUN_DIR" ] || fail "'framework where' names no folder" "see what it prints: framework where --config $1"
}

# The command of one process: the numbers of nodes and devices are the launcher's, all else is passed through.
fit_command() { # nodes, devices, RECIPE [override...]
  FIT=("$FRAMEWORK" fit --config "${@:3}" "--trainer.num_nodes=$1" "--trainer.devices=$2")
}

print_ranks() { # nodes, devices, RECIPE [override...]
  local node device
  fit_command "$@"
  for ((node = 0; node < $1; node++)); do
    for ((device = 0; device < $2; device++)); do
      printf 'rank %d (node %d, device %d):' $((node * $2 + device)) "$node" "$device"
      printf ' %q' "${FIT[@]}"
      echo
    done
  done
}

print_places() { # log
  echo "run          $RUN_DIR"
  echo "log          $1"
  echo "checkpoints  $RUN_DIR/checkpoints"
  echo "metrics      $RUN_DIR/metrics"
  case $WANDB in
    online) echo "W&B          online; the run's id is in $RUN_DIR/wandb-id" ;;
    offline) echo "W&B          offline, in $RUN_DIR/wandb; 'framework runs sync' sends it" ;;
    *) echo "W&B          disabled" ;;
  esac
}

# The value of an option, given as `--name value` or `--name=value`: VALUE; WORDS is how many words that took.
# shellcheck disable=SC2034
read_value() { # the rest of the command line
  case $1 in
    *=*) VALUE=${1#*=} WORDS=1 ;;
    *) [ $# -gt 1 ] || fail "$1 without a value" "give one"; VALUE=$2 WORDS=2 ;;
  esac
}

count_gpus() {
  nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true
}

is_number() { [[ $1 =~ ^[1-9][0-9]*$ ]]; }

# From here on SIGUSR1, SIGTERM and Ctrl-C are noted, for `supervise` to act on. A user's wish counts more than a scheduler's.
listen() {
  SIGNALLED='' INTERRUPTS=0 TO_RANKS=''
  trap '[ "$INTERRUPTS" -gt 0 ] || SIGNALLED=SIGUSR1' USR1
  trap '[ "$INTERRUPTS" -gt 0 ] || SIGNALLED=SIGTERM' TERM
  trap interrupt INT
}

interrupt() {
  SIGNALLED=SIGINT INTERRUPTS=$((INTERRUPTS + 1))
  [ "$INTERRUPTS" -gt 1 ] ||
    echo "Ctrl-C: the run saves itself after this step and stops. Once more: it stops at once, and saves nothing." >&2
}

# Tells supervise.py what has been noted.
pass_on() { # its process
  local name=USR1
  [ -n "$SIGNALLED" ] || return 0
  [ "$SIGNALLED" != SIGINT ] || name=$([ "$INTERRUPTS" -gt 1 ] && echo QUIT || echo USR2)
  kill "-$name" "$1" 2>/dev/null || true
}

# Runs a command and returns its exit code; signals are passed on to it by supervise.py, which says how, or to its ranks
# where TO_RANKS is set.
supervise() { # command...
  local child file code
  # Nothing has been started: there is nothing to save.
  case $SIGNALLED in
    '') ;;
    SIGINT) return "$INTERRUPTED" ;;
    *) return "$RESUME_ME" ;;
  esac
  file=$(mktemp)
  "$ROOT/launch/supervise.py" ${TO_RANKS:+--ranks} --code "$file" "$@" &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    # Until its end, or a signal.
    wait "$child" || true
    pass_on "$child"
  done
  # Empty when supervise.py itself was killed.
  code=$(cat "$file")
  rm "$file"
  return "${code:-137}"
}

# Runs a launcher's command to its end, and exits with its code; with 75 or 130 where the run was stopped, since launchers
# return a code of their own (torchrun 1 for all that happens), and whoever started this should know whether to start it
# again.
run_to_end() { # command...
  local code=0
  print_places "this terminal"
  rm -f "$RUN_DIR/preempted.json"
  supervise "$@" || code=$?
  if [ "$code" -ne 0 ]; then
    if [ "$SIGNALLED" = SIGINT ]; then code=$INTERRUPTED; elif was_stopped "$code"; then code=$RESUME_ME; fi
  fi
  exit "$code"
}

# Whether a run that ended with this exit code, not 0, was asked to end, and not by its user.
was_stopped() { # exit code
  [ "$SIGNALLED" != SIGINT ] || return 1
  # The mark is for launchers that return a code of their own, as torchrun does.
  [ "$1" -eq "$RESUME_ME" ] || [ -n "$SIGNALLED" ] || [ -e "$RUN_DIR/preempted.json" ]
}

# Whether a run that ended with this exit code goes on when it is started again.
wants_restart() { # exit code
  [ "$1" -ne 0 ] || return 1
  ! was_stopped "$1" || return 0
  # Killed from outside, also before training could listen; or ended by the watchdog (124).
  case $1 in
    124 | 134 | 137 | 138 | 143) starts_are_few ;;
    *) return 1 ;;
  esac
}

# Counts the starts since the last new checkpoint that were not asked to end: a run that dies at the same place each time
# is not started for ever.
starts_are_few() {
  local most=${MAX_CRASHES:-3} newest last='' count=0
  newest=$(cat "$RUN_DIR/checkpoints/newest" 2>/dev/null || echo "no checkpoint")
  [ ! -f "$RUN_DIR/crashes" ] || read -r count last <"$RUN_DIR/crashes"
  if [ "$last" = "$newest" ]; then count=$((count + 1)); else count=1; fi
  mkdir -p "$RUN_DIR"
  echo "$count $newest" >"$RUN_DIR/crashes"
  [ "$count" -le "$most" ] && return 0
  echo "error: $count starts have ended without a checkpoint after $newest: not started again (MAX_CRASHES=$most)" >&2
  return 1
}
