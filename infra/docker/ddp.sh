#!/bin/sh
# One node of a training over several machines (infra/k8s/ddp): every node runs this, node 0 hands on what comes out.
#   STAGE=proxy COMMIT=0f3c... NODES=2 NODE=0 GPUS=8 MASTER=ddp-0.ddp worker.sh ddp.sh
# The commit's `accelerate` must say the same: {devices: $GPUS, nodes: $NODES, strategy: ddp} (or fsdp).
# Afterwards `remint retrain` of that commit finds the stage done, in the run-cache of REMINT_REMOTE.
set -eu
git checkout --quiet --detach "$COMMIT"
dvc config --local cache.dir "$REMINT_CACHE"
dvc remote add --local --force --quiet --default stack "$REMINT_REMOTE"
[ -z "${AWS_ENDPOINT_URL:-}" ] || dvc remote modify --local stack endpointurl "$AWS_ENDPOINT_URL"
dvc pull --quiet --with-deps --allow-missing "$STAGE"
command=$(python -c 'import sys; from dvc.repo import Repo; print(*(s.cmd for s in Repo().stage.collect(sys.argv[1])))' "$STAGE")
# shellcheck disable=SC2086 - the words of the command, as dvc.yaml has them
torchrun --nnodes "$NODES" --node-rank "$NODE" --nproc-per-node "$GPUS" \
  --master-addr "$MASTER" --master-port "${MASTER_PORT:-29500}" ${command#python }
if [ "$NODE" = 0 ]; then
  dvc commit --quiet --force "$STAGE"
  dvc push --quiet --run-cache "$STAGE"
fi
