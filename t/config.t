# What nginx -t accepts and what it refuses, with the line number.

use Cwd qw(abs_path);

BEGIN {
    $ENV{TEST_NGINX_LOAD_MODULES}
        ||= abs_path($ENV{TEST_INFER_MODULE} || 'build/ngx_http_infer_module.so');
}

use Test::Nginx::Socket 'no_plan';

no_root_location();
run_tests();

__DATA__

=== TEST 1: every directive in every place it belongs to
--- http_config
infer_shm_size 1m;
infer_buffer_size 8k;
infer_connect_timeout 1s;
infer_first_byte_timeout 2s;
infer_read_timeout 3s;
infer_flush_interval 20ms;
infer_ignore_client_abort on;
infer_next_engine error timeout http_503;
infer_next_engine_tries 2;
infer_intercept_errors on;
infer_set_header X-Tenant $remote_addr;
infer_pass_header X-Trace;
infer_set_key $remote_user;
infer_pool a {
    engine unix:/nonexistent/a.sock weight=2 max_fails=3 fail_timeout=10s max_conns=7;
    engine unix:/nonexistent/b.sock backup;
    engine unix:/nonexistent/c.sock down;
    queue 4 timeout=100ms;
}
infer_pool b { engine unix:/nonexistent/a.sock; }
--- config
infer_connect_timeout 2s;
location / {
    infer_pass a;
    infer_read_timeout 4s;
    infer_next_engine off;
    limit_except GET { infer_pass b; }
    if ($arg_b) { infer_pass b; }
}
location /var { infer_pass $arg_pool; }
location /late { infer_pass c; }
location = /st { infer_status; }
error_page 404 @e;
location @e { infer_error; }
location @n { infer_pass b; }
}
infer_pool c { engine unix:/nonexistent/c.sock; }
server {
listen $TEST_NGINX_SERVER_PORT;
server_name other;
--- request
GET /st
--- response_body_like: ^\{"worker":\d+,"pools":\[\{"name":"a","waiting":0,"engines":\[\{"engine":"unix:/nonexistent/a.sock","state":"unreachable"

=== TEST 2: unknown pool, with the line that names it
--- config
location / { infer_pass nowhere; }
--- must_die
--- error_log eval
qr/\[emerg\].* infer pool "nowhere" not found in \S+nginx.conf:\d+/

=== TEST 3: duplicate infer_pass
--- http_config
infer_pool a { engine unix:/x.sock; }
--- config
location / { infer_pass a; infer_pass a; }
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_pass" directive is duplicate in \S+:\d+/

=== TEST 4: duplicate pool
--- http_config
infer_pool a { engine unix:/x.sock; }
infer_pool a { engine unix:/y.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*duplicate infer_pool "a" in \S+:\d+/

=== TEST 5: duplicate engine
--- http_config
infer_pool a { engine unix:/x.sock; engine unix:/x.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*duplicate engine "unix:\/x.sock" in \S+:\d+/

=== TEST 6: a pool without engines
--- http_config
infer_pool a { queue 3; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*no engines in infer_pool "a" in \S+:\d+/

=== TEST 7: an engine that is no unix socket
--- http_config
infer_pool a { engine 127.0.0.1:8000; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid engine "127.0.0.1:8000".* in \S+:\d+/

=== TEST 8: a path that is not absolute
--- http_config
infer_pool a { engine unix:x.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid engine "unix:x.sock".* in \S+:\d+/

=== TEST 9: a path that is too long
--- http_config eval
"infer_pool a { engine unix:/" . 'x' x 110 . "; }"
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid engine .* in \S+:\d+/

=== TEST 10: weight 0
--- http_config
infer_pool a { engine unix:/x.sock weight=0; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "weight=0" in \S+:\d+/

=== TEST 11: a parameter that does not exist
--- http_config
infer_pool a { engine unix:/x.sock slow_start=3s; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "slow_start=3s" in \S+:\d+/

=== TEST 12: fail_timeout that is no time
--- http_config
infer_pool a { engine unix:/x.sock fail_timeout=soon; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "fail_timeout=soon" in \S+:\d+/

=== TEST 13: queue 0
--- http_config
infer_pool a { engine unix:/x.sock; queue 0; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid queue length "0": it is 1 to 65535 in \S+:\d+/

=== TEST 14: queue with a wrong word
--- http_config
infer_pool a { engine unix:/x.sock; queue 3 time=1s; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "time=1s" in \S+:\d+/

=== TEST 15: two queues
--- http_config
infer_pool a { engine unix:/x.sock; queue 3; queue 4; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*"queue" directive is duplicate in \S+:\d+/

=== TEST 16: an unknown word in a pool
--- http_config
infer_pool a { server unix:/x.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*unknown directive "server" in infer_pool in \S+:\d+/

=== TEST 17: shared memory that is no power of two
--- http_config
infer_shm_size 3m;
infer_pool a { engine unix:/x.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_shm_size" must be a power of two between \d+k and \d+m in \S+:\d+/

=== TEST 18: a window too small
--- http_config
infer_buffer_size 1k;
infer_pool a { engine unix:/x.sock; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_buffer_size" must be between \d+k and \d+k in \S+:\d+/

=== TEST 19: windows that do not fit
--- http_config
infer_buffer_size 1m;
infer_shm_size 1m;
infer_pool a { engine unix:/x.sock; }
--- config
--- must_die
--- error_log
"infer_shm_size" of 1048576 bytes is too small for "infer_buffer_size" of 1048576

=== TEST 20: a timeout of 0
--- http_config
infer_read_timeout 0;
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_read_timeout" directive must not be 0|infer_read_timeout.*must not be 0/

=== TEST 21: a wrong word in infer_next_engine
--- http_config
infer_next_engine sometimes;
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid value "sometimes" in \S+:\d+/

=== TEST 22: a header name with a colon
--- http_config
infer_set_header :key x;
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid header name ":key" in \S+:\d+/

=== TEST 23: an unknown variable
--- http_config
infer_set_key $nothing_of_the_kind;
--- config
--- must_die
--- error_log
unknown "nothing_of_the_kind" variable

=== TEST 24: infer_pass in a server block
--- http_config
infer_pool a { engine unix:/x.sock; }
--- config
infer_pass a;
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_pass" directive is not allowed here in \S+:\d+/

=== TEST 25: 65 engines
--- http_config eval
my $engines = '';
$engines .= "engine unix:/x$_.sock;\n" for 1 .. 65;
"infer_pool a { $engines }"
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*more than 64 engines in infer_pool "a" in \S+:\d+/

=== TEST 26: no engine is reachable: 503 at once, in JSON, with Retry-After
--- http_config
infer_pool a { engine unix:/nonexistent/x.sock; }
--- config
location / { infer_pass a; }
--- request
POST /v1/chat/completions
{}
--- error_code: 503
--- response_headers
Content-Type: application/json
Retry-After: 1
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"service_unavailable_error","param":null,"code":"engine_unavailable"\}\}

=== TEST 27: the same after the queue's time
--- http_config
infer_pool a { engine unix:/nonexistent/x.sock; queue 5 timeout=300ms; }
--- config
location / { infer_pass a; }
--- request
POST /v1/chat/completions
{}
--- error_code: 503
--- error_log
no engine of pool "a" became free in time

=== TEST 28: two handlers of ours in one location
--- http_config
infer_pool a { engine unix:/x.sock; }
--- config
location / { infer_pass a; infer_status; }
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_status" directive is a second handler of the location in \S+:\d+/

=== TEST 29: the same directive twice
--- config
location / { infer_status; infer_status; }
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_status" directive is duplicate in \S+:\d+/

=== TEST 30: a handler of nginx before ours
--- http_config
infer_pool a { engine unix:/x.sock; }
--- config
location / { proxy_pass http://127.0.0.1:1; infer_pass a; }
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_pass" directive is a second handler of the location in \S+:\d+/

=== TEST 31: a handler of nginx after ours
--- http_config
infer_pool a { engine unix:/x.sock; }
--- config
location / { infer_pass a; proxy_pass http://127.0.0.1:1; }
--- must_die
--- error_log eval
qr/\[emerg\].*the location has a second handler beside the one in \S+:\d+/

=== TEST 32: off beside other values
--- config
infer_next_engine off error;
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_next_engine" directive has "off" beside other values in \S+:\d+/

=== TEST 33: a newline in a header value
--- config
infer_set_header X-A "a
b";
--- must_die
--- error_log eval
qr/\[emerg\].*control character in header value in \S+:\d+/

=== TEST 34: a control character in a header value
--- config eval
"infer_set_header X-A 'a\x7fb';"
--- must_die
--- error_log eval
qr/\[emerg\].*control character in header value in \S+:\d+/

=== TEST 35: a newline in a header name
--- config
infer_set_header "X-A
b" x;
--- must_die
--- error_log eval
qr/\[emerg\].*invalid header name "X-A/

=== TEST 36: a control character in the name of a header that passes
--- config eval
"infer_pass_header 'X-A\x01';"
--- must_die
--- error_log eval
qr/\[emerg\].*invalid header name "X-A/

=== TEST 37: a newline in the key
--- config
infer_set_key "a
b";
--- must_die
--- error_log eval
qr/\[emerg\].*control character in header value in \S+:\d+/

=== TEST 38: a queue beyond the limit
--- http_config
infer_pool a { engine unix:/x.sock; queue 65536; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid queue length "65536": it is 1 to 65535 in \S+:\d+/

=== TEST 39: a pool of backup engines only
--- http_config
infer_pool a { engine unix:/x.sock backup; engine unix:/y.sock backup; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*no engines but backup ones in infer_pool "a" in \S+:\d+/

=== TEST 40: a flush interval beyond the limit
--- config
infer_flush_interval 1001ms;
--- must_die
--- error_log eval
qr/\[emerg\].*"infer_flush_interval" must be at most 1000ms in \S+:\d+/

=== TEST 41: weight out of range
--- http_config
infer_pool a { engine unix:/x.sock weight=65536; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "weight=65536" in \S+:\d+/

=== TEST 42: max_conns out of range
--- http_config
infer_pool a { engine unix:/x.sock max_conns=65536; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "max_conns=65536" in \S+:\d+/

=== TEST 43: max_fails out of range
--- http_config
infer_pool a { engine unix:/x.sock max_fails=99999999999999999999; }
--- config
--- must_die
--- error_log eval
qr/\[emerg\].*invalid parameter "max_fails=99999999999999999999" in \S+:\d+/

=== TEST 44: no engine: what is no POST does not wait in the queue
--- http_config
infer_pool a { engine unix:/nonexistent/x.sock; queue 5 timeout=60s; }
--- config
location / { infer_pass a; }
--- request
GET /health
--- error_code: 503
--- response_headers
Content-Type: application/json
Retry-After: 1
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"service_unavailable_error","param":null,"code":"engine_unavailable"\}\}

=== TEST 45: no engine: a POST without a body does not wait either
--- http_config
infer_pool a { engine unix:/nonexistent/x.sock; queue 5 timeout=60s; }
--- config
location / { infer_pass a; }
--- request
POST /admin/abort?request_id=x
--- error_code: 503
--- response_headers
Content-Type: application/json
Retry-After: 1
