# two_hosts.sh, for scripts to source - two hosts, nearly: network namespaces that a pair of virtual devices joins, so that
# addresses are all that programs in them share.
# shellcheck shell=bash

# hosts_made NAME: namespaces NAME0 and NAME1, each with a device veth0, 10.93.0.1 and 10.93.0.2. Status 77, with a line that says
# why, where they cannot be made; another one where they do not come up.
hosts_made() {
    local name=$1 host i
    if [ $EUID != 0 ]; then
        echo 'no network namespaces: not root'
        return 77
    fi
    if ! ip netns add "${name}0" || ! ip netns add "${name}1" ||
        ! ip -n "${name}0" link add veth0 type veth peer name veth0 netns "${name}1"; then
        echo 'no network namespaces here, or no veth'
        return 77
    fi 2>&1
    for i in 0 1; do
        ip -n "$name$i" addr add 10.93.0.$((i + 1))/24 dev veth0 && ip -n "$name$i" link set veth0 up || return
    done
    for host in "${name}0" "${name}1"; do # the kernel takes its time, and UCX goes by the state
        for ((i = 0; i < 100; i++)); do
            ip -n "$host" link show up dev veth0 | grep -q 'state UP' && continue 2
            sleep 0.1
        done
        echo "veth0 of $host does not come up"
        return 1
    done
}

# hosts_gone NAME: whatever there is of them.
hosts_gone() {
    local i
    for i in 0 1; do ip netns del "$1$i" 2>/dev/null || true; done
}
