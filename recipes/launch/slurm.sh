#!/usr/bin/env bash
# sbatch recipes/launch/slurm.sh RECIPE [section.key=value ...]
#SBATCH --job-name=detr-ft
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1        # one torchrun a machine, which starts the processes
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120          # two minutes before the limit: the step is completed, and a checkpoint written
#SBATCH --requeue                  # a job that was preempted is started again, and resumes
set -euo pipefail
# Read whole: `head` would end while scontrol still writes, which pipefail counts as a failure.
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
# --signal without B: goes to the tasks of srun; torchrun forwards it.
exec srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc_per_node "$SLURM_GPUS_ON_NODE" \
  --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint "$first:29500" \
  -m detr_ft train "$@" --resume
