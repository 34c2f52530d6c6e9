#!/usr/bin/perl
# The style that a machine can check (shared rules of the house): prints TAP.
#   file <= 1,200 lines, header <= 200, function <= 70, line <= 100 (in ngx_module/ header <= 500,
#   line <= 80), no tabs, no trailing blanks, getenv only in main.c, no unfinished-work marks.

use strict;
use warnings;

my @bad;

sub check {
    my ($file) = @_;
    open(my $f, '<', $file) or die "$file: $!";
    my @line = <$f>;
    close $f;
    chomp @line;

    my $width = $file =~ m{^ngx_module/} ? 80 : 100;
    my $max   = $file =~ /\.h$/ ? ($file =~ m{^ngx_module/} ? 500 : 200) : 1200;
    push @bad, "$file: " . @line . " lines, at most $max" if @line > $max;

    my $open;
    for my $i (0 .. $#line) {
        my $at = "$file:" . ($i + 1);
        (my $text = $line[$i]) =~ s/[\x80-\xbf]//g;    # count characters, not bytes
        push @bad, "$at: longer than $width" if length($text) > $width;
        push @bad, "$at: tab" if $line[$i] =~ /\t/;
        push @bad, "$at: trailing blank" if $line[$i] =~ /[ \t]$/;
        push @bad, "$at: getenv" if $line[$i] =~ /\bgetenv\(/ && $file !~ m{main\.c$|^t/|^bench/};
        push @bad, "$at: mark" if $line[$i] =~ /\b(?:TODO|FIXME|XXX|HACK)\b/;
        $open = $i if $line[$i] eq '{';
        if ($line[$i] eq '}' && defined $open) {
            my $n = $i - $open + 1;
            push @bad, "$at: function of $n lines, at most 70" if $n > 72;
            undef $open;
        }
    }
}

chomp(my @files = `git ls-files '*.c' '*.h' '*.cu' '*.cuh'`);
check($_) for grep { -e } @files;

print "1..1\n", @bad ? "not ok" : "ok", " 1 - ", scalar @files, " files are tidy\n";
print "# $_\n" for @bad;
exit(@bad ? 1 : 0);
