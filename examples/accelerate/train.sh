#!/usr/bin/env bash
# Train by Accelerate's launcher, with the layout of config.yaml. Arguments are passed on: train.sh train.steps=100
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
accelerate launch --config_file "$here/config.yaml" -m dalle_cli train-clip --recipe tiny --run accelerate-clip "$@"
