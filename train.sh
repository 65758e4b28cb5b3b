#!/usr/bin/env bash
# The whole training run, from any folder: bash train.sh [--config CONFIG] [key=value …]
set -eu
train="$(dirname "$(readlink -f "$0")")/train.py"
python "$train" --stage 1 "$@"  # learned prompt and LoRA
python "$train" --stage 2 "$@"  # the head
