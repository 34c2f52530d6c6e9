# Requests and replies: what the engine gets to see, what the client gets back, and nginx's own
# features around them. The engine is t/helpers/echo_engine.c.

use Cwd qw(abs_path);

our ($engine, $sock);

BEGIN {
    $ENV{TEST_NGINX_LOAD_MODULES}
        ||= abs_path($ENV{TEST_INFER_MODULE} || 'build/ngx_http_infer_module.so');
    $sock = $ENV{TEST_NGINX_ENGINE_SOCK} = "/tmp/infer-t-$$-proxy.sock";
    my $bin = $ENV{TEST_ECHO_ENGINE} || 'build/t/helpers/echo_engine';
    $engine = fork;
    die "fork: $!" unless defined $engine;
    exec $bin, $sock if $engine == 0;
    for (1 .. 6000) { last if -S $sock; select undef, undef, undef, 0.02 }
    die "no engine" unless -S $sock;
}

END {
    if ($engine) {
        local $?;
        kill 'KILL', $engine;
        waitpid $engine, 0;
        unlink $sock;
    }
}

use Test::Nginx::Socket 'no_plan';

our $big = substr 'abcdefghijklmnopqrstuvwxyz' x 800_000, 0, 20_000_000;

add_block_preprocessor(sub {
    my $b = shift;
    my $http = defined $b->http_config ? $b->http_config : '';
    $b->set_value('http_config', "infer_pool echo { engine unix:$sock; queue 16 timeout=60s; }\n"
                                 . $http);
});

sub fnv {
    use integer;
    no warnings 'portable';
    my $h = 0xcbf29ce484222325;
    $h = ($h ^ $_) * 1099511628211 for unpack 'C*', $_[0];
    return sprintf '%016x', $h;
}

our $big_fnv = fnv($big);

no_root_location();
run_tests();

__DATA__

=== TEST 1: method, URI, body and the headers that pass
--- config
location / { infer_pass echo; }
--- request
POST /v1/chat/completions?x=%20y
{"a":1}
--- more_headers
Content-Type: application/json
Authorization: Bearer k
Cookie: secret
X-Other: no
User-Agent: me
--- response_headers
Content-Type: text/plain
retry-after: 0
!x-secret
--- response_body_like: ^POST /v1/chat/completions\?x=%20y\n:peer: 127.0.0.1\ncontent-type: application/json\nauthorization: Bearer k\nbody 7 [0-9a-f]{16}\n\{"a":1\}\n$

=== TEST 2: infer_set_header, infer_pass_header, infer_set_key
--- config
location / {
    infer_pass echo;
    infer_set_header X-Request-Id $request_method-1;
    infer_set_header Authorization "";
    infer_pass_header X-Other;
    infer_set_key $arg_key;
}
--- request
GET /a?key=abc
--- more_headers
Authorization: Bearer k
X-Request-Id: mine
X-Other: yes
--- response_body_like: ^GET /a\?key=abc\n:peer: 127.0.0.1\n:key: abc\nx-request-id: GET-1\nx-other: yes\nbody 0 cbf29ce484222325\n

=== TEST 3: the client cannot speak for the module
--- config
location / { infer_pass echo; infer_pass_header peer; }
--- request
GET /a
--- more_headers
:key: forged
--- error_code: 400

=== TEST 4: any other method is the engine's to refuse
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["DELETE /x", "OPTIONS /y"]
--- response_body_like eval
["^OTHER /x\n", "^OTHER /y\n"]

=== TEST 5: HEAD is GET without a body
--- config
location / { infer_pass echo; }
--- request
HEAD /big/1000000
--- response_headers
Content-Length: 1000000
--- response_body:
--- no_error_log
[error]

=== TEST 6: another method's body, and the connection goes on
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["PUT /x\nabc", "PATCH /x", "GET /y"]
--- response_body_like eval
["^OTHER /x\n(?s:.*)\nbody 3 ", "^OTHER /x\n", "^GET /y\n"]

=== TEST 7: pipelined requests
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["POST /1\none", "GET /stream/2", "POST /3\nthree"]
--- response_body_like eval
["^POST /1\n(?s:.*)\none\n", "^data: GET /stream/2\n\n", "^POST /3\n(?s:.*)\nthree\n"]

=== TEST 8: a stream
--- config
location / { infer_pass echo; }
--- request
POST /stream
hello
--- response_headers
Content-Type: text/event-stream; charset=utf-8
Cache-Control: no-cache
X-Accel-Buffering: no
Transfer-Encoding: chunked
!Content-Length
--- response_body_like: ^data: POST /stream\n\ndata: :peer: 127.0.0.1\n\ndata: body 5 [0-9a-f]{16}\n\ndata: hello\n\n$

=== TEST 9: a stream over HTTP/1.0
--- config
location / { infer_pass echo; }
--- raw_request eval
"POST /stream HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
--- response_headers
!Transfer-Encoding
--- response_body_like: ^data: POST /stream\n\n(?s:.*)data: hi\n\n$

=== TEST 10: Expect: 100-continue
--- config
location / { infer_pass echo; }
--- raw_request eval
["POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
 "12345"]
--- raw_request_middle_delay: 0.2
--- error_code: 100
--- response_body_like: ^HTTP/1.1 200 OK\r\n.*\nbody 5 [0-9a-f]{16}\n12345\n

=== TEST 11: a chunked body in pieces
--- config
location / { infer_pass echo; }
--- raw_request eval
["POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
 "c\r\n4\r\ndefg\r",
 "\n0\r\n\r\n"]
--- raw_request_middle_delay: 0.1
--- response_body_like: \nbody 7 [0-9a-f]{16}\nabcdefg\n

=== TEST 12: a request one byte at a time
--- config
location / { infer_pass echo; }
--- raw_request eval
[split //, "POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"]
--- raw_request_middle_delay: 0.002
--- response_body_like: \nbody 3 [0-9a-f]{16}\nabc\n

=== TEST 13: 20 MB through a small ring, from a temporary file
--- http_config
infer_shm_size 512k;
--- config
location / { infer_pass echo; }
--- request eval
"POST /x\n$::big"
--- response_body_like eval
"\nbody 20000000 $::big_fnv\n"

=== TEST 14: 20 MB through a small ring, from memory
--- http_config
infer_shm_size 512k;
client_body_buffer_size 30m;
--- config
location / { infer_pass echo; }
--- request eval
"POST /x\n$::big"
--- response_body_like eval
"\nbody 20000000 $::big_fnv\n"

=== TEST 15: a reply much larger than the window
--- config
location / { infer_pass echo; }
--- request
GET /big/1000000
--- response_headers
Content-Length: 1000000
--- response_body eval
substr($::big, 0, 1_000_000)

=== TEST 16: client_max_body_size, and infer_error for nginx's own errors
--- config
error_page 404 413 @e;
location @e { infer_error; }
location / { client_max_body_size 10; infer_pass echo; }
--- request
POST /x
more than ten bytes
--- error_code: 413
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"error":\{"message":"the request body is too large","type":"invalid_request_error","param":null,"code":"request_too_large"\}\}

=== TEST 17: the engine's errors are relayed
--- config
location / { infer_pass echo; }
--- request
POST /status/429
x
--- error_code: 429
--- response_headers
retry-after: 7
--- response_body_like: ^POST /status/429\n

=== TEST 18: infer_intercept_errors
--- config
error_page 429 /limited;
location = /limited { return 429 "mine"; }
location / { infer_pass echo; infer_intercept_errors on; }
--- request
POST /status/429
x
--- error_code: 429
--- response_body: mine

=== TEST 19: error_page to another pool, and the log still knows
--- http_config
infer_pool none { engine unix:/nonexistent/x.sock; }
log_format l '$status $infer_engine';
--- config
access_log logs/access.log l;
error_page 503 = @other;
location @other { infer_pass echo; }
location / { infer_pass none; infer_intercept_errors on; }
--- request
POST /x
abc
--- response_body_like: \nbody 3 [0-9a-f]{16}\nabc\n
--- access_log eval
qr{^200 unix:/tmp/infer-t-\d+-proxy.sock$}

=== TEST 20: a pool from a variable
--- config
location / { infer_pass $arg_p; }
--- request
GET /?p=echo
--- response_body_like: ^GET /\?p=echo\n

=== TEST 21: in "if"
--- config
location / { if ($arg_b) { infer_pass echo; } }
--- request
GET /x?b=1
--- response_body_like: ^GET /x\?b=1\n

=== TEST 22: parameters in "if", the pass outside
--- config
location / { infer_pass echo; if ($arg_b) { set $x 1; } }
--- request
GET /x?b=1
--- response_body_like: ^GET /x\?b=1\n

=== TEST 23: in limit_except
--- config
location / { limit_except GET { infer_pass echo; } return 204; }
--- request
POST /x
--- response_body_like: ^POST /x\n

=== TEST 24: after limit_except without a pass of its own
--- config
location / { infer_pass echo; limit_except GET { deny all; } }
--- pipelined_requests eval
["GET /x", "POST /x\nx"]
--- error_code eval
[200, 403]

=== TEST 25: a rewritten URI
--- config
location / { rewrite ^/a/(.*)$ /b/$1?c=1 break; infer_pass echo; }
--- request
GET /a/x%20y?d=2
--- response_body_like: ^GET /b/x%20y\?c=1&d=2\n

=== TEST 26: gzip flushes every event
--- http_config
gzip on; gzip_types text/event-stream; gzip_min_length 0;
--- config
location / { infer_pass echo; }
--- request
GET /stream
--- more_headers
Accept-Encoding: gzip
--- response_headers
Content-Encoding: gzip

=== TEST 27: limit_req
--- http_config
limit_req_zone $binary_remote_addr zone=r:1m rate=1r/m;
--- config
location / { limit_req zone=r; limit_req_status 429; infer_pass echo; }
--- pipelined_requests eval
["GET /a", "GET /b"]
--- error_code eval
[200, 429]

=== TEST 28: auth_request lets through and refuses
--- config
location = /auth { internal; if ($http_authorization = "Bearer good") { return 204; } return 401; }
location / { auth_request /auth; infer_pass echo; }
--- request
POST /x
abc
--- more_headers
Authorization: Bearer good
--- response_body_like: ^POST /x\n(?s:.*)\nabc\n

=== TEST 29: auth_request refuses
--- config
location = /auth { internal; return 401; }
location / { auth_request /auth; infer_pass echo; }
--- request
POST /x
abc
--- error_code: 401

=== TEST 30: a subrequest is refused cleanly
--- config
location = /auth { internal; infer_pass echo; }
location / { auth_request /auth; infer_pass echo; }
--- request
GET /x
--- error_code: 500
--- error_log
infer_pass does not serve subrequests

=== TEST 31: variables in the log
--- http_config
log_format l '$infer_engine|$infer_status|$infer_model|$infer_prompt_tokens|$infer_cached_tokens|$infer_completion_tokens|$infer_reasoning_tokens|$infer_queue_time|$infer_ttft|$infer_tpot|$infer_finish_reason|$infer_request_id';
--- config
access_log logs/access.log l;
location / { infer_pass echo; }
--- request
POST /stream
x
--- access_log eval
qr{^unix:/tmp/\S+\|200\|echo\|11\|4\|5\|2\|\d\.\d{3}\|\d\.\d{3}\|\d\.\d{6}\|stop\|req-1$}

=== TEST 32: variables without a request to an engine
--- http_config
log_format l '[$infer_engine|$infer_status|$infer_ttft|$infer_finish_reason]';
--- config
access_log logs/access.log l;
location / { return 200 "x"; }
--- request
GET /
--- response_body: x
--- access_log eval
qr{^\[-\|-\|-\|-\]$}

=== TEST 33: control characters in a header that passes
--- config
location / { infer_pass echo; }
--- raw_request eval
"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: a\x01b\r\n\r\n"
--- error_code: 400
--- response_body_like: ^\{"error":

=== TEST 34: a URI that no head can hold
--- http_config
large_client_header_buffers 4 32k;
--- config
location / { infer_pass echo; }
--- request eval
"GET /" . 'x' x 20000
--- error_code: 414
--- response_body_like: ^\{"error":

=== TEST 35: a trailing slash redirects as with proxy_pass
--- config
location /v1/ { infer_pass echo; }
--- request
GET /v1
--- error_code: 301

=== TEST 36: infer_flush_interval merges events, and none is lost
--- config
location / { infer_pass echo; infer_flush_interval 60ms; }
--- request
POST /stream
hello
--- response_body_like: ^data: POST /stream\n\ndata: :peer: 127.0.0.1\n\ndata: body 5 [0-9a-f]{16}\n\ndata: hello\n\n$

=== TEST 37: a pool from a variable that is not there
--- config
location / { infer_pass $arg_p; }
--- request
GET /?p=nothing
--- error_code: 500
--- error_log
infer pool "nothing" not found

=== TEST 38: a space that a rewrite brings into the URI
--- config
location / { set $args q=$arg_q; rewrite ^(.*)$ $1 break; infer_pass echo; }
location /decoded { set $args q=$uri; infer_pass echo; }
--- pipelined_requests eval
["GET /a?q=b%20c", "GET /decoded/x%20y", "GET /decoded/x%0d%0aHost:z"]
--- error_code eval
[200, 400, 400]

=== TEST 39: mirror: the main request is served, its copy is refused
--- config
location / { mirror /copy; infer_pass echo; }
location = /copy { internal; infer_pass echo; }
--- request
POST /x
abc
--- response_body_like: \nbody 3 [0-9a-f]{16}\nabc\n
--- error_log
infer_pass does not serve subrequests

=== TEST 40: mirror to another place
--- config
location / { mirror /copy; infer_pass echo; }
location = /copy { internal; return 204; }
--- pipelined_requests eval
["POST /x\nabc", "POST /stream\ndef"]
--- response_body_like eval
["\nbody 3 [0-9a-f]{16}\nabc\n", "data: def\n\n"]

=== TEST 41: post_action
--- config
location / { post_action @done; return 200 "x"; }
location @done { infer_pass echo; }
location = /y { infer_pass echo; }
--- pipelined_requests eval
["GET /x", "GET /y"]
--- response_body_like eval
['^x$', '^GET /y\n']

=== TEST 42: error_page to an address of the engine
--- config
error_page 404 /v1/models;
location / { return 404; }
location /v1/ { infer_pass echo; }
--- pipelined_requests eval
["POST /x\nabc", "GET /v1/y"]
--- error_code eval
[404, 200]
--- response_body_like eval
["^GET /v1/models\n", "^GET /v1/y\n"]

=== TEST 43: a body that is in a file whatever its size
--- config
location / { infer_pass echo; client_body_in_file_only clean; }
--- pipelined_requests eval
["POST /x\nabc", "POST /y\n"]
--- response_body_like eval
["\nbody 3 [0-9a-f]{16}\nabc\n", "\nbody 0 cbf29ce484222325\n"]

=== TEST 44: text around a reply, each part a subrequest
--- config
location / { infer_pass echo; add_before_body /text; add_after_body /text; addition_types *; }
location = /text { return 200 "around\n"; }
--- request
POST /stream
abc
--- response_body_like: ^around\ndata: POST /stream\n(?s:.*)data: abc\n\naround\n$

=== TEST 45: a chunked body that is not well formed
--- config
location / { infer_pass echo; }
--- raw_request eval
"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n"
--- error_code: 400

=== TEST 46: a pipelined request behind a stream, and a keep-alive connection after an error
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["POST /stream\none", "POST /status/400\ntwo", "POST /status/503\nthree", "GET /four"]
--- error_code eval
[200, 400, 503, 200]
--- response_body_like eval
['data: one\n\n$', "^POST /status/400\n", "^POST /status/503\n", "^GET /four\n"]

=== TEST 47: request headers beyond nginx's own limit
--- config
error_page 400 @e;
error_page 494 =494 @e;
location @e { infer_error; }
location / { infer_pass echo; }
--- request
GET /x
--- more_headers eval
"X-Long: " . 'x' x 40000
--- error_code: 400
--- response_body_like: ^\{"error":\{"message":"the request headers are too large","type":"invalid_request_error","param":null,"code":"headers_too_large"\}\}

=== TEST 48: HEAD of an error
--- config
location / { infer_pass echo; }
--- request
HEAD /status/404
--- error_code: 404
--- response_body:

=== TEST 49: HEAD without an engine
--- http_config
infer_pool none { engine unix:/nonexistent/x.sock; }
--- config
location / { infer_pass none; }
--- request
HEAD /health
--- error_code: 503
--- response_headers
Content-Type: application/json
--- response_body:

=== TEST 50: the engine sees the address by which nginx chose the location
--- config
location / { infer_pass echo; }
location /admin/ { deny all; }
--- pipelined_requests eval
["POST //v1/messages?a=//b\n{}", "GET /v1/./models//a%2Fb%20%3f%25", "GET /x/../v1/m%6fdels?%41",
 "GET /v1/models/\xc3\xa4", "GET //admin/drain", "GET /%61dmin/drain"]
--- response_body_like eval
["^POST /v1/messages\\?a=//b\n", "^GET /v1/models/a/b%20%3F%25\n", "^GET /v1/models\\?%41\n",
 "^GET /v1/models/%C3%A4\n", "403 Forbidden", "403 Forbidden"]
--- error_code eval
[200, 200, 200, 200, 403, 403]

=== TEST 51: nginx's own errors in Anthropic's words
--- config
error_page 404 413 @e;
location @e { infer_error; }
location /v1/ { client_max_body_size 10; infer_pass echo; }
--- request
POST /v1/messages?beta=true
more than ten bytes
--- error_code: 413
--- response_headers
Content-Type: application/json
--- response_body_like: ^\{"type":"error","error":\{"type":"request_too_large","message":"the request body is too large"\},"request_id":"[0-9a-f]{32}"\}\r\n$

=== TEST 52: by the path, as the engine decides it
--- config
error_page 404 /e;
location = /e { internal; infer_error; }
location / { return 404; }
--- pipelined_requests eval
["GET /v1/messages", "GET //v1///messages/count_tokens?//", "GET /v1/./%6dessages#x",
 "GET /x/../v1%2Fmessages", "GET /v1/messages/", "GET /v1/messages/x", "GET /v1/message",
 "GET /x?/v1/messages", "GET /v1/messages/../x"]
--- error_code eval
[(404) x 9]
--- response_body_like eval
[('^\{"type":"error","error":\{"type":"not_found_error","message":') x 4,
 ('^\{"error":\{"message":"[^"]+","type":"invalid_request_error","param":null,"code":"not_found"\}') x 5]

=== TEST 53: a method that nginx itself refuses, and a rewritten address
--- http_config
infer_pool none { engine unix:/nonexistent/x.sock; }
--- config
error_page 405 /e;
location = /e { internal; infer_error; }
rewrite ^/anthropic(/.*) $1 break;
location / { infer_pass none; }
--- pipelined_requests eval
["PUT /anthropic/v1/messages\nabc", "TRACE /v1/messages"]
--- error_code eval
[529, 405]
--- response_body_like eval
['^\{"type":"error","error":\{"type":"overloaded_error",',
 '^\{"type":"error","error":\{"type":"invalid_request_error","message":"this method is not allowed here"\},']

=== TEST 54: no engine: Anthropic's 529, and its id is the log's
--- http_config
infer_pool none { engine unix:/nonexistent/x.sock; }
log_format l '$status $sent_http_request_id $request_id';
--- config
access_log logs/access.log l;
location / { infer_pass none; }
--- request
POST /v1/messages/count_tokens
--- error_code: 529
--- response_headers
Retry-After: 1
Retry-After-Ms: 1000
--- response_body_like: ^\{"type":"error","error":\{"type":"overloaded_error","message":"no engine can take this request now"\},"request_id":"[0-9a-f]{32}"\}
--- access_log eval
qr{^529 ([0-9a-f]{32}) \1$}

=== TEST 55: limits of nginx, as 503 and as 429
--- http_config
limit_req_zone $server_name zone=a:1m rate=1r/m;
limit_req_zone $server_name zone=b:1m rate=1r/m;
--- config
error_page 429 503 @e;
location @e { infer_error; }
location / { infer_pass echo; limit_req zone=a; }
location = /v1/messages { infer_pass echo; limit_req zone=b; limit_req_status 429; }
--- pipelined_requests eval
["POST /v1/messages/count_tokens\nx", "POST /v1/messages/count_tokens\nx", "POST /v1/messages\nx",
 "POST /v1/messages\nx", "POST /x\nx"]
--- error_code eval
[200, 529, 200, 429, 503]
--- response_body_like eval
["^POST ", '^\{"type":"error","error":\{"type":"overloaded_error",', "^POST ",
 '^\{"type":"error","error":\{"type":"rate_limit_error",',
 '^\{"error":\{"message":"[^"]+","type":"service_unavailable_error"']

=== TEST 56: conditions and ranges are for files, not for answers
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["POST /stream/2\nx", "POST /x\nx", "GET /x"]
--- more_headers
If-Match: "x"
If-None-Match: *
If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT
If-Unmodified-Since: Thu, 01 Jan 1970 00:00:01 GMT
If-Range: "x"
Range: bytes=0-1
--- error_code eval
[200, 200, 200]
--- response_body_like eval
["^data: POST /stream/2\n", "^POST /x\n", "^GET /x\n"]

=== TEST 57: nginx's filters over a stream: text replaced, recoded, framed
--- http_config
charset_map koi8-r utf-8 { F0 D09F; EF D09E; F3 D0A1; F4 D0A2; }
--- config
location / {
    infer_pass echo;
    sub_filter_types *; sub_filter_once off; sub_filter POST 'ПОСТ'; sub_filter data: 'DATA:';
    charset koi8-r; source_charset utf-8; charset_types *; override_charset on;
    ssi on; ssi_types *; add_before_body /none; addition_types *;
}
location = /none { return 200 ""; }
--- request
POST /stream/3
x
--- response_body_like eval
"^(DATA: \xf0\xef\xf3\xf4 /stream/3\n\n)"

=== TEST 58: who may not, in both shapes
--- config
error_page 401 403 @e;
location @e { infer_error; }
location / { deny all; }
location /auth/ { auth_basic x; auth_basic_user_file /dev/null; }
--- pipelined_requests eval
["GET /x", "GET /v1/messages", "GET /auth/"]
--- error_code eval
[403, 403, 401]
--- response_body_like eval
['"type":"permission_error","param":null,"code":"forbidden"\}\}',
 '^\{"type":"error","error":\{"type":"permission_error",',
 '"type":"authentication_error","param":null,"code":"unauthorized"\}\}']

=== TEST 59: statuses that have no body, and the connection goes on
--- config
location / { infer_pass echo; }
--- pipelined_requests eval
["GET /status/204", "GET /status/304", "GET /x"]
--- error_code eval
[204, 304, 200]
--- response_body_like eval
["^\$", "^\$", "^GET /x\n"]

=== TEST 60: a transfer coding that nginx does not know
--- config
error_page 501 @e;
location @e { infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: gzip\r\n\r\n"
--- error_code: 501
--- response_body_like: ^\{"error":\{"message":"the server does not support what this request asks for, such as its transfer coding","type":"server_error","param":null,"code":"not_supported"\}\}

=== TEST 61: a line that is wrong behind the address: a version that nginx does not speak
--- config
error_page 505 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /v1/messages HTTP/3.0\r\nHost: x\r\n\r\n"
--- error_code: 505
--- response_body_like: ^\{"type":"error","error":\{"type":"api_error","message":"this version of HTTP is not spoken here"\},"request_id":"[0-9a-f]{32}"\}

=== TEST 62: and elsewhere
--- config
error_page 505 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /v1/messages/x HTTP/3.0\r\nHost: x\r\n\r\n"
--- error_code: 505
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"server_error","param":null,"code":"http_version_not_supported"\}\}

=== TEST 63: a protocol that is none, the line in a large buffer
--- config
error_page 400 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST http://x//v1/./messages?" . 'x' x 3000 . " HTTX/1.1\r\n\r\n"
--- error_code: 400
--- response_body_like: ^\{"type":"error","error":\{"type":"invalid_request_error",

=== TEST 64: wrong in the address, which nginx then did not read
--- config
error_page 400 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /v1/messages?" . 'x' x 3000 . "\x01 HTTP/1.1\r\n\r\n"
--- error_code: 400
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"invalid_request_error","param":null,"code":"bad_request"\}\}

=== TEST 65: an address longer than nginx reads
--- config
error_page 414 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /v1/messages?" . 'x' x 20000
--- error_code: 414
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"invalid_request_error","param":null,"code":"uri_too_long"\}\}

=== TEST 66: an address with a wrong escape
--- config
error_page 400 /e;
location = /e { internal; infer_error; }
location / { infer_pass echo; }
--- raw_request eval
"POST /v1/messages%2 HTTP/1.1\r\nHost: x\r\n\r\n"
--- error_code: 400
--- response_body_like: ^\{"error":\{"message":"[^"]+","type":"invalid_request_error","param":null,"code":"bad_request"\}\}
