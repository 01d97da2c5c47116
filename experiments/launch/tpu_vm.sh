#!/bin/bash
# Trains on a Cloud TPU slice of spot VMs: makes it, installs sdelab, trains, and makes it anew when it was taken away.
#
#   PROJECT_FILES=10.0.0.2:/share ZONE=us-west4-a experiments/launch/tpu_vm.sh \
#     v5litepod-16 configs/cifar10/vp_ddpmpp.py runs/vp_ddpmpp --config.run.placement=data
#
# Needs gcloud with a project, and PROJECT_FILES, an NFS share (such as Filestore) with this repository in it, which all
# hosts mount at /mnt/files: workdir and config are paths from there. Run it where it may last as long as the training.
# Other variables: NAME of the slice, VERSION of its software, SDELAB_DATA (default data on the share).
set -euo pipefail

if (($# < 3)) || [[ -z ${PROJECT_FILES:-} || -z ${ZONE:-} ]]; then
  echo "usage: PROJECT_FILES=HOST:/SHARE ZONE=ZONE tpu_vm.sh TYPE CONFIG WORKDIR [flags of sdelab train]" >&2
  exit 2
fi
type=$1 config=$2 workdir=$3
shift 3
name=${NAME:-sdelab}
version=${VERSION:-v2-alpha-tpuv5-lite}
files=/mnt/files
PREEMPTED=42 # exit code of a run that was asked to stop and has saved its state

tpu() { gcloud compute tpus tpu-vm "$1" "$name" --zone="$ZONE" "${@:2}"; }
on_all_hosts() { tpu ssh --worker=all --command="$1"; }
state() { tpu describe --format='value(state)' 2>/dev/null || echo ABSENT; }

prepare() {
  on_all_hosts "
    sudo mkdir -p $files
    mountpoint -q $files || { sudo apt-get install -yq nfs-common && sudo mount $PROJECT_FILES $files; }
    cd $files && pip install --quiet --user '.[tpu]'"
}

train() {
  # Each host starts one process; they find each other by the slice's metadata server.
  on_all_hosts "cd $files && SDELAB_DATA=${SDELAB_DATA:-$files/data} ~/.local/bin/sdelab train --cluster=cloud_tpu \
    --config=$config --workdir=$workdir --compilation_cache=$files/programs ${flags[*]@Q}"
}

flags=("$@")
while true; do
  if [[ $(state) != READY ]]; then
    tpu delete --quiet 2>/dev/null || true # a slice that was taken away cannot be started again
    until tpu create --accelerator-type="$type" --version="$version" --spot; do
      echo "tpu_vm.sh: no slice of $type in $ZONE now; trying again in ${RETRY:=60} s." >&2
      sleep "$RETRY"
    done
    prepare
  fi
  code=0
  train || code=$?
  ((code == 0)) && break
  if ((code != PREEMPTED)) && [[ $(state) == READY ]]; then
    echo "tpu_vm.sh: the training failed with code $code; the slice $name is left as it is." >&2
    exit "$code"
  fi
  echo "tpu_vm.sh: stopped with code $code; going on." >&2
done
tpu delete --quiet
