#!/usr/bin/env python3
"""Print the tables of engine/grammar/category.c: for each general category of Unicode its runs of code
points, as the distance from the end of the run before and the length."""
import itertools
import unicodedata

LEFT_OUT = ("Cn", "Cs", "Co")

runs, at = {}, 0
for name, run in itertools.groupby(range(0x110000), key=lambda c: unicodedata.category(chr(c))):
    n = len(list(run))
    runs.setdefault(name, []).append((at, n))
    at += n

print("/* Unicode %s: gap, length, ... */" % unicodedata.unidata_version)
names = sorted(set(runs) - set(LEFT_OUT))
for name in names:
    print("static const uint32_t %s[] = {" % name)
    line, end = "   ", 0
    for first, n in runs[name]:
        item = " %d, %d," % (first - end, n)
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
        end = first + n
    print(line)
    print("};")
