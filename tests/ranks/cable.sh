#!/bin/bash
# cable.sh LAUNCHER PROGRAM: two ranks, each in a network namespace of its own, joined by a pair of virtual
# Ethernet devices, over UCX's tcp. Status 77: namespaces cannot be made here.
set -euo pipefail
run=$1 program=$2 name=isocable$$

clean() {
    for i in 0 1; do ip netns del $name$i 2>/dev/null || true; done
    rm -rf "$work"
}
work=$(mktemp -d)
trap clean EXIT
for i in 0 1; do
    ip netns add $name$i 2>/dev/null || { echo "no network namespaces here"; exit 77; }
done
ip link add iso$$a netns ${name}0 type veth peer name iso$$b netns ${name}1 || { echo "no veth here"; exit 77; }
for i in 0 1; do
    device=iso$$$([ $i = 0 ] && echo a || echo b)
    ip -n $name$i addr add 10.93.0.$((i + 1))/24 dev "$device"
    ip -n $name$i link set "$device" up
    ip -n $name$i link set lo up
done
for i in 0 1; do # UCX takes no device that is not running yet
    until ip -n $name$i link show up | grep -q 'state UP'; do sleep 0.01; done
done
cat >"$work/rank" <<END
#!/bin/bash
devices=(iso$$a iso$$b)
export UCX_NET_DEVICES=\${devices[\$ISO_LOCAL_RANK]}
exec ip netns exec $name\$ISO_LOCAL_RANK "\$@"
END
cat >"$work/cable" <<END
#!/bin/bash
exec ip -n ${name}1 link set iso$$b "\$1"
END
chmod +x "$work/rank" "$work/cable"
export ISO_TRANSPORT=ucx UCX_TLS=tcp,self ISO_NODE_SIZE=1 ISO_BACKING=private ISO_TIMEOUT=1
ISO_TEST_CABLE=$work/cable "$run" -n 2 "$work/rank" "$program"
