#!/bin/bash
# perftest.sh PART BIN PERF: iso_perftest, ucx_put, compare-ucx and iso_plot of the folder BIN say no where they should,
# and print what they promise. PERF has the batch file. No figure is judged, but each must be there.
set -uo pipefail
part=$1 bin=$2 perf=$3
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH=$bin:$PATH

# prints PATTERN COMMAND...: ends with 0 and has a line that matches
prints() {
    local pattern=$1 out
    shift
    if ! out=$("$@" 2>&1) || ! grep -Eq -- "$pattern" <<<"$out"; then
        printf 'FAILED: %s (wanted: %s)\n%s\n' "$*" "$pattern" "$out"
        failed=1
    fi
}
# refused PATTERN COMMAND...: status 2, and a line on stderr that matches
refused() {
    local pattern=$1 err status=0
    shift
    err=$("$@" 2>&1 >/dev/null) || status=$?
    if [ $status != 2 ] || ! grep -Eq -- "$pattern" <<<"$err"; then
        printf 'FAILED: %s (status %s, wanted 2 and: %s)\n%s\n' "$*" "$status" "$pattern" "$err"
        failed=1
    fi
}
# fails PATTERN COMMAND...: a status that is not 0, and a line that matches
fails() {
    local pattern=$1 out
    shift
    if out=$("$@" 2>&1) || ! grep -Eq -- "$pattern" <<<"$out"; then
        printf 'FAILED: %s (wanted: a failure and %s)\n%s\n' "$*" "$pattern" "$out"
        failed=1
    fi
}
ranks() { iso_run -n 2 iso_perftest "$@"; }
number='[0-9]+\.[0-9]+'
row=" +[0-9]+ +$number +$number +$number +($number|-) +($number|-) +[0-9]+ +[0-9]+$"

options() {
    prints '^usage: iso_perftest' iso_perftest -h
    prints '^usage: iso_perftest' iso_perftest --help
    for test in put_lat put_bw migrate_lat migrate_bw migrate_frag migrate_cold register attach alloc; do
        prints " $test  " iso_perftest -h
    done
    for letter in t s n w c O f v N p b x R h D T; do
        prints "^  -$letter " iso_perftest -h
    done
    refused '-t nonsense: no such test' iso_perftest -t nonsense
    for bad in 0 -1 x 1x 1T '' 18446744073709551616 70368744177665; do
        refused "-s $bad: not a number from 1 to" iso_perftest -s "$bad"
    done
    refused '-n 0: not a number' iso_perftest -n 0
    refused '-n 10000001: not a number' iso_perftest -n 10000001
    refused '-w -1: not a number' iso_perftest -w -1
    refused '-O 0: not a number' iso_perftest -t migrate_bw -O 0
    refused '-T 0: not a number' iso_perftest -t alloc -T 0
    refused '-T means nothing to the test migrate_lat' iso_perftest -t migrate_lat -T 2
    refused '-O means nothing to the test migrate_lat' iso_perftest -t migrate_lat -O 2
    refused '-D 64: say block, or nodes:BYTES' iso_perftest -D 64
    refused '-D nodes:7: say block' iso_perftest -D nodes:7
    refused '-D nodes:: say block' iso_perftest -D nodes:
    refused 'no room for a node of 64' iso_perftest -t migrate_bw -s 32 -D nodes:64
    refused '-R 101: not a percentile' iso_perftest -R 101
    refused '-R nan: not a percentile' iso_perftest -R nan
    refused '-p 0: not a number from 1 to 65535' iso_perftest -p 0
    refused '-p 65536: not a number' iso_perftest -p 65536
    refused '-c x: not the number of a processor' iso_perftest -c x
    refused '-c : name a processor' iso_perftest -c ''
    refused '-c: no such processors' iso_perftest -t alloc -c 1023
    refused '-c: no such processor for this process: 1023' iso_perftest -t alloc -c 0,1023
    refused '127.0.0.1: a HOST is for a client without a launcher' iso_run -n 2 iso_perftest 127.0.0.1
    refused '-x a/b: not the name of a transport' iso_perftest -x a/b
    refused '-x : not the name' iso_perftest -x ''
    refused 'one HOST is enough' iso_perftest localhost otherhost
    refused 'usage: ' iso_perftest -q
    refused '-b .*nothing: cannot be read' iso_perftest -b "$work/nothing"
    refused '-b .*: not a file' iso_perftest -b "$work"
    refused 'name tests in one way' iso_perftest -t alloc -b "$perf/sweep.batch"
    printf '# nothing\n\n' >"$work/empty"
    refused 'no test in it' iso_perftest -b "$work/empty"
    printf 'alloc -n 10\nalloc -s none\n' >"$work/bad"
    refused 'bad:2: -s none: not a number' iso_perftest -b "$work/bad"
    printf 'first -t nonsense\n' >"$work/bad"
    refused 'bad:1: -t nonsense: no such test' iso_perftest -b "$work/bad"
    printf 'nonsense -s 1\n' >"$work/bad"
    refused 'bad:1: nonsense: no such test' iso_perftest -b "$work/bad"
    printf 'alloc -x loopback\n' >"$work/bad"
    refused 'bad:1: -x: no option of a test' iso_perftest -b "$work/bad"
    printf 'alloc more\n' >"$work/bad"
    refused 'bad:1: more: no option' iso_perftest -b "$work/bad"
    printf 'alloc -n\n' >"$work/bad"
    refused 'bad:1: -n: .*without its value' iso_perftest -b "$work/bad"
    fails 'no transport .?nonsense|no transport module nonsense' iso_perftest -x nonsense -t register
    # several files, each whole, in their order; and each test by its name, whatever is left out of the rows
    printf 'one -t heaps -n 2\n' >"$work/one"
    printf 'two -t heaps -n 3\n' >"$work/two"
    prints '^two,none,.*,Final,3,' iso_perftest -v -b "$work/one" -b "$work/two"
    prints '^one,none,.*,Final,2,' iso_perftest -v -b "$work/one" -b "$work/two"
    prints '^two \(heaps\):$' iso_perftest -f -b "$work/one" -b "$work/two"
    prints '^one \(heaps\): backing ' iso_perftest -b "$work/one"
    refused "$work/empty: no test in it" iso_perftest -b "$work/one" -b "$work/empty"
    prints '^transport loopback: ' iso_perftest -t register -s 1M -n 2

    prints '^usage: compare-ucx' compare-ucx -h
    refused '-s 0: not a size' compare-ucx -s 0
    refused '-s 4M,x: not a size|-s x: not a size' compare-ucx -s 4M,x
    refused '-n 4: at least 5 rounds' compare-ucx -n 4
    refused '-n x: not a number' compare-ucx -n x
    refused 'more: no option' compare-ucx more
    prints '^usage: iso_plot' iso_plot -h
    refused 'usage: ' iso_plot
    refused 'nothing: cannot be read' iso_plot "$work/nothing"
    fails 'no row of a test' iso_plot "$work/empty"
}

run_ranks() { # every test between two ranks; puts, and handing over
    local tests=(put_lat 'put_bw -s 64K -O 3' migrate_lat 'migrate_lat -D nodes:8 -s 100' 'migrate_bw -s 100K -O 3'
        'migrate_bw -s 100K -O 3 -D nodes:64' 'migrate_frag -s 1M' 'migrate_cold -s 100K' 'migrate_memcpy -s 100K'
        'register -s 1M' 'alloc -n 1000 -T 3' 'visit -s 100K' progress 'heaps -s 16' 'handover -s 3M')
    for test in "${tests[@]}"; do
        for backing in private shared; do
            # shellcheck disable=SC2046,SC2086 # a word each
            ISO_BACKING=$backing prints "^Final:$row" ranks -t $test $(count "$test")
        done
    done
    if iso_perftest -h | grep -q ' thread_switch '; then # not on every processor
        prints "^Final:$row" iso_perftest -t thread_switch -n 3000
        prints '^a switch takes [0-9.]+ of what swapcontext takes' iso_perftest -t thread_switch -n 3000
        for backing in private shared; do
            prints '^a thread takes [0-9.]+ of what the smallest heap takes' \
                env ISO_BACKING=$backing iso_run -n 2 --no-aslr iso_perftest -t thread_migrate -n 30
        done
        fails 'has stacks and cannot come here' ranks -t thread_migrate
    fi
    prints '^1000: +2 ' ranks -t attach -s 8000 -D nodes:8 -n 2 -w 3
    prints '^processor time in 1 s of waiting +[0-9.]+ ms' ranks -t idle
}
count() { # of iterations: few, where the test has some
    [[ $1 == *' -n '* ]] || echo '-n 3'
}
ranks_part() {
    run_ranks
    local one=(env ISO_BACKING=private iso_run -n 2 iso_perftest -x loopback)
    prints '^Cold: +1 ' "${one[@]}" -t migrate_lat -n 5
    prints "^Attached: +5 +$number" "${one[@]}" -t migrate_lat -n 5
    prints '^ACK: +5 ' "${one[@]}" -t migrate_lat -n 5
    prints '^DONE: +5 ' "${one[@]}" -t migrate_lat -n 5
    prints '^page faults meanwhile: [0-9]+ at rank 0, [0-9]+ at rank 1$' "${one[@]}" -t migrate_lat -n 5
    for backing in private shared; do # inside a node there is no such step, and handing over moves no bytes
        if ISO_BACKING=$backing ranks -t migrate_lat -n 5 | grep -E '^DONE|inf|nan'; then
            echo "FAILED: DONE inside a node, backing $backing"
            failed=1
        fi
    done
    prints '^Final: .* +- +- ' env ISO_BACKING=shared iso_run -n 2 iso_perftest -t migrate_bw -s 1M -n 3
    prints ' 0 handed over, 5 not; 0 bytes by 0\.0 puts and [1-9][0-9]* in messages each' "${one[@]}" -t migrate_lat -n 5
    prints ' 0 handed over, 5 not; 12288 bytes by 1\.0 puts and 0 in messages each' env ISO_INLINE_MAX=0 "${one[@]}" -t migrate_lat -n 5
    prints '^ratio [0-9.]+ of what may be shipped' "${one[@]}" -t migrate_frag -s 3000000 -D nodes:4096 -n 1
    prints '^ratio [0-9.]+ of memcpy' "${one[@]}" -t migrate_memcpy -s 1000000 -n 2
    prints '^ratio [0-9.]+ of the time of 1 MiB' env ISO_BACKING=shared iso_run -n 2 iso_perftest -t handover -s 5000000 -n 2
    prints '^mappings of the process +[0-9]+$' ranks -t heaps -n 100
    prints "^ratio [0-9.]+ of dd's rate" iso_perftest -t checkpoint -s 4M -n 2
    prints "^ratio 0\.0[0-9]+ of the bytes of an image of all" iso_perftest -t increment -s 8M -n 3
    local windows=(env ISO_NODE_SIZE=1 ISO_BACKING=private ISO_TRANSPORT=loopback ISO_REGISTER=window)
    prints '^registered at most +[1-8]\.0 MiB' "${windows[@]}" ISO_PIN_LIMIT=8M iso_run -n 2 iso_perftest -t windows -s 256M -n 3
    prints '^windows that were there +100\.00 %' "${windows[@]}" ISO_PIN_LIMIT=256M iso_run -n 2 iso_perftest -t windows -s 1G -n 3
    prints '^pinned bytes [0-9]+ of 1048576 untouched' iso_perftest -t register -s 1M -n 2
    prints "^Final:$row" iso_run -n 4 iso_perftest -n 3 -w 0 # ranks beyond two wait
    fails 'longest put of transport loopback' ranks -t put_bw -s 1G
}

settings() { # what the general options change
    prints '^\+-+\+-+\+' ranks -n 2
    prints '50\.0%ile' ranks -n 2
    prints ' 99\.5%ile' ranks -n 2 -R 99.5
    if ranks -n 2 -f | grep -E '^(Cold|Attached|ACK|DONE):|migrations from|page faults'; then
        echo 'FAILED: -f prints more than what is final'
        failed=1
    fi
    prints '^test,transport,backing,bytes,outstanding,stage,iterations,50\.0_percentile_us,' ranks -n 2 -v
    prints "^migrate_lat,loopback,private,16,1,Final,2,$number,$number,$number,$number,$number,[0-9]+,[0-9]+$" \
        env ISO_BACKING=private iso_run -n 2 iso_perftest -n 2 -v -x loopback
    prints '^Final: +1,000,192 ' iso_perftest -t alloc -n 1000192 -N
    prints 'backing anon, .* every rank its own node' env ISO_BACKING=anon iso_run -n 2 iso_perftest -n 2 -x loopback
    prints '^alloc: .*, 2 threads' iso_perftest -c 0 -t alloc -n 1000 -T 2
    fails 'ISO_THREAD_LEVEL' env ISO_THREAD_LEVEL=single iso_perftest -t alloc -n 1000 -T 2
}

server() { # two processes that a TCP connection joins
    local port=$((20000 + $$ % 20000)) pid status
    for options in '-t migrate_lat -n 20' "-b $work/batch -v -x loopback" '-t put_lat -n 20'; do
        printf 'small -t migrate_lat -s 16 -n 3\nmigrate_bw -s 100K -n 3 -O 2\nlinked -t migrate_bw -s 1000 -D nodes:16 -n 3\n' >"$work/batch"
        iso_perftest -p $port >"$work/server" 2>&1 &
        pid=$!
        # shellcheck disable=SC2086 # a word each
        prints '^Final:|^linked,loopback,[a-z]+,1000,' iso_perftest 127.0.0.1 -p $port $options
        wait $pid
        status=$?
        if [ $status != 0 ] || ! grep -q 'waits for a client on port' "$work/server"; then
            printf 'FAILED: the server of %s: status %s\n' "$options" $status
            cat "$work/server"
            failed=1
        fi
        port=$((port + 1))
    done
    # who is not what it should be, and who goes away
    iso_perftest -p $port >"$work/server" 2>&1 &
    pid=$!
    for _ in $(seq 100); do
        { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null && break
        sleep 0.1
    done
    (trap '' PIPE && printf 'GET / HTTP/1.0\r\n\r\n%100s\n' '' >&3) 2>/dev/null
    exec 3>&-
    wait $pid
    status=$?
    if [ $status = 0 ] || ! grep -q 'the client: is no iso_perftest of this release' "$work/server"; then
        printf 'FAILED: a stranger: status %s\n' $status
        cat "$work/server"
        failed=1
    fi
    iso_perftest -p $((port + 1)) >"$work/server" 2>&1 &
    pid=$!
    iso_perftest 127.0.0.1 -p $((port + 1)) -t migrate_lat -n 10000000 >"$work/client" 2>&1 &
    local client=$!
    for _ in $(seq 200); do
        grep -q Cold "$work/client" && break
        sleep 0.1
    done
    kill -KILL $client; wait $client 2>/dev/null
    wait $pid
    status=$?
    if [ $status = 0 ] || ! grep -Eq 'is gone|dead|died' "$work/server"; then
        printf 'FAILED: a server whose client was killed: status %s\n' $status
        cat "$work/server" "$work/client"
        failed=1
    fi
    fails 'start iso_perftest there first' iso_perftest 127.0.0.1 -p $((port + 2))
    fails 'Name or service not known|name resolution|not known' iso_perftest no-such-host.invalid
}

batch() { # a sweep, and its picture
    sed -n '/^put_lat -s 8$/p; /^put_bw -s 4K$/p; /^migrate_lat -s 4K$/p; /^migrate_bw -s 64K$/p' "$perf/sweep.batch" >"$work/some"
    [ "$(wc -l <"$work/some")" = 4 ] || { echo 'FAILED: sweep.batch has not the lines that it had'; failed=1; }
    if ! ISO_BACKING=private ranks -x loopback -n 3 -v -b "$work/some" >"$work/csv"; then
        echo 'FAILED: a part of sweep.batch'
        failed=1
    fi
    prints '^migrate_bw,loopback,private,65536,16,Final,' cat "$work/csv"
    # each line of the sweep is understood, whatever it takes to run it: what is refused is behind the batch
    refused 'no such processors' iso_perftest -c 1023 -b "$perf/sweep.batch"
    command -v gnuplot >/dev/null || { echo 'FAILED: no gnuplot (ci/setup installs it)'; failed=1; return; }
    prints 'bandwidth +migrate_bw \(loopback\) +65536 bytes' iso_plot -o "$work/picture" -t "it's_a test" "$work/csv"
    for picture in "$work/picture.svg" "$work/picture.png"; do
        [ "$(wc -c <"$picture" || echo 0)" -gt 5000 ] || { echo "FAILED: $picture is no picture"; failed=1; }
    done
    grep -q '<svg' "$work/picture.svg" && grep -q "it's_a test" "$work/picture.svg" ||
        { echo 'FAILED: the SVG has no title'; failed=1; }
}

ofi() { # libfabric alone, and both together
    for provider in tcp shm; do
        for options in '-s 4K -n 5 -O 2' '-L -n 5' '-L -n 5 -s 8K -H 64'; do
            # shellcheck disable=SC2086 # a word each
            ISO_OFI_PROVIDER=$provider prints "^Final:$row" ofi_put $options
        done
    done
    # two processes that a TCP connection joins, as on two hosts
    local port=$((20000 + ($$ + 50) % 20000)) pid
    for provider in tcp shm; do
        for options in '-t migrate_lat -n 10' '-t migrate_bw -s 1M -n 10' '-t put_bw -s 64K -n 10'; do
            ISO_OFI_PROVIDER=$provider iso_perftest -x ofi -p $port >"$work/server" 2>&1 &
            pid=$!
            # shellcheck disable=SC2086 # a word each
            ISO_OFI_PROVIDER=$provider prints "^Final:$row" iso_perftest -x ofi 127.0.0.1 -p $port $options
            wait $pid || { echo "FAILED: the server of $options over $provider"; cat "$work/server"; failed=1; }
            port=$((port + 1))
        done
    done
    prints "^ofi_put_bw,ofi,memfd,4096,16,Final,5,$number" env ISO_OFI_PROVIDER=shm ofi_put -s 4K -n 5 -v -f
    prints '^usage: ofi_put' ofi_put -h
    refused '-s 0: not a number' ofi_put -s 0
    refused 'usage: ' ofi_put -e
    fails 'no such provider' env ISO_OFI_PROVIDER=nonsense ofi_put -n 5
    fails 'copies messages of 512 bytes at most, 1024 are needed: set FI_OFI_RXM_BUFFER_SIZE' \
        env ISO_OFI_PROVIDER=tcp FI_OFI_RXM_BUFFER_SIZE=512 iso_run -n 2 iso_perftest -x ofi -n 2
    prints '^usage: compare-ofi' compare-ofi -h
    refused 'compare-ofi: -s 0: not a size' compare-ofi -s 0
    prints '^ratio [0-9.]+ at 4K$' env ISO_OFI_PROVIDER=shm compare-ofi -s 4K -o "$work/pairs"
    prints '^ratio [0-9.]+ at 16$' env ISO_OFI_PROVIDER=shm compare-ofi -L -o "$work/pairs"
    prints '^bandwidth +ofi_put_bw' iso_plot -o "$work/picture" "$work/pairs"
}

ucx() { # UCX alone, and both together
    for tls in posix,cma,self tcp,self; do
        for options in '-s 4K -n 5 -O 2' '-s 64K -n 5 -e' '-L -n 5' '-L -e -n 5 -s 8K -H 64'; do
            # shellcheck disable=SC2086 # a word each
            UCX_TLS=$tls prints "^Final:$row" ucx_put $options
        done
    done
    prints "^ucx_put_bw,ucx,memfd,4096,16,Final,5,$number" env UCX_TLS=posix,cma,self ucx_put -s 4K -n 5 -v -f
    prints '^usage: ucx_put' ucx_put -h
    refused '-s 0: not a number' ucx_put -s 0
    refused '-n x: not a number' ucx_put -n x
    refused '-H 5000: not a number' ucx_put -H 5000
    refused '-R x: not a percentile' ucx_put -R x
    refused 'more: no option' ucx_put more
    refused 'usage: ' ucx_put -q
    fails 'ucp_init|No such|no .*devices' env UCX_TLS=nonsense ucx_put -n 5
    if [ ! -e "$bin/../lib/isomalloc/libisomalloc-ucx.so" ]; then
        echo 'no module ucx: compare-ucx fails and says why'
        fails 'no transport .?ucx' env UCX_TLS=posix,cma,self compare-ucx -s 4K
        return
    fi
    # what the library sets for UCX, the environment may set otherwise: without that, shared memory is left out
    fails 'ERROR ucx: UCX has no way to rank 1' env UCX_TLS=posix,cma,self UCX_POSIX_ERROR_HANDLING=n iso_run -n 2 iso_perftest -x ucx -n 2
    prints '^ratio [0-9.]+ at 4K$' env UCX_TLS=posix,cma,self compare-ucx -s 4K -o "$work/pairs"
    prints '^ratio [0-9.]+ at 16$' env UCX_TLS=posix,cma,self compare-ucx -L -o "$work/pairs"
    prints '^bandwidth +ucp_put_bw' iso_plot -o "$work/picture" "$work/pairs"
}

hosts() { # server and client on two hosts
    local name=isotest$$ module=$bin/../lib/isomalloc/libisomalloc-ucx.so
    [ -e "$module" ] || { echo 'SKIPPED: no module ucx'; exit 77; }
    # shellcheck source=tests/two_hosts.sh
    . "$(dirname -- "${BASH_SOURCE[0]}")/../two_hosts.sh"
    # shellcheck disable=SC2064 # these, now
    trap "hosts_gone $name; rm -rf '$work'" EXIT
    hosts_made $name || exit
    local a=${name}0 b=${name}1
    for options in '-t migrate_lat -n 10' '-t migrate_bw -s 1M -n 10' '-x ucx -t put_bw -s 64K -n 10' '-t attach -s 8000 -D nodes:8 -n 2'; do
        UCX_TLS=tcp,self ip netns exec $b iso_perftest >"$work/server" 2>&1 &
        local pid=$!
        # shellcheck disable=SC2086 # a word each
        UCX_TLS=tcp,self prints "^(Final|1000):$row" ip netns exec $a iso_perftest 10.93.0.2 $options
        wait $pid || { echo "FAILED: the server of $options"; cat "$work/server"; failed=1; }
    done
    ip netns exec $b iso_perftest >"$work/server" 2>&1 &
    fails 'on several hosts, and transport loopback reaches only its own' ip netns exec $a iso_perftest 10.93.0.2 -x loopback
    wait
}

case $part in
options) options ;;
ranks) ranks_part ;;
settings) settings ;;
server) server ;;
batch) batch ;;
ucx) ucx ;;
ofi) ofi ;;
hosts) hosts ;;
*) echo "no part $part"; exit 2 ;;
esac
exit $failed
