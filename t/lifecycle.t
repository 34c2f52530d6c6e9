# What happens to requests when something dies, hangs, lies, reloads or goes slowly.

use strict;
use warnings;

use lib 't/lib';
use Errno qw(ECONNREFUSED ELOOP ENOENT);
use Infer;
use IO::Socket::UNIX;
use IO::Uncompress::Gunzip qw(gunzip);
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $one = 'infer_pool p { engine SOCK(a); queue 64 timeout=60s; }';
my $pass = 'location / { infer_pass p; }';
my $lost = qr/data: \{"error":\{"message":"[^"]+","type":"server_error",(?#
             )"param":null,"code":"engine_lost"\}\}\n\ndata: \[DONE\]\n\n/;
my ($t, $e, @s);

sub count { my ($s, $re) = @_; my $n = () = $s =~ /$re/g; return $n }
sub streaming { my $n = shift; return sub { (grep { $_->{got} =~ /"i":$n\b/ } @s) == @s } }

subtest 'kill -9 of the engine under 50 streams' => sub {
    $t = Infer->new('lc-kill', http => $one, server => $pass);
    $e = $t->engine('a', '--tokens', 10000);
    $t->start;
    @s = map { $t->open_stream } 1 .. 50;
    ok($t->collect(\@s, streaming(2)), 'all stream');
    $t->kill_engine($e);
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /$lost/ } @s),
       50, 'each with an error event and [DONE]');
    unlike($t->error_log, qr/no heartbeat/, 'as its link ends, not as its heart stops');
    is(scalar(grep { $_->{got} =~ /\r\n0\r\n\r\n\z/ } @s), 0, 'none looks complete');
    like($t->get('/static'), qr/static/, 'other locations are served');
    ok($t->until(sub { count($t->access_log, qr/fin=engine_lost/) == 50 }),
       'the log says engine_lost');
    $e = $t->engine('a', '--tokens', 3, '--interval-ms', 1);
    like($t->get('/'), qr/DONE/, 'the restarted engine is used without a reload');
    $t->finish;
};

subtest 'kill -9 while nothing was answered: the next engine, or 502' => sub {
    $t = Infer->new('lc-next', http => 'infer_pool p { engine SOCK(a); engine SOCK(b) backup; }
                                        infer_pool q { engine SOCK(a); }',
                    server => "$pass location /q { infer_pass q; }");
    $e = $t->engine('a', '--first-delay-ms', 30000, '--alive-ms', 50);
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    ok($t->attached(3), 'attached');
    my $p = $t->open_stream;
    my $q = $t->open_stream(uri => '/q');
    ok($t->until(sub { count($t->engine_log('a'), qr/alive/) >= 6 }), 'both are being worked on');
    $t->kill_engine($e);
    ok($t->collect([$p, $q]), 'both end');
    like($p->{got}, qr/^HTTP\/1.1 200 .*\[DONE\]/s, 'retried on the other engine');
    like($q->{got}, qr/^HTTP\/1.1 502 .*"code":"engine_lost"/s, '502 where there is none');
    ok($t->until(sub { $t->access_log =~ /^200 engine=unix:\S+a.sock, unix:\S+b.sock st=200/m }),
       'both are named');
    $t->finish;
};

subtest 'the engine hangs: heartbeat' => sub {
    $t = Infer->new('lc-hang', http => $one, server => $pass);
    $e = $t->engine('a', '--hang-at', 4);
    $t->start;
    @s = ($t->open_stream);
    ok($t->collect(\@s), 'it ends');
    like($s[0]{got}, qr/"i":2.*"code":"engine_lost".*\[DONE\]/s, 'with an error event');
    my $took = $s[0]{at_end} - $s[0]{start};
    ok($took > 2, "not before three seconds: $took");
    like($t->error_log, qr/hangs: no heartbeat, 1 requests lost/, 'logged');
    $t->kill_engine($e);
    $t->engine('a', '--tokens', 3, '--interval-ms', 1);
    like($t->get('/'), qr/DONE/, 'and another one is used');
    $t->finish;
};

subtest 'timeouts' => sub {
    $t = Infer->new('lc-timeout', http => "$one infer_pool q { engine SOCK(b); }", server => "$pass
                    infer_first_byte_timeout 400ms; infer_read_timeout 300ms;
                    location /gap { infer_pass q; infer_first_byte_timeout 60s; }");
    $t->engine('a', '--first-delay-ms', 600000);
    $t->engine('b', '--interval-ms', 600000);
    $t->start;
    ok($t->attached(2), 'attached');
    my $got = $t->get('/');
    like($got, qr/^HTTP\/1.1 504 .*"code":"engine_timeout"/s, 'no first byte: 504');
    $got = $t->get('/gap');
    like($got, qr/^HTTP\/1.1 200 .*"i":0.*"code":"engine_timeout".*\[DONE\]/s, 'a gap: event');
    ok($t->until(sub { count($t->access_log, qr/fin=timeout/) == 2 }), 'the log says timeout');
    ok($t->until(sub { $t->engine_log($_) =~ /end 1$/m }), "engine $_ was told") for qw(a b);
    ok($t->until(sub { $t->stat('slots_free') == $t->stat('slots') }), 'all slots are free');
    $t->finish;
};

subtest 'signs of life: the request goes on waiting' => sub {
    $t = Infer->new('lc-alive', http => "$one infer_pool q { engine SOCK(b); }", server => "$pass
                    infer_first_byte_timeout 4s;
                    location /many { infer_pass q; }");
    $t->engine('a', '--first-delay-ms', 6000, '--alive-ms', 500, '--tokens', 3);
    $t->engine('b', '--first-delay-ms', 6000, '--alive-ms', 1, '--alive-n', 700, '--tokens', 3);
    $t->start;
    ok($t->attached(2), 'attached');
    @s = ($t->open_stream, $t->open_stream(uri => '/many'));
    ok($t->collect(\@s), 'both end');
    like($_->{got}, qr/^HTTP\/1.1 200 .*"i":2.*\[DONE\]/s, 'and are answered') for @s;
    ok($t->until(sub { count($t->access_log, qr/fin=stop.* ttft=(?:[6-9]|\d\d)/) == 2 }),
       '$infer_ttft is the first byte');
    cmp_ok(count($t->engine_log('b'), qr/alive/), '>', 600, 'their credit comes back');
    $t->finish;
};

subtest 'a timeout while the engine answers others is no failure of it' => sub {
    $t = Infer->new('lc-others', http => $one, server => "$pass
                    location /late { infer_pass p; infer_first_byte_timeout 2s; }");
    $t->engine('a', '--first-delay-ms', 5000, '--tokens', 10000);
    $t->start;
    my $other = $t->open_stream;
    ok($t->collect([$other], sub { $other->{got} =~ /"i":1/ }), 'a stream');
    like($t->get('/late'), qr/^HTTP\/1.1 504 /, 'another request is late');
    is($t->stat('fails'), 0, 'not counted');
    close $other->{s};
    ok($t->until(sub { $t->stat('slots_free') == $t->stat('slots') }), 'nothing runs');
    like($t->get('/late'), qr/^HTTP\/1.1 504 /, 'late again');
    is($t->stat('fails'), 1, 'of a silent engine: counted');
    $t->finish;
};

subtest 'infer_next_engine timeout' => sub {
    $t = Infer->new('lc-late', http => 'infer_pool p { engine SOCK(a); engine SOCK(b) backup; }
                                        infer_pool q { engine SOCK(c); engine SOCK(b) backup; }',
                    server => "$pass infer_first_byte_timeout 3s; infer_read_timeout 3s;
                               infer_next_engine timeout;
                               location /gap { infer_pass q; }
                               location /error { infer_pass p; infer_next_engine error; }");
    $t->engine('a', '--first-delay-ms', 600000);
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->engine('c', '--interval-ms', 600000);
    $t->start;
    ok($t->attached(4), 'attached');
    my $got = $t->get('/error');
    like($got, qr/^HTTP\/1.1 504 .*"code":"engine_timeout"/s, 'without it: 504');
    ok($t->stop && $t->start && $t->attached(4), 'a new start: no engine counts as failed');
    $got = $t->get('/');
    like($got, qr/^HTTP\/1.1 200 .*"i":2.*\[DONE\]/s, 'a silent engine: the next one');
    $got = $t->get('/gap');
    like($got, qr/"i":0.*"code":"engine_timeout"/s, 'after the first byte: no other one');
    unlike($got, qr/"i":1/, 'whose events would be foreign');
    ok($t->until(sub { $t->access_log =~ /^200 engine=\S+a.sock, \S+b.sock st=200 fin=stop /m }),
       'both are named in the log');
    ok($t->until(sub { $t->engine_log('a') =~ /end 1$/m }), 'the silent engine was told');
    $t->finish;
};

subtest 'with no engine only POST requests wait' => sub {
    $t = Infer->new('lc-none', http => 'infer_pool p { engine SOCK(a) max_conns=1;
                                                       queue 64 timeout=60s; }',
                    server => $pass);
    my $e = $t->engine('a', '--tokens', 100000);
    $t->start;
    my $first = $t->open_stream;
    $t->collect([$first], sub { $first->{got} =~ /"i":1/ });
    my $get = $t->open_stream(method => 'GET', uri => '/health');
    my $post = $t->open_stream;
    ok($t->until(sub { $t->stat('waiting') == 2 }), 'while the engine is full both wait');
    $t->kill_engine($e);
    ok($t->collect([$get]), 'it dies');
    like($get->{got}, qr/^HTTP\/1.1 503 .*"code":"engine_unavailable"/s, 'GET: 503');
    like($t->get('/ready', method => 'GET'),
         qr/^HTTP\/1.1 503 .*Retry-After: 1/s, 'so is the next');
    is($t->stat('waiting'), 1, 'POST waits on');
    $t->engine('a', '--tokens', 3, '--interval-ms', 1);
    ok($t->collect([$post]) && $post->{got} =~ /\[DONE\]/, 'for the engine to come back');
    $t->finish;
};

subtest 'garbage drops the link and only that' => sub {
    $t = Infer->new('lc-garbage', http => $one, server => $pass);
    $e = $t->engine('a', '--garbage');
    $t->start;
    @s = map { $t->open_stream } 1 .. 3;
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /engine_lost|502/ } @s), 3, 'with an error');
    like($t->error_log, qr/\[crit\].*wrote nonsense into the ring/, 'logged as critical');
    like($t->get('/static'), qr/static/, 'nginx goes on');
    $t->finish(qr/wrote nonsense/);
};

subtest 'max_fails: an engine that failed is left alone, though it is back' => sub {
    $t = Infer->new('lc-fails', http => 'infer_pool p { engine SOCK(a) fail_timeout=10m;
                                                        engine SOCK(b); }',
                    server => $pass);
    $t->engine('a', '--garbage');
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    ok($t->attached(2), 'attached');
    $t->until(sub { $t->get('/') =~ /engine_lost/ });
    ok($t->attached(2), 'attached again');
    like($t->status, qr/a.sock","state":"attached"[^}]*"fails":1,/, 'and counted');
    my $got = join '', map { $t->get('/') } 1 .. 6;
    is(count($got, qr/\[DONE\]/), 6, 'the other engine answers');
    unlike($got, qr/engine_lost/, 'alone');
    is(count($t->error_log, qr/wrote nonsense/), 1, 'for fail_timeout');
    $t->finish(qr/wrote nonsense/);
};

subtest 'a sequence gap fails the stream' => sub {
    $t = Infer->new('lc-seq', http => $one, server => $pass);
    # the head is on its way before what is wrong comes
    $e = $t->engine('a', '--bad-seq', '--one-by-one');
    $t->start;
    like($t->get('/'), qr/"i":1.*"code":"engine_lost"/s, 'error event');
    ok($t->until(sub { $t->stat('slots_free') == $t->stat('slots') }), 'the slot is free again');
    is($t->stat('faults'), 1, 'counted');
    is($t->stat('connects'), 1, 'the link stays');
    $t->finish;
};

subtest 'an engine that ignores its credit is cut off' => sub {
    $t = Infer->new('lc-credit', http => $one, server => $pass);
    $e = $t->engine('a', '--ignore-credit', '--interval-ms', 0, '--tokens', 3000, '--bytes', 8000);
    $t->start;
    my $s = $t->connect;
    print $s "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    ok($t->until(sub { $t->error_log =~ /broke the protocol: credit|nonsense/ }), 'noticed');
    like($t->get('/static'), qr/static/, 'nginx goes on');
    $t->finish(qr/wrote nonsense/);
};

subtest 'data of an older generation is dropped and counted' => sub {
    $t = Infer->new('lc-stale', http => $one, server => $pass);
    $e = $t->engine('a', '--stale', '--tokens', 5, '--interval-ms', 1);
    $t->start;
    my $got = join '', map { $t->get('/') } 1 .. 5;
    is(count($got, qr/\[DONE\]/), 5, 'five answers');
    unlike($got, qr/STALE/, 'nothing stale in them');
    is($t->stat('stale'), 5, 'counted');
    $t->finish;
};

subtest 'another version of the wire' => sub {
    $t = Infer->new('lc-version', http => 'infer_pool p { engine SOCK(a); }', server => $pass);
    $e = $t->engine('a', '--bad-version');
    $t->start;
    like($t->get('/'), qr/^HTTP\/1.1 503 .*Retry-After: 1/s, 'status 503');
    ok($t->until(sub { $t->error_log =~ /refused the link: .*speaks another version/ }),
       'logged in words');
    is(count($t->error_log, qr/\[error\].*refused the link/), 1, 'once');
    $t->finish;
};

subtest 'why an engine cannot be reached: each other cause, once' => sub {
    $t = Infer->new('lc-cause', http => 'infer_pool p { engine SOCK(a); }', server => $pass);
    my ($sock, @told, $busy) = ($t->sock('a'));
    my $told = sub {
        $t->get('/');
        @told = $t->error_log =~ /\[error\].*connect\(\) to engine "\S+" failed \((\d+): /g;
        return @told == shift;
    };

    $t->start;
    ok($t->until(sub { $told->(1) }), 'no socket');
    symlink $sock, $sock or die $!;
    ok($t->until(sub { $told->(2) }), 'a link to itself');
    unlink $sock;
    $busy = IO::Socket::UNIX->new(Local => $sock, Listen => 1) or die $!;
    close $busy;
    ok($t->until(sub { $told->(3) }), 'nobody listens');
    unlink $sock;
    ok($t->until(sub { $told->(4) }), 'no socket again');
    my $tries = $t->stat('connect_errors');
    ok($t->until(sub { $told->(4); $t->stat('connect_errors') > $tries + 3 }), 'many tries');
    is_deeply(\@told, [map { $_ + 0 } ENOENT, ELOOP, ECONNREFUSED, ENOENT], 'each is told once');
    $e = $t->engine('a');
    ok($t->attached(1), 'attached');
    $t->kill_engine($e);
    ok($t->until(sub { $told->(5) }), 'nobody listens again');
    $t->finish;
};

subtest 'an engine that does not answer the handshake: told once' => sub {
    $t = Infer->new('lc-mute', http => 'infer_pool p { engine SOCK(a); }',
                    server => "infer_connect_timeout 50ms; $pass");
    my $mute = IO::Socket::UNIX->new(Local => $t->sock('a'), Listen => 100) or die $!;
    my $told = sub { scalar(() = $t->error_log =~ /\[error\].* did not answer the handshake/g) };

    $t->start;
    ok($t->until(sub { $told->() }), 'once');
    my $tries = $t->stat('connect_errors');
    ok($t->until(sub { $t->get('/'); $t->stat('connect_errors') > $tries + 1 }), 'more tries');
    is($told->(), 1, 'not again');
    $t->finish;
};

subtest 'the engine says busy' => sub {
    $t = Infer->new('lc-busy', http => 'infer_pool p { engine SOCK(a); engine SOCK(b); }
                                        infer_pool q { engine SOCK(a); }',
                    server => "$pass location /q { infer_pass q; }");
    $t->engine('a', '--busy');
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    ok($t->attached(3), 'attached');
    my $got = join '', map { $t->get('/') } 1 .. 6;
    is(count($got, qr/\[DONE\]/), 6, 'the other engine answers');
    like($t->get('/q'), qr/^HTTP\/1.1 503 .*"code":"server_is_overloaded"/s, '503 without another');
    $t->finish;
};

subtest 'http_503 goes to the next engine' => sub {
    $t = Infer->new('lc-503', http => 'infer_pool p { engine SOCK(a); engine SOCK(b) backup; }
                                       infer_pool q { engine SOCK(a); engine SOCK(b);
                                                      engine SOCK(c); }',
                    server => "location / { infer_pass p; infer_next_engine error http_503; }
                               location /q { infer_pass q; infer_next_engine http_503; }
                               location /off { infer_pass p; infer_next_engine off; }");
    $t->engine('a', '--status', 503);
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->engine('c', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    ok($t->attached(5), 'attached');
    like($t->get('/'), qr/\[DONE\]/, 'next');
    my $got = join '', map { $t->get('/q') } 1 .. 12;
    is(count($got, qr/\[DONE\]/), 12, 'three engines in turn');
    cmp_ok(count($t->access_log, qr/engine=\S+a.sock, .*"POST \/q/), '<', 9,
           'a second try takes one turn, not several');
    like($t->get('/off'), qr/^HTTP\/1.1 503 .*scripted/s, 'off: the answer is relayed');
    $t->finish;
};

subtest 'an engine that leaves finishes what it has and hears its operator' => sub {
    $t = Infer->new('lc-leave', http => 'infer_pool p { engine SOCK(a); }
                                         infer_pool q { engine SOCK(a); queue 9 timeout=60s; }
                                         infer_pool r { engine SOCK(a); engine SOCK(b) backup; }',
                    server => "$pass location /q { infer_pass q; } location /r { infer_pass r; }");
    $t->engine('a', '--goaway-after', 2, '--tokens', 100000);
    $t->engine('b', '--tokens', 3, '--interval-ms', 1);
    $t->start;
    ok($t->attached(4), 'attached');
    @s = map { $t->open_stream } 1 .. 2;
    ok($t->until(sub { count($t->status, qr/"leaving"/) == 3 }), 'it leaves');
    ok($t->collect(\@s, streaming(2)), 'what runs goes on');
    like($t->get('/'), qr/^HTTP\/1.1 503 .*Retry-After: 1\r.*"engine_unavailable"/s,
         'a new request: 503');
    my $wait = $t->open_stream(uri => '/q');
    ok($t->until(sub { $t->status =~ /"q","waiting":1/ }), 'or it waits in the queue');
    like($t->get('/r'), qr/"i":2.*\[DONE\]/s, 'or it goes to another engine');
    my @ask = ([method => 'GET', uri => '/metrics'], [body => '', uri => '/admin/abort'],
               [uri => '/admin/abort'], [method => 'GET', uri => '/q/load']);
    my @told = map { $t->open_stream(@$_) } @ask;
    ok($t->collect(\@told, sub { (grep { $_->{got} =~ /"i":0/ } @told) == @told }),
       'GET, POST without a body, and its operator are answered');
    like($t->get('/r', method => 'GET'), qr/\[DONE\]/, 'by another engine if there is one');

    kill 'HUP', $t->master;
    my $worker = ($t->workers)[0];
    ok($t->until(sub { $t->status !~ /"worker":$worker\b/ && $t->status =~ /"leaving"/ }),
       'a new worker sees it too');
    push @told, $t->open_stream(method => 'GET');
    ok($t->collect(\@told, sub { $told[-1]{got} =~ /"i":0/ }), 'and is answered');

    close $_->{s} for @s, @told;
    ok($t->until(sub { $t->engine_log('a') =~ /left$/m }), 'with its last stream it is gone');
    $t->engine('a', '--tokens', 3, '--interval-ms', 1);
    ok($t->collect([$wait]) && $wait->{got} =~ /\[DONE\]/, 'who waited has the next one');
    unlike($t->error_log, qr/\[error\].*requests lost/, 'nothing was lost');
    $t->finish;
};

subtest 'reload under load' => sub {
    $t = Infer->new('lc-reload', http => $one, server => $pass, workers => 2);
    $t->engine('a', '--tokens', 60, '--interval-ms', 20);
    $t->start;
    my @old = $t->workers;
    @s = map { $t->open_stream } 1 .. 40;
    ok($t->collect(\@s, streaming(3)), 'all stream');
    for my $n (1 .. 2) {
        kill 'HUP', $t->master;
        sleep 0.3;                          # whoever answers then
        push @s, map { $t->open_stream } 1 .. 10;
    }
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /"i":59.*\[DONE\]\n\n\r\n0\r\n\r\n\z/s } @s), 60, 'complete');
    ok($t->until(sub { !grep { $t->alive($_) } @old }), 'the old workers exit');
    unlike($t->error_log, qr/open socket/, 'no socket is left');
    $t->finish;
};

subtest 'worker_shutdown_timeout cuts what a reload would wait for' => sub {
    $t = Infer->new('lc-shutdown', http => $one, main => 'worker_shutdown_timeout 500ms;',
                    server => "$pass location /keep { infer_pass p; infer_ignore_client_abort on; }");
    $t->engine('a', '--tokens', 10000);
    $t->start;
    my @old = $t->workers;
    @s = map { $t->open_stream(uri => $_) } qw(/ / /keep);
    ok($t->collect(\@s, streaming(1)), 'all stream');
    kill 'HUP', $t->master;
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /\r\n0\r\n\r\n\z/ } @s), 0, 'none looks complete');
    ok($t->until(sub { $t->engine_log('a') =~ /worker gone/ }), 'the engine is told');
    ok($t->until(sub { !grep { $t->alive($_) } @old }), 'the old worker exits');
    $t->finish;
};

subtest 'binary upgrade: USR2, then QUIT of the old master' => sub {
    $t = Infer->new('lc-usr2', http => $one, server => $pass, workers => 2);
    $t->engine('a', '--tokens', 60, '--interval-ms', 20);
    $t->start;
    my ($old, @old) = ($t->master, $t->workers);
    @s = map { $t->open_stream } 1 .. 20;
    ok($t->collect(\@s, streaming(3)), 'all stream');
    kill 'USR2', $old;
    ok($t->until(sub { -e "$t->{root}/logs/nginx.pid.oldbin" && $t->master
                       && $t->master != $old && $t->workers == 2 }), 'a second master');
    kill 'QUIT', $old;
    ok($t->until(sub { $t->status =~ /"worker":(\d+)/ && !grep { $1 == $_ } @old }),
       'the new workers serve');
    push @s, map { $t->open_stream } 1 .. 10;
    ok($t->collect(\@s), 'all end');
    is(scalar(grep { $_->{got} =~ /"i":59.*\[DONE\]\n\n\r\n0\r\n\r\n\z/s } @s), 30, 'complete');
    ok($t->until(sub { !grep { $t->alive($_) } $old, @old }), 'the old ones exit');
    unlike($t->error_log, qr/open socket/, 'no socket is left');
    $t->finish;
};

subtest 'kill -9 of a worker' => sub {
    $t = Infer->new('lc-worker', http => $one, server => $pass);
    $t->engine('a', '--tokens', 1000);
    $t->start;
    @s = map { $t->open_stream } 1 .. 5;
    ok($t->collect(\@s, streaming(1)), 'all stream');
    kill 'KILL', $t->workers;
    ok($t->until(sub { $t->engine_log('a') =~ /worker gone/ }), 'the engine sees it');
    ok($t->collect(\@s), 'the connections end');
    ok($t->until(sub { $t->stat('slots_free') > 0 }), 'the next worker has a link');
    $t->finish(qr/exited on signal 9/);
};

subtest 'clients that leave' => sub {
    $t = Infer->new('lc-abort', http => "$one infer_pool q { engine SOCK(b); }", server => "$pass
                    location /keep { infer_pass q; infer_ignore_client_abort on; }");
    $t->engine('a', '--tokens', 100000, '--interval-ms', 20);
    $t->engine('b', '--tokens', 200, '--interval-ms', 20);
    $t->start;
    @s = map { $t->open_stream } 1 .. 50;
    ok($t->collect(\@s, streaming(1)), 'all stream');
    # when the worker looks again the engine has said more: it learns by writing that they have left
    kill 'STOP', my ($worker) = $t->workers;
    sleep 0.2;
    setsockopt $_->{s}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 for @s;
    close $_->{s} for @s;
    kill 'CONT', $worker;
    ok($t->until(sub { count($t->engine_log('a'), qr/end 1$/m) == 50 }), 'the engine is told');
    ok($t->until(sub { $t->stat('slots_free') == $t->stat('slots') }), 'all slots are free');
    ok($t->until(sub { count($t->access_log, qr/fin=cancelled/) == 50 }), 'the log says cancelled');

    my $s = $t->connect;
    print $s "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    shutdown $s, 1;
    ok($t->until(sub { count($t->engine_log('a'), qr/end 1$/m) == 51 }),
       'request and FIN at once');

    my $keep = $t->open_stream(uri => '/keep');
    $t->collect([$keep], sub { $keep->{got} =~ /"i":1/ });
    close $keep->{s};
    ok($t->until(sub { $t->engine_log('b') =~ /end 0$/m }), 'infer_ignore_client_abort');
    $t->finish;
};

subtest 'a client that does not read' => sub {
    $t = Infer->new('lc-slow', http => $one, server => "$pass location /short { infer_pass p;
                    send_timeout 1s; }");
    $t->engine('a', '--tokens', 40000, '--interval-ms', 0, '--bytes', 2000);
    $t->start;
    ok($t->attached(1), 'attached');
    my ($pid) = $t->workers;
    my $before = $t->rss($pid);
    my @slow = map { my $s = $t->connect; setsockopt $s, 1, 8, pack('i', 4096);
                     print $s "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"; $s }
               1 .. 20;
    my $in = -1;
    ok($t->until(sub {
        my $same = $t->stat('active') == 20 && $t->stat('bytes_in') == $in;
        $in = $t->stat('bytes_in');
        sleep 0.3;
        return $same;
    }), 'every window is full');
    my $grown = $t->rss($pid) - $before;
    ok($grown < 20 * 64, "20 stalled streams cost $grown kB");
    like($t->get('/static'), qr/static/, 'nobody else waits');
    is($t->stat('active'), 20, 'they are still there');
    my $s = $t->connect;
    print $s "POST /short HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    ok($t->until(sub { $t->access_log =~ /fin=client_timeout/ }), 'send_timeout ends it');
    close $_ for @slow, $s;
    ok($t->until(sub { $t->stat('slots_free') == $t->stat('slots') }), 'all slots are free');
    $t->finish;
};

subtest 'more requests than slots wait in the queue' => sub {
    $t = Infer->new('lc-queue', http => 'infer_pool p { engine SOCK(a) max_conns=2; queue 10 timeout=600s; }
                                         infer_pool q { engine SOCK(a) max_conns=1; }',
                    server => "$pass location /q { infer_pass q; }");
    $t->engine('a', '--tokens', 100000);
    $t->start;
    ok($t->attached(2), 'attached');
    @s = map { $t->open_stream } 1 .. 14;
    ok($t->until(sub { $t->stat('active') == 2 && $t->stat('waiting') == 10 }), 'two run, ten wait');
    $t->collect(\@s, sub { (grep { $_->{done} } @s) == 2 });
    is(scalar(grep { $_->{got} =~ /^HTTP\/1.1 503 .*engine_unavailable/s } @s), 2, 'two are refused');
    @s = grep { !$_->{done} } @s;
    for my $n (1 .. 12) {
        $t->collect(\@s, sub { grep { $_->{got} =~ /"i":0/ } @s });
        my ($first) = grep { $_->{got} =~ /"i":0/ } @s;
        close $first->{s} if $first;
        @s = grep { !$first || $_ != $first } @s;
    }
    is(scalar(@s), 0, 'as one is left the next one is answered');
    ok($t->until(sub { $t->access_log =~ /queue=(?!0\.000)\d/ }), 'the wait is in the log');
    is($t->stat('rescues'), 0, 'no wake-up was lost');
    $t->finish;
};

subtest 'gzip flushes every event' => sub {
    $t = Infer->new('lc-gzip', http => "$one gzip on; gzip_types text/event-stream;",
                    server => $pass);
    $t->engine('a', '--tokens', 10, '--one-by-one');
    $t->start;
    my @c = $t->chunks($t->get('/', headers => "Accept-Encoding: gzip\r\n"));
    ok(@c >= 10, 'a chunk for each event: ' . @c);
    my $all = join '', @c;
    gunzip(\$all => \my $plain);
    is(count($plain, qr/^data: /m), 11, 'and all of it');
    $t->finish;
};

subtest 'infer_flush_interval: a time, or half a window' => sub {
    $t = Infer->new('lc-flush', http => 'infer_pool p { engine SOCK(a); }
                                         infer_pool q { engine SOCK(b); }',
                    server => 'location / { infer_pass p; infer_flush_interval 100ms; }
                               location /q { infer_pass q; infer_flush_interval 1s; }');
    $t->engine('a', '--tokens', 20, '--interval-ms', 20);
    $t->engine('b', '--tokens', 5000, '--interval-ms', 0, '--bytes', 1000);
    $t->start;
    ok($t->attached(2), 'attached');
    my ($got, $n);
    for (1 .. 20) {                         # on a quiet machine the first time
        $got = $t->get('/');
        $n = $t->chunks($got);
        last if $n > 2 && $n < 10;
    }
    ok($n > 2 && $n < 10, "20 tokens in $n chunks");
    is(count($got, qr/"i":/), 20, 'and all of them');
    is(count(join('', $t->chunks($t->get('/q'))), qr/"i":/), 5000,
       '5 MB do not wait for the time: minutes');
    $t->finish;
};

subtest 'HTTP/2' => sub {
    $t = Infer->new('lc-h2', http => $one,
                    server => "$pass listen 127.0.0.1:PORT(h2) http2;");
    my $linked = sub { my $n = shift;
                       $t->until(sub { count($t->engine_log('a'), qr/link up/) == $n }) };
    my $e = $t->engine('a', '--tokens', 20, '--interval-ms', 10);
    $t->start;
    my $curl = "curl -sN --http2-prior-knowledge -d {} http://127.0.0.1:" . $t->port('h2');
    my $got = `$curl/ -w '%{http_version} %{http_code}'`;
    like($got, qr/"i":19.*\[DONE\]\n\n2 200\z/s, 'a whole stream');
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 100000, '--interval-ms', 10);
    ok($linked->(2), 'another engine');
    my $left = open my $p, '-|', "exec $curl/";
    sysread $p, $got, 100;
    kill 'KILL', $left;
    close $p;
    ok($t->until(sub { $t->engine_log('a') =~ /end 1$/m }), 'a client that leaves');
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 20000, '--interval-ms', 0, '--bytes', 1000);
    ok($linked->(3), 'another engine');
    $got = `$curl/ | md5sum; $curl/ | grep -c '^data: {'`;
    like($got, qr/^20000$/m, '20 MB, far beyond every window');
    $t->kill_engine($e);
    $e = $t->engine('a', '--tokens', 100000, '--interval-ms', 10);
    ok($linked->(4), 'another engine');
    open $p, '-|', "$curl/; echo rc=\$?";
    sysread $p, $got, 100;
    $t->kill_engine($e);
    $got .= join '', <$p>;
    close $p;
    like($got, qr/"i":0.*"code":"engine_lost".*\[DONE\]\n\nrc=0/s,
         'a dead engine: error event, then the end');
    $t->finish;
};

done_testing();
