#!/bin/busybox sh
# The first program of the virtual machine. pivot_root(2) refuses to work on the kernel's initial root, so
# everything moves to a tmpfs first; then the program that the kernel's command line names is pid 1.
set -e
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs -o size=90%,mode=755 tmpfs /new
for entry in bin boot etc home lib lib32 lib64 libx32 opt root sbin srv usr var; do
    if [ -e "/$entry" ] || [ -L "/$entry" ]; then /bin/busybox cp -a "/$entry" /new/; fi
done
/bin/busybox mkdir -p /new/proc /new/sys /new/dev /new/run /new/tmp /new/mnt
/bin/busybox chmod 1777 /new/tmp
/bin/busybox mount -t devtmpfs dev /new/dev
init=$(/bin/busybox sed -n 's/.*turf\.init=\([^ ]*\).*/\1/p' /proc/cmdline)
/bin/busybox umount /proc
exec /bin/busybox switch_root /new "$init"
