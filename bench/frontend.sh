#!/bin/bash
# What nginx, the module and the wire add to a token, beside the floor (bench/bare.c: one write per
# event and nothing else), all on two cores: client and engine on the first, nginx on the second, or
# with two workers on both.
#
#     make helpers bench module && bench/frontend.sh OUT.csv [ROUNDS]
#
# NGINX, MODULE, ENGINE, BENCH: where the binaries lie. CORES: other cores ("0,1"). COMMIT: where there
# is no git. Rows are appended to OUT.csv.
set -eu
cd "$(dirname "$0")/.."

out=$(realpath "$1"); rounds=${2:-3}
nginx=${NGINX:-nginx}; unset NGINX        # nginx itself reads that name
engine=${ENGINE:-build/t/helpers/scripted_engine}; bench=${BENCH:-build/bench}
cores=${CORES:-0,1}; first=${cores%,*}; second=${cores#*,}
dir=$(mktemp -d /tmp/inferd-bench.XXXXXX)
port=8099
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$dir"' EXIT
ulimit -n 8192
mkdir "$dir/logs"
cp "${MODULE:-build/ngx_http_infer_module.so}" "$dir/module.so"

conf() {    # workers
    cat > "$dir/nginx.conf" << END
load_module $dir/module.so;
user root;
daemon off;
worker_processes $1;
worker_rlimit_nofile 8192;
pid $dir/nginx.pid;
error_log $dir/logs/error.log warn;
events { worker_connections 4096; }
http {
    infer_pool bench { engine unix:$dir/engine.sock; }
    infer_shm_size 16m;
    access_log off;
    client_body_temp_path $dir/b; proxy_temp_path $dir/p; fastcgi_temp_path $dir/f;
    uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
    server { listen 127.0.0.1:$port reuseport; location / { infer_pass bench; } }
}
END
}

client() {  # label, streams, tokens, pids
    taskset -c "$first" "$bench/frontend" --port $port --label "$1" --streams "$2" --tokens "$3" \
        --pid "$4" --csv "$out" | sed "s/^/$1: /"
}

through_nginx() {   # workers, phase, streams, tokens
    local where=$second
    [ "$1" = 1 ] || where=$cores
    conf "$1"
    taskset -c "$first" "$engine" "$dir/engine.sock" --tokens "$4" \
        --interval-ms 50 --phase "$2" & local engine_pid=$!
    sleep 0.3
    taskset -c "$where" "$nginx" -p "$dir" -c "$dir/nginx.conf" & local master=$!
    sleep 1
    client "nginx-$1-$2" "$3" "$4" "$(pgrep -d, -P $master)"
    kill $master $engine_pid
    wait $master $engine_pid || true
}

bare() {            # phase, streams, tokens
    local burst=
    [ "$1" = spread ] || burst=--burst
    taskset -c "$second" "$bench/bare" --port $port --tokens "$3" --interval-ms 50 $burst & local pid=$!
    sleep 0.3
    client "bare-$1" "$2" "$3" $pid
    kill $pid 2>/dev/null || true
    wait $pid || true
}

{
    echo "# bench/frontend.sh OUT $rounds, cores $cores of: $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
    echo "# commit ${COMMIT:-$(git rev-parse --short HEAD)}, Linux $(uname -r), $("$nginx" -v 2>&1)"
    echo "label,streams,tokens,workers,ok,wall_s,tok_s,p50_ms,p99_ms,max_ms,first_p50_ms,first_p99_ms,"\
"ttfb_p50_ms,ttfb_p99_ms,fairness,worker_us_per_token,rss_before_mb,rss_after_mb"
} >> "$out"

for _ in $(seq "$rounds"); do
    for phase in spread burst; do
        bare $phase 1000 100
        through_nginx 1 $phase 1000 100
        through_nginx 2 $phase 1000 100
    done
    bare spread 1 100
    through_nginx 1 spread 1 100
done
