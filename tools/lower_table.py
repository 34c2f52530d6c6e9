#!/usr/bin/env python3
"""Print the table of engine/text/lower.c: runs of code points, each the same distance from its
lower case, at steps of one or two. Simple mappings only: a capital I with a dot becomes an i."""
import unicodedata


def run_at(cased, i, step):
    j = i
    while j + 1 < len(cased) and cased[j + 1] == (cased[j][0] + step, cased[i][1]):
        j += 1
    return j


cased = [(c, ord(chr(c).lower()[0]) - c) for c in range(0x110000)
         if not 0xD800 <= c < 0xE000 and chr(c).lower() != chr(c)]
rows, i = [], 0
while i < len(cased):
    ends = [run_at(cased, i, 1), run_at(cased, i, 2)]
    step = 1 + (ends[1] > ends[0])
    rows.append("{ 0x%X, 0x%X, %d, %d }," % (cased[i][0], cased[max(ends)][0], step, cased[i][1]))
    i = max(ends) + 1

print("/* Unicode %s: first, last, step, distance */" % unicodedata.unidata_version)
line = "   "
for row in rows:
    if len(line) + 1 + len(row) > 99:
        print(line)
        line = "   "
    line += " " + row
print(line)
