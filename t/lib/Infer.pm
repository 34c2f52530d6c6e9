package Infer;

# One nginx and any number of engines for the tests that need several steps.
#
#     my $t = Infer->new('name', http => '...', server => '...', main => '...', workers => 1);
#
# where SOCK(a) stands for the address of engine a, PORT(x) for a free port, $t->port('x'), and
# ROOT for the test's directory.
#
#     my $e = $t->engine('a', '--tokens', 50);     # scripted_engine on $t->sock('a')
#     $t->start;  ...  $t->finish;                 # finish also asserts: no alerts
#
# Streams are read by select in this process, many at once: see open_stream and collect. What is
# waited for may take LIMIT seconds: that is when a test gives up, on a machine of any speed.

use strict;
use warnings;

use Cwd qw(abs_path getcwd);
use File::Path qw(make_path remove_tree);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(:sys_wait_h);
use Test::More;
use Time::HiRes qw(sleep time);

use constant LIMIT => 120;

my $build = 'build';

$SIG{TERM} = sub { exit 1 };                # not without what ends nginx

sub new {
    my ($class, $name, %o) = @_;
    my $root = getcwd() . "/$build/t/$name";
    my $self = bless { %o, root => $root, pids => {}, sockdir => "/tmp/infer-t-$$-$name" }, $class;

    remove_tree($root, $self->{sockdir});
    make_path("$root/logs", "$root/html", "$root/tmp", $self->{sockdir});
    $self->{port} = $self->port('main');
    $self->write_conf;

    return $self;
}

# The socket path is short whatever the tree's is: sun_path holds 107 bytes.
sub sock { return "$_[0]{sockdir}/$_[1].sock" }

# Below the ports that the system gives to clients, so that none of them takes it meanwhile; none
# twice.
my %given;

sub free_port {
    for (;;) {
        my $port = 20000 + int rand 10000;
        next if $given{$port}++;
        return $port if IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1:$port");
    }
}

sub port {
    my ($self, $name) = @_;
    return $self->{ports}{$name} ||= free_port();
}

sub conf {
    my $self = shift;
    my $module = abs_path($ENV{TEST_INFER_MODULE} || 'build/ngx_http_infer_module.so');
    my %d = (http => '', server => '', main => '', workers => 1, shm => '4m', %$self);
    for (@d{qw(http server)}) {
        s/SOCK\((\w+)\)/'unix:' . $self->sock($1)/ge;
        s/PORT\((\w+)\)/$self->port($1)/ge;
        s/ROOT/$self->{root}/g;
    }

    return <<"CONF";
load_module $module;
user root;
worker_processes $d{workers};
pid $d{root}/logs/nginx.pid;
error_log $d{root}/logs/error.log info;
worker_rlimit_nofile 8192;
env LD_PRELOAD;
env ASAN_OPTIONS;
$d{main}
events { worker_connections 4096; }
http {
    log_format infer '\$status engine=\$infer_engine st=\$infer_status fin=\$infer_finish_reason '
                     'out=\$infer_completion_tokens model=\$infer_model id=\$infer_request_id '
                     'ttft=\$infer_ttft tpot=\$infer_tpot queue=\$infer_queue_time "\$request"';
    access_log $d{root}/logs/access.log infer;
    client_body_temp_path $d{root}/tmp/body;
    proxy_temp_path $d{root}/tmp/proxy;
    fastcgi_temp_path $d{root}/tmp/fastcgi;
    uwsgi_temp_path $d{root}/tmp/uwsgi;
    scgi_temp_path $d{root}/tmp/scgi;
    infer_shm_size $d{shm};
    $d{http}
    server {
        listen 127.0.0.1:$d{port};
        root $d{root}/html;
        location = /static { return 200 "static\\n"; }
        location = /infer { infer_status; }
        $d{server}
    }
}
CONF
}

sub write_conf {
    my $self = shift;
    open my $f, '>', "$self->{root}/nginx.conf" or die $!;
    print $f $self->conf;
    close $f;
}

sub spawn {
    my ($self, $key, @cmd) = @_;
    my $pid = fork;
    die "fork: $!" unless defined $pid;
    if ($pid == 0) {
        open STDOUT, '>>', "$self->{root}/logs/$key.log";
        open STDERR, '>&STDOUT';
        exec @cmd or POSIX::_exit(127);
    }
    $self->{pids}{$pid} = 1;

    return $pid;
}

sub engine {
    my ($self, $name, @args) = @_;
    my $bin = $ENV{TEST_SCRIPTED_ENGINE} || 'build/t/helpers/scripted_engine';
    unlink $self->sock($name);
    my $pid = $self->spawn($name, $bin, $self->sock($name), '--verbose', @args);
    $self->until(sub { -S $self->sock($name) }) or die "no engine $name";

    return $pid;
}

sub engine_log { return slurp("$_[0]{root}/logs/$_[1].log") }

sub kill_engine {
    my ($self, $pid, $sig) = @_;
    kill $sig || 'KILL', $pid;
    waitpid $pid, 0;
    delete $self->{pids}{$pid};
}

sub start {
    my $self = shift;
    my $nginx = $ENV{TEST_NGINX_BINARY} || 'nginx';
    # USR2 executes this path
    ($nginx) = grep { -x } map { "$_/$nginx" } split /:/, $ENV{PATH} unless $nginx =~ m{/};
    system($nginx, '-p', $self->{root}, '-c', "$self->{root}/nginx.conf") == 0 or die 'nginx';
    $self->until(sub { $self->connect }) or die 'nginx does not listen';
    $self->until(sub { $self->master });

    return $self;
}

sub master { my $p = slurp("$_[0]{root}/logs/nginx.pid"); chomp $p; return $p }

sub workers {
    my $self = shift;
    my $m = $self->master;
    my @w;
    $self->until(sub { @w = split ' ', slurp("/proc/$m/task/$m/children") });
    return @w;
}

sub rss {
    my ($self, $pid) = @_;
    return slurp("/proc/$pid/status") =~ /RssAnon:\s+(\d+)/ ? $1 : 0;      # kB, its own
}

sub until {
    my ($self, $f, $limit) = @_;
    my $end = time + ($limit || LIMIT);
    for (;;) {
        return 1 if $f->();
        return 0 if time > $end;
        sleep 0.02;
    }
}

# A zombie whose parent is slow to reap is dead enough.
sub alive {
    my ($self, $pid) = @_;
    return slurp("/proc/$pid/stat") =~ /\) [^ZX]/;
}

sub slurp {
    open my $f, '<', $_[0] or return '';
    local $/;
    my $s = <$f>;
    return defined $s ? $s : '';
}

sub connect {
    my ($self, %o) = @_;
    return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$self->{port}", %o);
}

# A request under way: { s, got, done, at_end }.
sub open_stream {
    my ($self, %o) = @_;
    my $start = time;
    my $s = $self->connect or return;
    my $body = defined $o{body} ? $o{body} : '{}';
    my $uri = $o{uri} || '/v1/chat/completions';
    my $method = $o{method} || 'POST';
    $s->autoflush(1);
    my $more = defined $o{headers} ? $o{headers} : '';
    print $s "$method $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${more}Content-Length: "
             . length($body) . "\r\n\r\n$body";
    $s->blocking(0);

    return { s => $s, got => '', start => $start };
}

# Read all of them until they end, or until $until (a sub) is true.
sub collect {
    my ($self, $streams, $until) = @_;
    my $end = time + LIMIT;
    my %by = map { fileno($_->{s}) => $_ } grep { !$_->{done} } @$streams;
    my $sel = IO::Select->new(map { $_->{s} } values %by);

    while ($sel->count && time < $end) {
        for my $s ($sel->can_read(0.05)) {
            my $k = $by{fileno $s};
            my $n = sysread $s, $k->{got}, 65536, length $k->{got};
            next if !defined $n && $!{EAGAIN};
            if (!$n) {
                $k->{done} = 1;
                $k->{reset} = !defined $n;
                $k->{at_end} = time;
                $sel->remove($s);
                close $s;
            }
        }
        return 1 if $until && $until->();
    }

    return $sel->count == 0;
}

sub get {
    my ($self, $uri, %o) = @_;
    my $k = $self->open_stream(uri => $uri, %o) or return '';
    $self->collect([$k]);
    return $k->{got};
}

# The chunks of a chunked reply.
sub chunks {
    my ($self, $got) = @_;
    my @c;
    $got =~ s/\A.*?\r\n\r\n//s;
    while ($got =~ s/\A([0-9a-f]+)\r\n//) {
        last if hex $1 == 0;
        push @c, substr($got, 0, hex $1, '');
        $got =~ s/\A\r\n//;
    }
    return @c;
}

# infer_status of the worker that answers; a number out of it, of the first engine.
sub status {
    my $self = shift;
    my $s = $self->connect or return '';
    print $s "GET /infer HTTP/1.0\r\n\r\n";
    local $/;
    return scalar <$s>;
}

sub stat {
    my ($self, $field) = @_;
    return $self->status =~ /"$field":(\d+)/ ? $1 : -1;
}

# Wait until n links are attached.
sub attached {
    my ($self, $n) = @_;
    return $self->until(sub { (() = $self->status =~ /"attached"/g) == $n });
}

sub error_log { return slurp("$_[0]{root}/logs/error.log") }
sub access_log { return slurp("$_[0]{root}/logs/access.log") }

sub stop {
    my $self = shift;
    my $m = $self->master or return;
    kill 'TERM', $m;
    $self->until(sub { !$self->alive($m) });
}

# Nothing may be left over: no alert, no critical message but the expected ones, no core.
sub finish {
    my ($self, $expected) = @_;
    my $m = $self->master;
    kill 'TERM', $m if $m;
    ok($self->until(sub { !$m || !$self->alive($m) }), 'nginx exits');
    my @bad = $self->error_log
              =~ /^(.*(?:\[(?:alert|crit|emerg)\]|Sanitizer|runtime error|exited on signal).*)$/mg;
    @bad = grep { $_ !~ $expected } @bad if $expected;
    is("@bad", '', 'no alerts');
    $self->kill_engine($_) for keys %{ $self->{pids} };
    remove_tree($self->{sockdir});
    $self->{finished} = 1;
}

sub DESTROY {
    my $self = shift;
    local ($?, $!);
    return if $self->{finished};
    kill 'KILL', keys %{ $self->{pids} };
    my $m = $self->master;
    kill 'TERM', $m if $m;
    remove_tree($self->{sockdir});
}

1;
