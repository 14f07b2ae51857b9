#!/bin/bash
# The first program of the machine that installs. It runs from vda (the system, plain ext4; its writes are lost), copies
# vdd (the same) into vdb, the disk that the machine then boots from, and makes vdc the disk for images.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts; mount -t devpts pts /dev/pts; mount -t tmpfs run /run; mount -t tmpfs tmp /tmp
exec >/dev/ttyS0 2>&1 </dev/null
off() { sync; echo o >/proc/sysrq-trigger; sleep 60; }
trap 'echo "INSTALL FAILED at line $LINENO"; off' ERR
set -Ee
/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle
modprobe -a dm_mod dm_crypt raid1 xfs ext4
T=/dev/vdb
sgdisk -Z $T >/dev/null || true
sgdisk -n1:2048:+128M -n2:0:+2700M -t2:8e00 -n3:0:+132M -t3:8e00 -n4:0:+96M -n5:0:+8M -n6:0:+64M -t6:fd00 -n7:0:+64M -t7:fd00 $T
udevadm settle
mkfs.ext4 -q -L part ${T}1
pvcreate -y ${T}2; vgcreate vg0 ${T}2
lvcreate -y -Wy -L 2G -n root vg0; lvcreate -y -L 320M -n xfs vg0; lvcreate -y -L 128M -n ext vg0
pvcreate -y ${T}3; vgcreate vg1 ${T}3; lvcreate -y -L 96M -n other vg1
udevadm settle
mkfs.xfs -q -f -L xfs /dev/vg0/xfs; mkfs.ext4 -q -L ext /dev/vg0/ext; mkfs.ext4 -q -L other /dev/vg1/other
cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 ${T}4 /etc/luks.key
cryptsetup open --key-file /etc/luks.key ${T}4 crypt1; mkfs.ext4 -q -L crypt /dev/mapper/crypt1; cryptsetup close crypt1
mdadm --create /dev/md0 -R --level=1 --raid-devices=2 --metadata=1.2 --homehost=any --name=0 ${T}6 ${T}7
mkfs.ext4 -q -L md /dev/md0; mdadm --stop /dev/md0
mkfs.ext4 -q -L store /dev/vdc
dd if=/dev/vdd of=/dev/vg0/root bs=4M conv=fsync status=none
e2fsck -fy /dev/vg0/root || [ $? -le 1 ]
resize2fs /dev/vg0/root; tune2fs -U random -L root /dev/vg0/root </dev/null
udevadm settle; vgchange -an vg0 vg1
echo "INSTALL DONE"
off
