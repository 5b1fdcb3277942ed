#!/usr/bin/env bash
# Everything that needs a GPU, in one command: the tests marked gpu, then the benchmarks. Nothing is downloaded.
#
#     eval/benchmarks/gpu.sh                (torch 2.11 or newer with CUDA; half an hour on one H100)
#
# Results are added to eval/benchmarks/results/<device>.jsonl and shown as tables.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python}
export HF_HUB_OFFLINE=1
"$PYTHON" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "no CUDA device: this is for machines with one")'
DEVICE=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name().replace(" ", "-"))')
mkdir -p eval/benchmarks/results
"$PYTHON" -m pytest -q -m gpu tests
"$PYTHON" -m eval.benchmarks.train_gpu --out "eval/benchmarks/results/$DEVICE.jsonl"
"$PYTHON" -m eval.benchmarks.encode_gpu
"$PYTHON" -m eval.benchmarks.full_softmax --device cuda --targets 25600 --items 1000000 --dim 256 --out "eval/benchmarks/results/$DEVICE.jsonl"
