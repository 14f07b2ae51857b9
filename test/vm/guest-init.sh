#!/bin/busybox sh
# First program of the test machine. The host's root comes over 9p, read-only, and lies under an overlay in memory,
# so that the guest has the host's tools and this repository. The kernel's command line says the rest:
#   vm.modules=DIR  lib/modules of the kernel that runs    vm.repo=DIR  this repository
# The share "job" is the one place of the host that can be written: it holds the script `run`, and gets `status`.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for word in $($b cat /proc/cmdline); do
  case $word in
  vm.modules=*) modules=${word#*=} ;;
  vm.repo=*) repo=${word#*=} ;;
  esac
done
while read -r module; do $b insmod "/modules/$module" || echo "guest: insmod $module failed"; done </modules/order

$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /lower
$b mount -t tmpfs -o size=80% overlay /overlay
$b mkdir /overlay/upper /overlay/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/overlay/upper,workdir=/overlay/work overlay /root
for each in proc sys dev; do $b mkdir -p /root/$each && $b mount --move /$each /root/$each; done
$b mkdir -p /root/tmp /root/run /root/job /root/usr/lib/modules
$b mount -t tmpfs -o mode=1777,size=80% tmp /root/tmp
$b mount -t tmpfs run /root/run
# The repository and the modules may lie below what has just been covered.
$b mkdir -p "/root$repo" && $b mount --bind "/lower$repo" "/root$repo"
$b mount --bind "/lower$modules" /root/usr/lib/modules
exec $b switch_root /root /bin/sh -c '
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C NO_COLOR=1
  mkdir -p /dev/shm /dev/pts /run/lock/lvm
  mount -t tmpfs shm /dev/shm; mount -t devpts devpts /dev/pts
  mount -t debugfs debugfs /sys/kernel/debug; mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
  mount -t securityfs securityfs /sys/kernel/security
  ip link set lo up
  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 job /job
  echo "guest: job begins $(cut -d" " -f1 /proc/uptime) s after boot"
  sh /job/run >/job/output 2>&1
  echo $? >/job/status
  echo "guest: job ended $(cut -d" " -f1 /proc/uptime) s after boot"
  sync
  echo o >/proc/sysrq-trigger
  # Nothing can be loaded from 9p any more.
  while :; do :; done'
