#!/bin/bash
# cable.sh LAUNCHER PROGRAM: two ranks, each in a network namespace of its own, joined by a pair of virtual
# Ethernet devices, over UCX's tcp. Status 77: namespaces cannot be made here.
set -euo pipefail
run=$1 program=$2 name=isocable$$
# shellcheck source=tests/two_hosts.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../two_hosts.sh"

work=$(mktemp -d)
trap 'hosts_gone $name; rm -rf "$work"' EXIT
hosts_made $name || exit
for i in 0 1; do ip -n $name$i link set lo up; done
cat >"$work/rank" <<END
#!/bin/bash
export UCX_NET_DEVICES=veth0
exec ip netns exec $name\$ISO_LOCAL_RANK "\$@"
END
cat >"$work/cable" <<END
#!/bin/bash
exec ip -n ${name}1 link set veth0 "\$1"
END
chmod +x "$work/rank" "$work/cable"
export ISO_TRANSPORT=ucx UCX_TLS=tcp,self ISO_NODE_SIZE=1 ISO_BACKING=private ISO_TIMEOUT=1
ISO_TEST_CABLE=$work/cable "$run" -n 2 "$work/rank" "$program"
