#!/bin/busybox sh
# First process of the test VM: loads the modules, moves to a root that pivot_root accepts, then obeys ttyS1.
if [ "$1" != serve ]; then
    /bin/busybox --install -s /bin
    export PATH=/bin
    for module in $(cat /modules/order); do
        insmod "/modules/$module" || echo "init: cannot load $module"
    done
    rm -rf /modules
    # The initial ramfs has no parent mount, and pivot_root(2) refuses to leave it.
    mkdir /new
    mount -t tmpfs -o mode=755,size=95% root /new
    for name in /*; do
        [ "$name" = /new ] || cp -a "$name" /new
    done
    exec switch_root /new /init serve
fi
export PATH=/bin HOME=/root BERTH_TESTS_STRICT=1
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 pts /dev/pts
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs run /run
ip link set lo up
stty -F /dev/ttyS1 raw -echo
if [ -x /hold-kvm ]; then
    /hold-kvm 3>&- &
fi
exec 3<>/dev/ttyS1
printf 'ready\n' >&3
# Asked: "SECONDS LENGTH\n" and the command. Answered: "STATUS LENGTH\n" and all it wrote. A quarter of an hour without a
# question means that the test was killed and could not kill the VM.
while read -t 900 -r seconds length <&3; do
    head -c "$length" <&3 >/run/command
    timeout -s KILL "$seconds" sh /run/command >/run/output 2>&1 </dev/null 3>&-
    status=$?
    printf '%d %d\n' "$status" "$(stat -c %s /run/output)" >&3
    cat /run/output >&3
    # What is still running keeps writing to a file of its own.
    rm /run/output
done
reboot -f
