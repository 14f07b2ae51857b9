#!/bin/bash
# One boot of the campaign (machine.step=NAME on the kernel's command line), run by step.service. What it finds goes to the
# second serial line: NAME, a tab, JSON or text. The checks are the host's: continuity.ts.
export LC_ALL=C PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
step=$(sed -n 's/.*machine\.step=\([^ ]*\).*/\1/p' /proc/cmdline)
names=$(sed -n 's/.*machine\.volumes=\([^ ]*\).*/\1/p' /proc/cmdline | tr ',' ' ')
say() { printf '%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\n\t' '  ')" >/dev/ttyS1; }
place() { if [ "$1" = root ]; then echo /; else echo "/srv/$1"; fi; }
trap 'say failed "line $LINENO: $BASH_COMMAND"' ERR
set -E

install_agent() {
  cp -r /payload/build /opt/linux-agent
  ln -s /opt/linux-agent/dattod /opt/linux-agent/dattocli /usr/local/bin/
  mkdir -p /root/packaging && cp /payload/packaging/* /root/packaging/
  for unit in dattod dattod-early dattod-early-root dattod-save; do
    mkdir -p /etc/systemd/system/$unit.service.d
    # The emulated machine is some forty times slower; the console shows what is saved.
    printf '[Service]\nTimeoutStartSec=300\nTimeoutStopSec=200\nStandardOutput=journal+console\nStandardError=journal+console\n' \
      >/etc/systemd/system/$unit.service.d/slow.conf
  done
  for unit in dattod-early dattod-early-root; do
    printf '[Service]\nExecStart=\nExecStart=/opt/linux-agent/dattod reboot resume --wait 120 --limit 240\n' \
      >/etc/systemd/system/$unit.service.d/limit.conf
    printf '[Unit]\nAfter=blk-availability.service systemd-cryptsetup@crypt1.service\n' \
      >/etc/systemd/system/$unit.service.d/order.conf
  done
  cp /root/packaging/dattod.service /etc/systemd/system/
  systemctl enable --now dattod
}

# The daemon may start beside this; systemctl waits for it.
ready() { systemctl start dattod; }

tracking() { say "tracking${1:+-$1}" "$(dattocli tracking --json)"; }

# New files, and blocks of others in place.
write() {
  for name in $names; do
    mkdir -p "$(place $name)/campaign"
    cd "$(place $name)/campaign"
    dd if=/dev/urandom of=new-$1 bs=64k count=4 status=none
    [ -e old ] || dd if=/dev/urandom of=old bs=64k count=32 status=none
    dd if=/dev/urandom of=old bs=4k count=3 seek=$((RANDOM % 500)) conv=notrunc status=none
    cd /
  done
  sync
}

# Volumes are unmounted for the backup, since what is idle needs no freeze, whose guard may come up too late here.
backup() {
  local devices=() name
  for name in $names; do [ $name = root ] || umount "/srv/$name"; done
  for name in $names; do
    [ $name = root ] || devices+=(--device "$(device $name)" --target "/srv/store/$name.img")
  done
  job volumes --$1 "${devices[@]}"
  for name in $names; do [ $name = root ] || mount "/srv/$name"; done
  case " $names " in *' root '*) job root --$1 --device / --target /srv/store/root.img ;; esac
}

device() { findmnt --fstab --noheadings --evaluate --output SOURCE "/srv/$1"; }

job() {
  local name=$1 try
  shift
  # A host with other work lets the machine stand still for seconds, so that devices seem to hang.
  for try in 1 2 3 4 5 6; do
    udevadm settle --timeout=60 || true
    dattocli startbackup --wait --json --verify none --max-freeze 60s "$@" >/tmp/job.json 2>/tmp/job.err || true
    tail -3 /tmp/job.err
    grep -q -e FREEZE_FAILED -e 'does not answer' /tmp/job.json /tmp/job.err || break
  done
  say "job-$name" "$(cat /tmp/job.json)"
}

# Each image holds the files of its device. The devices were not written to since the backup, but for logs on root.
compare() {
  local name options folder
  mkdir -p /mnt/image
  for name in $names; do
    options=ro,noload
    [ $name = xfs ] && options=ro,norecovery,nouuid
    mount -o loop,$options /srv/store/$name.img /mnt/image || { say "compare-$name" 'cannot be mounted'; continue; }
    if [ $name = root ]; then
      folder='differs'
      diff -rq --no-dereference /root /mnt/image/root && diff -rq --no-dereference /etc /mnt/image/etc && diff -rq --no-dereference /usr/sbin /mnt/image/usr/sbin && folder=same
    else
      folder='differs'
      diff -rq "/srv/$name" /mnt/image && folder=same
    fi
    umount /mnt/image
    say "compare-$name" "$folder"
  done
}

case $step in
first)
  install_agent
  ready
  cp /root/packaging/dattod-early.service /root/packaging/dattod-save.service /etc/systemd/system/
  # Not --now: the first shutdown has to be recorded all the same.
  systemctl enable dattod-early
  write 1
  backup full
  tracking
  write 2
  systemctl reboot
  ;;
second)
  ready
  tracking
  # Compared after the next one, which builds on it.
  backup incremental
  # From here on the record has a device, so that root continues too.
  systemctl stop dattod
  systemctl disable --now dattod-early
  dattod reboot prepare /dev/vda5 || say failed prepare
  dattod reboot prepare /dev/mapper/vg0-ext 2>&1 | grep -q 'systemd-shutdown removes' || say failed 'a volume was prepared'
  mkdir -p /etc/dattod && echo '{"reboot_record": "/dev/vda5"}' >/etc/dattod/config.json
  cp /root/packaging/dattod-early-root.service /etc/systemd/system/
  systemctl enable --now dattod-early-root
  systemctl start dattod
  ready
  tracking no-hook
  install -m 755 /root/packaging/dattod.shutdown /usr/lib/systemd/system-shutdown/dattod
  write 3
  systemctl reboot
  ;;
third)
  ready
  tracking
  backup incremental
  compare
  write 4
  systemctl reboot
  ;;
fourth)
  ready
  tracking
  backup incremental
  compare
  write 5
  say cut now
  sleep 600
  ;;
fifth)
  ready
  tracking
  backup incremental
  compare
  write 6
  # The unit is killed before it can have done anything.
  printf '[Service]\nTimeoutStartSec=2\n' >/etc/systemd/system/dattod-early-root.service.d/zz-short.conf
  systemctl reboot
  ;;
sixth)
  ready
  tracking
  say early "$(systemctl show --property=ActiveState,Result dattod-early-root)"
  backup incremental
  compare
  rm /etc/systemd/system/dattod-early-root.service.d/zz-short.conf
  systemctl daemon-reload
  write 7
  systemctl reboot
  ;;
seventh)
  ready
  tracking
  backup incremental
  compare
  systemctl poweroff
  ;;
esac
