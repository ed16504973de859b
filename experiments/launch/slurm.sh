#!/bin/bash
# Train over several nodes of a Slurm cluster: sbatch experiments/launch/slurm.sh [jaxlin options]
#
# One process per GPU. jaxlin finds the address of process 0, the number of processes and its own
# number in Slurm's variables. If a node dies, or the time is over, Slurm starts the job again and
# it goes on from its last checkpoint. With COMMAND=sweep it sweeps.

#SBATCH --job-name=jaxlin
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%j.log

set -uo pipefail

RUN="${RUN:-runs/slurm-${SLURM_JOB_ID}}"
DATA="${DATA:?set DATA to a data set or a folder of features that all nodes see}"

# The whole job is stopped where one task fails: its other processes could not go on alone.
srun --kill-on-bad-exit=1 \
  jaxlin "${COMMAND:-train}" --data "$DATA" --out "$RUN" --batch-size 4096 --save-every 500 \
  --resume auto "$@"
code=$?

# 75: stopped early, with everything saved that there was to save.
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
