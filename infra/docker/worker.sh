#!/bin/sh
# A command in a clone of its own, brought up to date: the workers' way to run commits.
#   REMINT_ORIGIN=ssh://git@host/remint.git REMINT_CLONE=/work/clone worker.sh remint worker --pool cpu
#   worker.sh python -m prefect.engine      one stage, in a container or pod that Prefect's worker started for it
set -eu
if [ -f /run/remint/worker.env ]; then # a container of Prefect's Docker worker, to which it gives no secrets
  set -a
  . /run/remint/worker.env
  set +a
fi
if [ -d "$REMINT_CLONE/.git" ]; then
  git -C "$REMINT_CLONE" pull --quiet --ff-only || echo "worker.sh: $REMINT_CLONE stays as it is" >&2
else
  # beside its place first: a clone that was cut off is not taken for one
  rm -rf "$REMINT_CLONE.unfinished"
  git clone --quiet "$REMINT_ORIGIN" "$REMINT_CLONE.unfinished"
  mv "$REMINT_CLONE.unfinished" "$REMINT_CLONE"
fi
cd "$REMINT_CLONE"
exec "$@"
