# Clients of every kind: TLS, HTTP/2 with windows that open late or never, nginx's limits.

use strict;
use warnings;

use lib 't/lib';
use H2;
use Infer;
use Test::More;
use Time::HiRes qw(sleep time);

my $one = 'infer_pool p { engine SOCK(a); queue 64 timeout=60s; }';
my $pass = 'location / { infer_pass p; }';
my $h2 = "listen 127.0.0.1:PORT(h2) http2; $pass";
my ($t, @s);

sub count { my ($s, $re) = @_; my $n = () = $s =~ /$re/g; return $n }
sub all_free { return $t->until(sub { $t->stat('slots_free') == $t->stat('slots') }) }

# No more reply bytes come into the worker for half a second: every stream has used up its credit.
sub settled {
    my ($last, $same) = (-1, 0);
    return $t->until(sub {
        my $n = $t->stat('bytes_in');
        $same = $n == $last ? $same + 1 : 0;
        $last = $n;
        sleep 0.1;
        return $same == 5;
    });
}

# The output of a command, and when the first and the last of it came.
sub timed {
    my ($got, $first, $last) = ('');
    open my $p, '-|', @_ or die "$_[0]: $!";
    while (sysread $p, $got, 65536, length $got) {
        $first ||= time;
        $last = time;
    }
    close $p;
    return ($got, $last - $first, $? >> 8);
}

subtest 'TLS' => sub {
    $t = Infer->new('cl-tls', http => $one, server => "$pass
                    listen 127.0.0.1:PORT(tls) ssl http2;
                    ssl_certificate ROOT/cert.pem; ssl_certificate_key ROOT/key.pem;");
    system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
           . " -keyout $t->{root}/key.pem -out $t->{root}/cert.pem 2>$t->{root}/openssl.log") == 0
        or die 'openssl';
    my $e = $t->engine('a', '--tokens', 20, '--interval-ms', 50);
    $t->start;
    my $linked = sub { my $n = shift;
                       $t->until(sub { count($t->engine_log('a'), qr/link up/) == $n }) };
    my @curl = ('curl', '-skN', '-d', '{}', "https://127.0.0.1:" . $t->port('tls') . '/');
    for my $v ('--http1.1', '--http2') {
        my ($got, $took);
        for (1 .. 20) {                     # we may be late for the first of them
            ($got, $took) = timed(@curl, $v, '-w', '%{http_version}');
            last if $took > 0.3;
        }
        like($got, qr/"i":0.*"i":19.*\[DONE\]\n\n(?:1.1|2)\z/s, "$v: a whole stream");
        ok($took > 0.3, "$v: token by token: $took s");
    }
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 3000, '--interval-ms', 0, '--bytes', 1000);
    ok($linked->(2), 'another engine');
    for my $v ('--http1.1', '--http2') {
        my ($got) = timed(@curl, $v);
        is(count($got, qr/^data: \{/m), 3000, "$v: 3 MB, beyond every window");
    }
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 1000, '--interval-ms', 1000, '--die-at', 6);
    ok($linked->(3), 'another engine');
    my ($got, undef, $rc) = timed(@curl, '--http1.1');
    like($got, qr/"i":3.*"code":"engine_lost".*\[DONE\]\n\n\z/s, 'a dead engine: error event');
    isnt($rc, 0, 'and no clean end');
    $t->finish;
};

subtest 'HTTP/2: a window that opens late' => sub {
    $t = Infer->new('cl-late', http => $one, server => $h2);
    $t->engine('a', '--tokens', 300, '--interval-ms', 0, '--bytes', 1000);
    $t->start;
    ok($t->attached(1), 'attached');
    my $c = H2->new($t->port('h2'), 0);
    my $id = $c->post('/');
    ok($t->until(sub { $t->stat('bytes_in') > 4096 }) && settled(), 'the engine stops');
    my $held = $t->stat('bytes_in');
    ok($held < 12288, "within its window: $held bytes");
    is($c->{data}{$id}, '', 'nothing came');
    $c->window($id, 4000);
    ok($c->read(Infer::LIMIT, sub { length $c->{data}{$id} == 4000 }), 'as much as was asked for');
    ok($t->until(sub { $t->stat('bytes_in') >= $held + 2000 }),
       'credit goes back for what has left, though not all has');
    $c->window($id, 1 << 24);
    ok($c->read(Infer::LIMIT, sub { $c->{ended}{$id} }), 'it ends');
    is(join(',', $c->{data}{$id} =~ /"i":(\d+)/g), join(',', 0 .. 299), 'every event in order');
    like($c->{data}{$id}, qr/\[DONE\]\n\n\z/, 'to the last');
    $c->close;
    ok(all_free(), 'the slot is free');
    $t->finish;
};

subtest 'HTTP/2: windows that never open' => sub {
    $t = Infer->new('cl-never', http => $one, server => "$h2 keepalive_requests 100000;
                    location /short { infer_pass p; send_timeout 500ms; }");
    $t->engine('a', '--tokens', 100000, '--interval-ms', 0, '--bytes', 500);
    $t->start;
    ok($t->attached(1), 'attached');
    my ($pid) = $t->workers;
    my $before = $t->rss($pid);
    my $c = H2->new($t->port('h2'), 0);
    my @id = map { $c->post('/') } 1 .. 20;
    ok($t->until(sub { $t->stat('active') == 20 }) && settled(), 'twenty are stuck');
    my $grown = $t->rss($pid) - $before;
    ok($grown < 20 * 96, "at $grown kB");
    like($t->get('/static'), qr/static/, 'nobody else waits');
    my @rss;                                # what the worker takes once is not a leak
    for (1 .. 1200) {
        $c->window($_, 7) for @id;
        $c->read(0.01, sub { 0 }) if $_ % 20 == 0;
        next if $_ % 400 != 0;
        ok(settled(), "a few bytes at a time, $_ times");
        push @rss, $t->rss($pid);
    }
    my $more = $rss[2] - $rss[1];           # 8,000 frames; the sanitizer keeps what was freed
    my $kept = ($ENV{TEST_BUILD} // '') =~ /asan/ ? 20 * 24 : 0;
    ok($more < 20 * 4 + $kept, "the last 400 cost $more kB");
    my $short = $c->post('/short');
    ok($t->until(sub { $t->stat('requests') == 21 }), 'one with a send_timeout');
    ok($t->until(sub { $t->stat('active') == 20 }), 'which frees its slot');
    $c->window($id[0], 1);                  # nginx sends the reset with the next frame
    ok($c->read(Infer::LIMIT, sub { defined $c->{reset}{$short} }), 'and resets the stream');
    $c->close;
    ok(all_free(), 'a client that leaves frees all');
    ok($t->until(sub { count($t->access_log, qr/fin=cancelled/) == 20 }), 'as the log says');
    $t->finish;
};

subtest 'limit_rate' => sub {
    $t = Infer->new('cl-rate', http => "$one infer_pool q { engine SOCK(b); }",
                    server => "$h2 limit_rate 20k;
                               location /end { infer_pass q; limit_rate 40k; }");
    $t->engine('a', '--tokens', 100000, '--interval-ms', 0, '--bytes', 500);
    $t->engine('b', '--tokens', 100, '--interval-ms', 0, '--bytes', 1000);
    $t->start;
    ok($t->attached(2), 'attached');
    my ($pid) = $t->workers;
    my $before = $t->rss($pid);
    my $begin = time;
    @s = map { $t->open_stream } 1 .. 20;
    $t->collect(\@s, sub { time > $begin + 2 && !grep { length $_->{got} <= 20000 } @s });
    my $grown = $t->rss($pid) - $before;
    my $in = $t->stat('bytes_in');
    my $max = 20480 * (time - $begin + 2);
    my @n = sort { $a <=> $b } map { length $_->{got} } @s;
    ok($n[0] > 20000 && $n[-1] < 1.3 * $max, "20 streams get no more: $n[0] .. $n[-1] bytes");
    ok($in < 20 * ($max + 12288), "the engine waits: $in bytes");
    ok($grown < 20 * 96, "at $grown kB");
    close $_->{s} for @s;
    ok(all_free(), 'all are free');
    for my $v ('--http1.1', '--http2-prior-knowledge') {
        my $port = $v =~ /2/ ? $t->port('h2') : $t->{port};
        my $start = time;
        my ($got) = timed('curl', '-sN', '-d', '{}', $v, "http://127.0.0.1:$port/end");
        is(count($got, qr/^data: \{/m), 100, "$v: 100 kB at 40 kB/s come whole");
        cmp_ok(time - $start, '>', 0.7, 'slowly');
    }
    $t->finish;
};

subtest 'HEAD: a GET whose body is dropped' => sub {
    $t = Infer->new('cl-head', http => $one,
                    server => "$pass location /slow { infer_pass p; limit_rate 20k; }");
    $t->engine('a', '--tokens', 500, '--interval-ms', 0, '--bytes', 1000);
    $t->start;
    ok($t->attached(1), 'attached');
    my $c = $t->connect;
    print $c "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD /slow HTTP/1.1\r\nHost: x\r\n\r\n",
             "GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    $c->blocking(0);
    my $k = { s => $c, got => '' };
    ok($t->collect([$k]), 'all are answered');
    like($k->{got}, qr/\A(?:HTTP\/1.1 200 OK\r\n(?:[^\r]+\r\n)+\r\n){3}[0-9a-f]+\r\ndata: /,
         'two heads, and only then a body');
    my ($body) = $k->{got} =~ /(\r\n\r\n[0-9a-f]+\r\ndata: .*)/s;
    is(count(join('', $t->chunks($body)), qr/^data: \{/m), 500, 'which is whole');
    is(join(' ', map { $t->stat($_) } qw(replies cancelled)), '3 0', 'none was cancelled');
    ok(all_free(), 'all are free');
    $t->finish;
};

subtest 'the words of Anthropic' => sub {
    $t = Infer->new('cl-words', http => $one, server => $pass);
    my $e = $t->engine('a', '--tokens', 1000, '--interval-ms', 1000, '--die-at', 6);
    $t->start;
    my $got = join '', $t->chunks($t->get('/v1/messages'));
    like($got, qr/"i":3.*\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error",(?#
             )"message":"the engine failed during this reply"\}\}\n\n\z/s, 'a dead engine');
    unlike($got, qr/DONE|"code"/, 'nothing of OpenAI\'s');
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 5, '--first-delay-ms', 100000);
    ok($t->attached(1), 'another engine');
    my $s = $t->open_stream(uri => '/v1/messages/count_tokens?x=1');
    ok($t->until(sub { $t->stat('active') == 1 }), 'asked');
    $t->kill_engine($e);
    $t->collect([$s]);
    like($s->{got}, qr/^HTTP\/1.1 502 .*\r\nRequest-Id: ([0-9a-f]{32})\r\n.*\{"type":"error",(?#
             )"error":\{"type":"api_error","message":"[^"]+"\},"request_id":"\1"\}/s,
         'it dies before the reply');
    $t->finish;
};

subtest 'limit_conn' => sub {
    $t = Infer->new('cl-conn', http => "$one limit_conn_zone \$binary_remote_addr zone=c:1m;",
                    server => 'limit_conn_status 429; error_page 429 @e;
                               location @e { infer_error; }
                               location / { infer_pass p; limit_conn c 1; }');
    # 20 MB: no buffer takes them, so a stream that is not read goes on
    $t->engine('a', '--tokens', 10000, '--interval-ms', 0, '--bytes', 2000);
    $t->start;
    my $first = $t->open_stream;
    $t->collect([$first], sub { $first->{got} =~ /"i":1/ });
    like($t->get('/'), qr/^HTTP\/1.1 429 .*Retry-After: 1.*"code":"rate_limit_exceeded"/s,
         'the second stream is refused');
    ok($t->collect([$first]) && $first->{got} =~ /\[DONE\]/, 'the first one goes on');
    my $next = $t->open_stream;
    ok($t->collect([$next], sub { $next->{got} =~ /"i":1/ }), 'after its end the next one runs');
    close $next->{s};
    ok($t->until(sub { $t->get('/') =~ /\[DONE\]/ }), 'and the next after one that was left');
    $t->finish;
};

subtest 'limit_req delays' => sub {
    $t = Infer->new('cl-req', http => "$one limit_req_zone \$uri zone=r:1m rate=10r/s;",
                    server => 'location / { infer_pass p; limit_req zone=r burst=5; }');
    $t->engine('a', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    @s = map { $t->open_stream } 1 .. 4;
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /^HTTP\/1.1 200.*\[DONE\]/s } @s), 4, 'and are answered');
    ok($s[3]{at_end} - $s[0]{start} > 0.2, 'one after the other');
    $t->finish;
};

done_testing();
