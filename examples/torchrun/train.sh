#!/usr/bin/env bash
# Train with two processes of one machine. Arguments are passed on: train.sh train.steps=100
set -euo pipefail
torchrun --nproc_per_node 2 -m -- dalle_cli train-clip --recipe tiny --run torchrun-clip "$@"
