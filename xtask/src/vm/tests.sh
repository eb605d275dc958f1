#!/bin/bash
# Runs the command lines of /opt/turf/commands one after the other and says on the console how they ended.
export PATH=/opt/turf/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
uname -sr
echo "control groups: $(stat -fc %T /sys/fs/cgroup) with $(cat /sys/fs/cgroup/cgroup.controllers)"
failed=0
while read -r line; do
    echo "turf-vm \$ $line"
    bash -c "$line" </dev/null || { echo "turf-vm: failed with $?: $line"; failed=1; }
done < /opt/turf/commands
echo "turf-vm: result $failed"
