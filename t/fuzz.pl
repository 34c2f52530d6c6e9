# Every fuzzer of t/fuzz for FUZZ_S seconds (60) over its corpus, one for each core at a time.
# What it finds stays in build/fuzz/found and makes the line fail; run the fuzzer on that file again
# and, when it is mended, keep the file in t/fuzz/corpus.

use strict;
use warnings;

use File::Path qw(make_path);
use Test::More;

my $s = $ENV{FUZZ_S} || 60;
my $build = 'build/fuzz';
chomp(my $cores = `nproc`);
my @todo = map { m{([^/]+)\.c$} } sort glob 't/fuzz/*.c';
my %pid;

# New inputs go to build/fuzz/corpus, so that a long run goes on where the last one stopped.
sub start {
    my $name = shift;
    my @dirs = ("$build/corpus/$name", "$build/found");

    make_path(@dirs);
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    open STDOUT, '>', "$build/$name.log" or die $!;
    open STDERR, '>&', \*STDOUT or die $!;
    exec "$build/$name", "-max_total_time=$s", '-timeout=60', '-max_len=16384', '-verbosity=0',
        '-print_final_stats=1', "-artifact_prefix=$build/found/$name-", $dirs[0],
        "t/fuzz/corpus/$name" or die "$build/$name: $!";
}

sub finish {
    my ($name, $status) = @_;
    open my $f, '<', "$build/$name.log" or die $!;
    my $log = join '', <$f>;
    my ($n) = $log =~ /number_of_executed_units:\s*(\d+)/;

    ok($status == 0 && $n, "$name: nothing in $s s, " . ($n // 0) . ' inputs')
        or diag(substr $log, -6000);
}

cmp_ok(scalar @todo, '>=', 9, 'fuzzers');
while (@todo || %pid) {
    while (@todo && keys %pid < $cores) {
        my $name = shift @todo;
        $pid{start($name)} = $name;
    }
    my $done = wait;
    finish(delete $pid{$done}, $?);
}
done_testing();
