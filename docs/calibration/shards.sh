#!/bin/sh
# Calibrates a model by shards, each a process of its own, and puts them together.
#
#   shards.sh MODEL SAMPLES OUTPUT SHARDS
#
# Run again after an interruption it goes on with what each shard had seen.
set -eu
model=$1 samples=$2 output=$3 shards=$4

# What one pod of an Indexed Job runs: only where the index comes from is another place.
shard() {
    JOB_COMPLETION_INDEX=$1
    modelopt calibrate "$model" --samples "$samples" --resume --quiet \
        --shard "$((JOB_COMPLETION_INDEX + 1))/$shards" \
        --output "$output.$JOB_COMPLETION_INDEX"
}

processes=''
index=0
while [ "$index" -lt "$shards" ]; do
    shard "$index" &
    processes="$processes $!"
    index=$((index + 1))
done
for process in $processes; do
    wait "$process"
done

# Any order gives the same file.
set --
index=0
while [ "$index" -lt "$shards" ]; do
    set -- "$@" "$output.$index"
    index=$((index + 1))
done
modelopt calibrate --merge "$@" --output "$output"
rm "$@"
