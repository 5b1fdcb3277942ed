#!/usr/bin/env bash
# Several machines: run the same command on each of them, within RENDEZVOUS_TIMEOUT seconds.
#
#     NODES=2 RENDEZVOUS=10.0.0.1:29400 train/launch/several_nodes.sh hybrid --data /shared/shop --out /shared/runs/shop
#
# RENDEZVOUS is the address of one of the machines, with a free port that the others reach. ADDRESS is this machine's
# own, where its name does not lead to it. Data and run folder lie on a disk that all machines see, or --out is a URL (s3://...).
# A machine that is lost ends the job on the others; the same command, on what is left (NODES=1), goes on.
set -euo pipefail
: "${NODES:?how many machines; for instance NODES=2}"
: "${RENDEZVOUS:?address and port of one of them; for instance RENDEZVOUS=10.0.0.1:29400}"
GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
PROCESSES=${PROCESSES:-$((GPUS > 0 ? GPUS : 1))}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((($(nproc) + PROCESSES - 1) / PROCESSES))}
CONF=timeout=${RENDEZVOUS_TIMEOUT:-300}
if [[ -n ${ADDRESS:-} ]]; then  # else torchrun finds out by name which machine is to answer
    [[ ${RENDEZVOUS%:*} == "$ADDRESS" ]] && CONF+=,is_host=1 || CONF+=,is_host=0
fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$NODES" --nproc_per_node="$PROCESSES" \
    --rdzv_backend=c10d --rdzv_endpoint="$RENDEZVOUS" --rdzv_id="${JOB:-mmrec}" \
    --rdzv_conf="$CONF" ${ADDRESS:+--local_addr="$ADDRESS"} \
    -m mmrec train "$@"
