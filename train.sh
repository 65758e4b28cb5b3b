#!/usr/bin/env bash
# The whole training run: bash train.sh [CONFIG]
set -eu
config=${1:-configs/competition.yaml}
python train.py --config "$config" --stage 1  # learned prompt and LoRA
python train.py --config "$config" --stage 2  # the head
