#!/usr/bin/perl
# Run test programs and count: t/run.pl FILE... A file is a built C test, a *.t (perl) or a *.py;
# all speak TAP. asan:FILE runs it on build/asan, module and engine. The last line is "N passed,
# N failed, N skipped". A test that takes longer than TEST_TIMEOUT seconds hangs: it is ended, with
# all that it started, and counts as failed.

use strict;
use warnings;

use Cwd;
use TAP::Harness;

my $root = getcwd();        # $PWD may be absent, or another folder's (env -i, make -C)
my $harness = TAP::Harness->new({
    verbosity => $ENV{TEST_VERBOSE} ? 1 : 0,
    merge     => 0,
    timer     => 1,
    failures  => 1,
    exec      => sub {
        my (undef, $file) = @_;
        my @limit = ('t/helpers/within', $ENV{TEST_TIMEOUT} || 1800);
        push @limit, 'env', 'TEST_BUILD=build/asan', "TEST_NGINX_BINARY=$root/t/helpers/nginx-asan",
            'TEST_INFER_MODULE=build/asan/ngx_http_infer_module.so' if $file =~ s/^asan://;
        return [ @limit, 'perl', '-It/lib', $file ] if $file =~ /\.t$/;
        return [ @limit, 'build/venv/bin/python', $file ] if $file =~ /\.py$/;
        return [ @limit, 'perl', $file ] if $file =~ /\.pl$/;
        return [ @limit, $file ];
    },
});

my $agg = $harness->runtests(@ARGV);
my ($passed, $failed, $skipped) = (0, 0, scalar $agg->skipped);

# A program that dies, or prints no plan, is one failure more than its lines say.
for my $p ($agg->parsers) {
    my $bad = $p->failed;
    $bad++ if !$bad && ($p->exit || $p->wait || $p->parse_errors);
    $failed += $bad;
    $passed += $p->passed;
}

print "$passed passed, $failed failed, $skipped skipped\n";
exit($failed || !$passed ? 1 : 0);
