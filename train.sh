#!/usr/bin/env bash
# The whole training run: bash train.sh [--config CONFIG] [key=value …]
set -eu
python train.py --stage 1 "$@"  # learned prompt and LoRA
python train.py --stage 2 "$@"  # the head
