#!/usr/bin/env bash
# On each of several machines, the first of which the others must reach by its name:
#   FIRST=node-0:29500 NODES=2 NODE=0 GPUS=8 recipes/launch/node.sh RECIPE     # on node-0
#   FIRST=node-0:29500 NODES=2 NODE=1 GPUS=8 recipes/launch/node.sh RECIPE     # on the other
set -euo pipefail
: "${FIRST:?the first machine and a free port of it, host:port}" "${NODES:?how many machines}"
: "${NODE:?which this one is, from 0}" "${GPUS:?how many processes it is to run, one for each GPU}"
exec torchrun \
  --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$GPUS" \
  --master_addr "${FIRST%:*}" --master_port "${FIRST##*:}" \
  -m detr_ft train "$@" --resume
