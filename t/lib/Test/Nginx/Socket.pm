package Test::Nginx::Socket;

# The .t format of Test::Nginx::Socket, as far as our suites use it, on core Perl alone. The real
# library runs the same files (see README.md).
#
# Sections: main_config http_config config request raw_request raw_request_middle_delay
# pipelined_requests more_headers error_code response_headers response_body response_body_like
# response_body_unlike error_log no_error_log access_log must_die timeout user_files init SKIP ONLY
# LAST.
#
# Environment: TEST_NGINX_BINARY, TEST_NGINX_SERVROOT, TEST_NGINX_PORT, TEST_NGINX_VERBOSE,
# TEST_NGINX_LOAD_MODULES (space separated), TEST_NGINX_TIMEOUT.

use strict;
use warnings;

use Cwd qw(getcwd);
use File::Path qw(make_path remove_tree);
use IO::Select;
use IO::Socket::INET;
use Test::More ();
use Time::HiRes qw(sleep time);

our ($Binary, $Root, $Port, $Timeout, $Log);
my @blocks;
my $repeat = 1;

$SIG{TERM} = sub { exit 1 };                # not without what ends nginx

sub import {
    my $class = shift;
    my $pkg = caller;
    my @args = @_;

    strict->import;
    warnings->import;

    $Binary = $ENV{TEST_NGINX_BINARY} || 'nginx';
    $Port = $ENV{TEST_NGINX_PORT} || free_port();
    $Root = $ENV{TEST_NGINX_SERVROOT} || getcwd() . '/build/t/servroot';
    $Timeout = $ENV{TEST_NGINX_TIMEOUT} || 120;
    $Log = 'info';
    $ENV{TEST_NGINX_SERVER_PORT} = $Port;
    $ENV{TEST_NGINX_SERVROOT} = $Root;

    no strict 'refs';
    for my $f (qw(repeat_each no_long_string no_shuffle no_root_location log_level workers run_tests
                  blocks add_block_preprocessor server_port))
    {
        *{"${pkg}::$f"} = \&$f;
    }
    for my $f (qw(ok is isnt like unlike is_deeply diag note pass fail)) {
        *{"${pkg}::$f"} = \&{"Test::More::$f"};
    }
    *{"${pkg}::plan"} = sub { Test::More::plan(@_) };
    Test::More::plan(@args) if @args;
}

my @preprocessors;
my $workers = 1;
my $root_location = "location / { root html; }";

sub add_block_preprocessor { push @preprocessors, $_[0] }
sub repeat_each { $repeat = $_[0] if @_; return $repeat }
sub no_long_string { }
sub no_shuffle { }
sub no_root_location { $root_location = '' }
sub log_level { $Log = $_[0] }
sub workers { $workers = $_[0] }
sub server_port { return $Port }

# A block answers for its sections by name, as Test::Base's do.
{
    package Test::Nginx::Socket::Block;
    our $AUTOLOAD;
    sub AUTOLOAD {
        my $self = shift;
        (my $n = $AUTOLOAD) =~ s/.*:://;
        return if $n eq 'DESTROY';
        return $self->{$n};
    }
    sub set_value { $_[0]{$_[1]} = $_[2] }
}

sub blocks {
    return @blocks if @blocks;

    local $/;
    my $data = do { no strict 'refs'; readline(*{"main::DATA"}) };
    $data = '' unless defined $data;

    for my $text (split /^===[ \t]*/m, $data) {
        next unless $text =~ s/^(TEST[^\n]*)\n//;
        my $b = bless { name => $1 }, 'Test::Nginx::Socket::Block';
        for my $s (split /^--- /m, $text) {
            next unless $s =~ s/^(\w+)((?:[ \t]+\w+)*)[ \t]*(:?)[ \t]*([^\n]*)\n//;
            my ($name, $filters, $colon, $line) = ($1, $2, $3, $4);
            my $v = $colon ? $line : $s;
            $v =~ s/\n+\z/\n/ unless $colon;
            chomp $v if $filters =~ /\bchomp\b/;
            $v = eval $v if $filters =~ /\beval\b/;
            die "$b->{name}: $name: $@" if $@;
            $b->{$name} = $v;
        }
        push @blocks, $b;
        last if exists $b->{LAST};
    }

    my @only = grep { exists $_->{ONLY} } @blocks;
    @blocks = @only if @only;

    return @blocks;
}

sub expand {
    my $s = shift;
    return '' unless defined $s;
    $s =~ s/\$(TEST_NGINX_[A-Z_]+)/defined $ENV{$1} ? $ENV{$1} : "\$$1"/ge;
    return $s;
}

sub modules {
    my $m = $ENV{TEST_NGINX_LOAD_MODULES};
    $m = '' unless defined $m;
    return join '', map { "load_module $_;\n" } split ' ', $m;
}

sub write_config {
    my $b = shift;
    my ($main, $http, $config) = map { expand($b->{$_}) } qw(main_config http_config config);
    my $modules = modules();

    die "$b->{name}: no config section\n" unless defined $b->{config};
    remove_tree($Root);
    make_path("$Root/logs", "$Root/html", "$Root/conf", "$Root/tmp");
    chmod 0755, $Root;
    write_file("$Root/html/index.html", "It works!\n");
    user_files($b->{user_files}) if defined $b->{user_files};

    write_file("$Root/conf/nginx.conf", <<"CONF");
$modules
user root;
worker_processes $workers;
daemon on; master_process on;
pid $Root/logs/nginx.pid;
error_log $Root/logs/error.log $Log;
$main
events { worker_connections 1024; }
http {
    access_log $Root/logs/access.log;
    default_type text/plain;
    keepalive_timeout 68;
    client_body_temp_path $Root/tmp/body;
    proxy_temp_path $Root/tmp/proxy;
    fastcgi_temp_path $Root/tmp/fastcgi;
    uwsgi_temp_path $Root/tmp/uwsgi;
    scgi_temp_path $Root/tmp/scgi;
    $http
    server {
        listen 127.0.0.1:$Port;
        server_name localhost;
        client_max_body_size 30M;
        $config
        $root_location
    }
}
CONF
}

sub write_file {
    my ($path, $text) = @_;
    open my $f, '>', $path or die "$path: $!";
    print $f $text;
    close $f;
}

sub read_log {
    my $name = shift;
    open my $f, '<', "$Root/logs/$name" or return '';
    local $/;
    my $s = <$f>;
    return defined $s ? $s : '';
}

sub user_files {
    my $s = shift;
    for my $part (split /^>>> /m, $s) {
        next unless $part =~ s/^(\S+)[^\n]*\n//;
        write_file("$Root/html/$1", $part);
    }
}

sub start {
    my $out = `$Binary -p $Root/ -c $Root/conf/nginx.conf 2>&1`;
    return ($? >> 8, $out);
}

sub pid {
    open my $f, '<', "$Root/logs/nginx.pid" or return;
    my $p = <$f>;
    chomp $p if defined $p;
    return $p;
}

# Below the ports that the system gives to clients, so that none of them takes it meanwhile.
sub free_port {
    for (;;) {
        my $port = 20000 + int rand 10000;
        return $port if IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:$port");
    }
}

sub wait_until {
    my $f = shift;
    my $end = time + $Timeout;
    sleep 0.02 while !$f->() && time < $end;
    return $f->();
}

sub wait_port { return wait_until(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$Port") }) }

# A zombie whose parent is slow to reap is dead enough.
sub alive {
    open my $f, '<', "/proc/$_[0]/stat" or return 0;
    my $s = <$f>;
    return defined $s && $s =~ /\) [^ZX]/;
}

sub stop {
    my $pid = pid();
    return unless $pid;
    kill 'TERM', $pid;
    wait_until(sub { !alive($pid) });
}

# What is sent, as a list of strings in the order of the connection.
sub build_requests {
    my $b = shift;

    if (defined $b->{raw_request}) {
        my $r = $b->{raw_request};
        return ref $r ? @$r : ($r);
    }

    if (defined $b->{pipelined_requests}) {
        my $list = $b->{pipelined_requests};
        my $n = @$list;
        return (join '', map { one_request($list->[$_], $b, $_ == $n - 1) } 0 .. $n - 1);
    }

    my $r = $b->{request};
    return () unless defined $r;

    return ref $r ? map { one_request($_, $b, 1) } @$r : (one_request($r, $b, 1));
}

sub one_request {
    my ($text, $b, $last) = @_;

    $text =~ s/^\s+//;
    my ($line, $body) = split /\n/, $text, 2;
    $body = '' unless defined $body;
    $body =~ s/\n\z//;
    my $version = $line =~ s/\s+(HTTP\/\d\.\d)\s*$// ? $1 : 'HTTP/1.1';

    my $more = expand($b->{more_headers});
    $more =~ s/\r?\n/\r\n/g;
    $more .= "\r\n" if length $more && $more !~ /\r\n\z/;
    my $close = $last ? 'close' : 'keep-alive';
    my $h = "$line $version\r\nHost: localhost\r\n";
    $h .= "Connection: $close\r\n" unless $more =~ /^Connection:/im;
    $h .= $more;
    if ((length $body || $line =~ /^(?:POST|PUT|PATCH) /)
        && $more !~ /^(?:Content-Length|Transfer-Encoding):/im)
    {
        $h .= 'Content-Length: ' . length($body) . "\r\n";
    }

    return "$h\r\n$body";
}

# Send the parts, $delay seconds between them, and read to the end of the connection.
sub exchange {
    my ($timeout, $delay, @parts) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$Port", Timeout => $timeout) or return;
    my ($sel, $got) = (IO::Select->new($s), '');

    local $SIG{PIPE} = 'IGNORE';
    $s->autoflush(1);
    $s->blocking(0);

    for my $i (0 .. $#parts) {
        my $p = $parts[$i];
        sleep $delay if $delay && $i;
        my $end = time + $timeout;
        while (length $p && time < $end) {
            my $n = syswrite $s, $p;
            if (defined $n) { substr($p, 0, $n, ''); next }
            last unless $!{EAGAIN};
            if ($sel->can_read(0)) {
                my $k = sysread $s, $got, 65536, length $got;
                last if defined $k && $k == 0;
            }
            IO::Select->new($s)->can_write(0.05);
        }
    }

    while ($sel->can_read($timeout)) {
        my $n = sysread $s, $got, 65536, length $got;
        next if !defined $n && $!{EAGAIN};
        return ($got, 1) if !$n;
    }

    return ($got, 0);
}

# One response off the front of a string: { code, head, headers, body }, or nothing.
sub parse_response {
    my ($text, $head_only) = @_;
    my $rest = $$text;

    return unless $rest =~ s/\A(HTTP\/\d\.\d (\d+)[^\r\n]*)\r\n((?:[^\r\n]+\r\n)*)\r\n//;
    my ($line, $code, $head) = ($1, $2, $3);
    my %h;
    for (split /\r\n/, $head) {
        my ($k, $v) = split /:\s*/, $_, 2;
        push @{ $h{lc $k} }, $v;
    }
    my $r = { code => $code, line => $line, headers => \%h, body => '' };
    if ($head_only || $code == 204 || $code == 304) {
    } elsif (join('', @{ $h{'transfer-encoding'} || [] }) eq 'chunked') {
        while ($rest =~ s/\A([0-9a-fA-F]+)\r\n//) {
            my $n = hex $1;
            $r->{ended} = 1 if $n == 0;
            if ($n == 0) { $rest =~ s/\A\r\n//; last }
            push @{ $r->{chunks} }, substr($rest, 0, $n);
            $r->{body} .= substr($rest, 0, $n, '');
            $rest =~ s/\A\r\n//;
        }
    } elsif (defined $h{'content-length'}) {
        $r->{body} = substr($rest, 0, $h{'content-length'}[0], '');
    } else {
        $r->{body} = $rest;
        $rest = '';
    }
    $$text = $rest;
    return $r;
}

# A section's value for the i-th response: a list holds one each, and several responses need one.
sub nth {
    my ($b, $section, $i) = @_;
    my $v = $b->{$section};
    return $v->[$i] if ref $v eq 'ARRAY';
    die "$b->{name}: $section is no list\n"
        if defined $v && (defined $b->{pipelined_requests} || ref $b->{request});
    return $v;
}

sub check_response {
    my ($b, $name, $i, $r) = @_;
    my $code = nth($b, 'error_code', $i);
    $code = 200 unless defined $code;
    $code =~ s/\s+//g;
    Test::More::is($r ? $r->{code} : 'no response', $code, "$name - status");
    return unless $r;

    if (defined(my $want = nth($b, 'response_headers', $i))) {
        for (grep { /\S/ } split /\n/, expand($want)) {
            my ($k, $v) = /^(!?[^:\s]+)(?::\s*(.*?))?\s*$/;
            my $absent = $k =~ s/^!//;
            my $got = $r->{headers}{lc $k};
            if ($absent) {
                Test::More::ok(!defined $got, "$name - no header $k");
            } else {
                Test::More::is(defined $got ? join(', ', @$got) : undef, $v, "$name - header $k");
            }
        }
    }

    if (defined(my $want = nth($b, 'response_body', $i))) {
        Test::More::is($r->{body}, expand($want), "$name - body");
    }
    if (defined(my $want = nth($b, 'response_body_like', $i))) {
        chomp $want;
        Test::More::like($r->{body}, qr/$want/s, "$name - body like");
    }
    if (defined(my $want = nth($b, 'response_body_unlike', $i))) {
        chomp $want;
        Test::More::unlike($r->{body}, qr/$want/s, "$name - body unlike");
    }
}

sub match_log {
    my ($log, $pattern) = @_;
    return $log =~ $pattern if ref $pattern;
    return index($log, $pattern) >= 0;
}

sub patterns {
    my $v = shift;
    return () unless defined $v;
    return @$v if ref $v eq 'ARRAY';
    return $v if ref $v;
    return grep { /\S/ } map { expand($_) } split /\n/, $v;
}

sub check_logs {
    my ($b, $name, $die_out) = @_;
    my $log = read_log('error.log') . (defined $die_out ? $die_out : '');

    for my $p (patterns($b->{error_log})) {
        Test::More::ok(match_log($log, $p), "$name - error log has $p") or Test::More::diag($log);
    }
    for my $p (patterns($b->{no_error_log})) {
        Test::More::ok(!match_log($log, $p), "$name - error log has no $p");
    }
    for my $p (patterns($b->{access_log})) {
        my $found = grep { match_log($_, $p) } split /\n/, read_log('access.log');
        Test::More::ok($found, "$name - access log has $p");
    }
    if (!defined $die_out) {
        my @bad = grep { !/\Q@{[ $b->{expected_alert} || "\0" ]}\E/ }
                  $log =~ /^(.*\[(?:alert|crit|emerg)\].*|.*(?:Sanitizer|runtime error).*)$/mg;
        Test::More::is("@bad", '', "$name - no alerts");
    }
}

sub run_block {
    my $b = shift;
    my $name = $b->{name};

    if (exists $b->{SKIP}) {
        Test::More::pass("$name # SKIP");
        return;
    }

    $_->($b) for @preprocessors;
    write_config($b);
    eval $b->{init} if defined $b->{init};
    die "$name: init: $@" if $@;

    my ($rc, $out) = start();

    if (exists $b->{must_die}) {
        Test::More::ok($rc != 0, "$name - nginx refuses the configuration");
        stop() if $rc == 0;
        check_logs($b, $name, $out);
        return;
    }

    if ($rc != 0 || !wait_port()) {
        Test::More::fail("$name - nginx starts");
        Test::More::diag($out);
        return;
    }

    for (1 .. $repeat) {
        my @parts = build_requests($b);
        next unless @parts;
        my $head = ref $b->{request} ? 0 : ($b->{request} || '') =~ /^\s*HEAD /;
        my $n = defined $b->{pipelined_requests} ? @{ $b->{pipelined_requests} } : 1;
        my @conns = ref $b->{request} ? map { [$_] } @parts : [@parts];
        my $i = 0;
        for my $conn (@conns) {
            my ($text) = exchange($b->{timeout} || $Timeout, $b->{raw_request_middle_delay}, @$conn);
            for (1 .. $n) {
                check_response($b, $name, $i++, parse_response(\$text, $head));
            }
        }
    }

    stop();
    check_logs($b, $name);
}

sub run_tests {
    for my $b (blocks()) {
        run_block($b);
    }
    Test::More::done_testing() unless Test::More->builder->has_plan;
}

END {
    local $?;
    stop() if defined $Root && !$ENV{TEST_NGINX_NO_CLEAN} && -e "$Root/logs/nginx.pid";
}

1;
