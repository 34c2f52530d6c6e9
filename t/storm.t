# Clients that do anything, engines that die, lie and hang, workers that are killed, reloads all the
# while: for some seconds, at random. Afterwards nothing may be left over. STORM_S: how long; STORM_SEED: which one.

use strict;
use warnings;

use lib 't/lib';
use H2;
use Infer;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);

my $seconds = $ENV{STORM_S} || 6;
my $seed = $ENV{STORM_SEED} || time % 100000;
srand $seed;
diag "seed $seed";

my $t = Infer->new('storm', workers => 2, shm => '512k', http => '
    infer_pool p { engine SOCK(a) max_conns=40; engine SOCK(b) max_conns=40;
                   queue 30 timeout=300ms; }
    infer_pool q { engine SOCK(b); }
    infer_buffer_size 8k; gzip on; gzip_types text/event-stream;
    limit_req_zone $uri zone=r:1m rate=200r/s; limit_conn_zone $binary_remote_addr zone=c:1m;',
    server => '
    listen 127.0.0.1:PORT(h2) http2; client_body_buffer_size 1k;
    listen 127.0.0.1:PORT(tls) ssl; ssl_certificate ROOT/cert.pem; ssl_certificate_key ROOT/key.pem;
    error_page 502 503 504 @q;
    location @q { infer_pass q; }
    location / { infer_pass p; infer_next_engine error timeout http_503; }
    location /hasty { infer_pass p; infer_first_byte_timeout 30ms; infer_read_timeout 20ms;
                      send_timeout 50ms; infer_next_engine timeout; }
    location /keep { infer_pass p; infer_ignore_client_abort on; send_timeout 100ms; }
    location /slow { infer_pass p; limit_rate 20k; }
    location /pages { infer_pass p; infer_intercept_errors on; }
    location /flush { infer_pass p; infer_flush_interval 20ms; post_action @q; }
    location /mirror { mirror /copy; infer_pass p; limit_req zone=r burst=50; limit_conn c 20; }
    location = /copy { internal; infer_pass q; }
    location /around { infer_pass p; add_before_body /static; add_after_body /static;
                       addition_types *; }
    location /filters { infer_pass p; chunked_transfer_encoding off; ssi on; ssi_types *;
                        sub_filter_types *; sub_filter_once off; sub_filter x yy; }
    location /include { ssi on; default_type text/html;
                        return 200 \'<!--#include virtual="/" --><!--#include virtual="/static" -->\'; }
    location /auth { auth_request /static; infer_pass p; }
    location /auth/engine { auth_request /; infer_pass p; }
    location /try { try_files /none @q; }
    location /loop { infer_pass p; infer_intercept_errors on; recursive_error_pages on;
                     error_page 500 502 503 504 /loop; }
    location /proxied { proxy_pass https://127.0.0.1:PORT(tls)/; proxy_http_version 1.1; }
    location /proxied/raw { proxy_pass https://127.0.0.1:PORT(tls)/keep; proxy_http_version 1.1;
                            proxy_buffering off; proxy_request_buffering off; }');
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
       . " -keyout $t->{root}/key.pem -out $t->{root}/cert.pem 2>$t->{root}/openssl.log") == 0
    or die 'openssl';

my @uri = qw(/ / / /hasty /keep /slow /pages /flush /mirror /around /filters /include /auth
             /auth/engine /try /loop /proxied /proxied/raw);
my @play = (['--tokens', 30, '--interval-ms', 5],
            ['--first-delay-ms', 50, '--alive-ms', 5, '--tokens', 5],
            ['--tokens', 2000, '--interval-ms', 0, '--bytes', 700], ['--busy'],
            ['--status', 503], ['--bad-seq'], ['--garbage'], ['--die-at', 60], ['--hang-at', 200],
            ['--stale', '--tokens', 10], ['--goaway-after', 5, '--tokens', 10]);
my (%engine, @open, @h2, @slow);
my $n = 0;

sub any { return $_[rand @_] }

sub change_engine {
    my ($name, @args) = @_;
    $t->kill_engine($engine{$name}) if $engine{$name};
    $engine{$name} = $t->engine($name, @args);
}

# One to four requests on a connection, perhaps cut off, half closed, or reset in the end.
sub http1 {
    my $s = $t->connect or return;
    my $method = rand() < 0.7 ? 'POST' : any(qw(GET DELETE HEAD OPTIONS PUT));
    my $body = 'x' x rand(rand() < 0.3 ? 60000 : 50);
    my $request = "$method " . any(@uri) . ' HTTP/1.' . (rand() < 0.9 ? 1 : 0)
                  . "\r\nHost: x\r\n" . (rand() < 0.3 ? "Accept-Encoding: gzip\r\n" : '')
                  . 'Content-Length: ' . length($body) . "\r\n\r\n$body";
    $request x= 1 + rand 4 if rand() < 0.3;
    $request = substr $request, 0, rand length $request if rand() < 0.1;
    $s->blocking(0);
    syswrite $s, $request;
    shutdown $s, 1 if rand() < 0.15;
    setsockopt $s, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if rand() < 0.3;
    push @open, $s;
    $n++;
}

# A chunked body, of which trickle() sends a few bytes at a time.
sub http1_slow {
    my $s = $t->connect or return;
    my $chunks = join '', map { my $n = 1 + int rand 40; sprintf "%x\r\n%s\r\n", $n, 'x' x $n } 0 .. rand 20;
    $s->blocking(0);
    push @slow, [$s, 'POST ' . any(@uri) . " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                     . $chunks . (rand() < 0.9 ? '' : any("z\r\n", "ffffffffffffffff\r\n")) . "0\r\n\r\n"];
    $n++;
}

sub trickle {
    for (1 .. 10) {
        my $some = shift @slow or last;
        syswrite $some->[0], substr $some->[1], 0, 1 + rand 30, '';
        push @{ length $some->[1] ? \@slow : \@open }, length $some->[1] ? $some : $some->[0];
    }
}

# A request on a connection that is there, windows for some, a reset for one.
sub http2 {
    push @h2, H2->new($t->port('h2'), any(0, 100, 65535, 1 << 20)) if !@h2 || rand() < 0.4;
    my $c = any(@h2);
    my $id = $c->post(any(@uri));
    my $some = sub { 1 + 2 * int rand(($id + 1) / 2) };
    $c->window($some->(), 1 + rand 5000) for 1 .. rand 3;
    $c->frame(H2::SETTINGS, 0, 0, pack 'nN', H2::INITIAL_WINDOW_SIZE, any(0, 1, 65535)) if rand() < 0.1;
    $c->frame(H2::RST_STREAM, 0, $some->(), pack 'N', 8) if rand() < 0.3;
    $c->read(0, sub { 1 });
    $n++;
}

sub leave {
    if (@open > 150 || @open && rand() < 0.4) {
        my $s = splice @open, rand @open, 1;
        sysread $s, my $got, 65536 if rand() < 0.7;
        close $s;
    }
    (splice @h2, rand @h2, 1)->close if @h2 > 20;
}

$SIG{PIPE} = 'IGNORE';
change_engine($_, @{ any(@play) }) for qw(a b);
$t->start;

my ($end, $last) = (time + $seconds, time + $seconds + Infer::LIMIT);
my ($engine_at, $reload_at, $kill_at) = (time, time + 1, time + 2);
while (time < $end || $n < 50 * $seconds && time < $last) {
    any(\&http1, \&http1, \&http1_slow, \&http2, \&http2)->();
    trickle();
    leave();
    if (time > $engine_at) {
        change_engine(any(qw(a b)), @{ any(@play) });
        $engine_at = time + 0.2 + rand 1;
    }
    if (time > $reload_at) {
        kill 'HUP', $t->master;
        $reload_at = time + 1 + rand 3;
    }
    if (time > $kill_at) {
        my @w = $t->workers;
        kill 'KILL', any(@w);
        $kill_at = time + 2 + rand 5;
    }
    sleep 0.001;
}

close $_ for @open, map { $_->[0] } @slow;
$_->close for @h2;
change_engine($_, '--tokens', 3) for qw(a b);
ok($n >= 50 * $seconds, "$n requests");
ok($t->until(sub { $t->get('/') =~ /\[DONE\]/ }), 'the next one is answered');
ok($t->until(sub { $t->workers == 2 }), 'the old workers exit');

# either worker may answer: all of twenty answers in a row
my $clean = 0;
ok($t->until(sub {
    my $s = $t->status;
    my @left = grep { $_ } $s =~ /"(?:active|waiting)":(\d+)/g, map { $_->[0] - $_->[1] }
               map { [/(\d+)/g] } $s =~ /("slots":\d+,"slots_free":\d+)/g;
    $clean = @left ? 0 : $clean + 1;
    return $clean == 20;
}), 'no slot is held, nobody waits');
$t->finish(qr/wrote nonsense|exited on signal 9/);

done_testing();
