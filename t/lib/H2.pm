package H2;

# HTTP/2 frame by frame, for what no well-behaved client does: windows that open late or never.
#
#     my $c = H2->new($port, 0);              # initial window of every stream, in bytes
#     my $id = $c->post('/path');             # a request with the body {}
#     $c->window($id, 1000);                  # let so many bytes come
#     $c->read(60, sub { $c->{ended}{$id} }); # take frames, for at most a minute
#
# Then {data}{id}, {ended}{id}, {reset}{id} (the error code) and {closed} hold what came.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

use constant { DATA => 0, HEADERS => 1, RST_STREAM => 3, SETTINGS => 4, WINDOW_UPDATE => 8 };
use constant { END_STREAM => 1, ACK => 1, END_HEADERS => 4, INITIAL_WINDOW_SIZE => 4 };

sub new {
    my ($class, $port, $window) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die "connect: $!";
    my $self = bless { s => $s, in => '', next => 1, data => {}, ended => {}, reset => {} }, $class;
    $s->autoflush(1);
    print $s "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    $self->frame(SETTINGS, 0, 0, pack 'nN', INITIAL_WINDOW_SIZE, $window);
    $self->window(0, 0x7fff0000);           # of the connection: as wide as it goes

    return $self;
}

sub frame {
    my ($self, $type, $flags, $id, $payload) = @_;
    my $s = $self->{s};
    print $s pack('xnCCN', length $payload, $type, $flags, $id), $payload;
}

sub window { my ($self, $id, $n) = @_; $self->frame(WINDOW_UPDATE, 0, $id, pack 'N', $n) }

# Fields of HPACK's static table: 3 is ":method: POST", 6 ":scheme: http"; 1 and 4 name
# ":authority" and ":path", with a literal value.
sub post {
    my ($self, $path) = @_;
    my $id = $self->{next};
    $self->{next} += 2;
    $self->{data}{$id} = '';
    $self->frame(HEADERS, END_HEADERS, $id,
                 "\x83\x86" . pack('C C/a*', 1, 'localhost') . pack('C C/a*', 4, $path));
    $self->frame(DATA, END_STREAM, $id, '{}');

    return $id;
}

sub take {
    my ($self, $type, $flags, $id, $payload) = @_;
    $self->{data}{$id} .= $payload if $type == DATA;
    $self->{ended}{$id} = 1 if ($type == DATA || $type == HEADERS) && $flags & END_STREAM;
    $self->{reset}{$id} = unpack 'N', $payload if $type == RST_STREAM;
    $self->frame(SETTINGS, ACK, 0, '') if $type == SETTINGS && !($flags & ACK);
}

sub read {
    my ($self, $limit, $until) = @_;
    my ($end, $sel) = (time + $limit, IO::Select->new($self->{s}));

    for (;;) {
        while (length $self->{in} >= 9) {
            my ($high, $low, $type, $flags, $id) = unpack 'CnCCN', $self->{in};
            my $n = ($high << 16) + $low;
            last if length $self->{in} < 9 + $n;
            $self->take($type, $flags, $id, substr $self->{in}, 9, $n);
            substr $self->{in}, 0, 9 + $n, '';
        }
        return 1 if $until->();
        return 0 if $self->{closed} || time >= $end;
        next if !$sel->can_read(0.05);
        $self->{closed} = 1 if !sysread $self->{s}, $self->{in}, 65536, length $self->{in};
    }
}

sub close { close $_[0]{s} }

1;
