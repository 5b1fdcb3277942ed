#!/usr/bin/env bash
# One machine, one process for each GPU (or PROCESSES of them on CPUs).
#
#     train/launch/one_machine.sh hybrid --data data/shop --out runs/shop
#     PROCESSES=2 train/launch/one_machine.sh id --data data/shop --out runs/shop
#
# The arguments are those of `mmrec train`. --batch-size is that of all processes together, so that the run is the same
# on any number of them. The same command goes on after a stop, also with another number.
set -euo pipefail
GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
PROCESSES=${PROCESSES:-$((GPUS > 0 ? GPUS : 1))}
# Threads of one process: the cores are shared.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + PROCESSES - 1) / PROCESSES))}
exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc_per_node="$PROCESSES" -m mmrec train "$@"
