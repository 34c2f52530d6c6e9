/* automata_json.h - JSON by hand: five rules. */
#ifndef T_AUTOMATA_JSON_H
#define T_AUTOMATA_JSON_H

#include "automata.h"

/* One UTF-8 character of two and more bytes. */
static void auto_utf8(struct automata *a, uint32_t s, uint32_t to)
{
    uint32_t last = auto_state(a, false), two = auto_state(a, false), three = auto_state(a, false);
    uint32_t e0 = auto_state(a, false), ed = auto_state(a, false);
    uint32_t f0 = auto_state(a, false), f4 = auto_state(a, false);

    auto_edge(a, s, 0xc2, 0xdf, last);
    auto_edge(a, s, 0xe0, 0xe0, e0);
    auto_edge(a, s, 0xe1, 0xef, two);
    auto_edge(a, s, 0xed, 0xed, ed);
    auto_edge(a, s, 0xf0, 0xf0, f0);
    auto_edge(a, s, 0xf1, 0xf3, three);
    auto_edge(a, s, 0xf4, 0xf4, f4);
    auto_edge(a, last, 0x80, 0xbf, to);
    auto_edge(a, two, 0x80, 0xbf, last);
    auto_edge(a, three, 0x80, 0xbf, two);
    auto_edge(a, e0, 0xa0, 0xbf, last);
    auto_edge(a, ed, 0x80, 0x9f, last);
    auto_edge(a, f0, 0x90, 0xbf, two);
    auto_edge(a, f4, 0x80, 0x8f, two);
}

/* JSON without white space but one space behind ':' and ','. */
static struct grammar *automata_json(void)
{
    enum { VALUE, STRING, OBJECT, ARRAY, NUMBER };
    struct automata *a = automata_make();
    uint32_t s[24], end;

    for (int i = 0; i < 24; i++)
        s[i] = auto_state(a, false);
    end = auto_state(a, true);
    for (int i = 0; i < 5; i++)
        auto_rule(a, s[i]);

    auto_text(a, s[VALUE], "true", end);
    auto_text(a, s[VALUE], "false", end);
    auto_text(a, s[VALUE], "null", end);
    for (uint32_t r = STRING; r <= NUMBER; r++)
        auto_call(a, s[VALUE], r, end);

    auto_text(a, s[STRING], "\"", s[5]);
    auto_edge(a, s[5], 0x20, 0x7f, s[5]);
    auto_utf8(a, s[5], s[5]);
    auto_text(a, s[5], "\\", s[6]);
    auto_text(a, s[5], "\"", end);
    for (const char *p = "\"\\/bfnrt"; *p != 0; p++)
        auto_edge(a, s[6], (uint8_t) *p, (uint8_t) *p, s[5]);
    auto_text(a, s[6], "u", s[7]);
    for (int i = 7; i < 11; i++) {
        uint32_t to = i < 10 ? s[i + 1] : s[5];

        auto_edge(a, s[i], '0', '9', to);
        auto_edge(a, s[i], 'a', 'f', to);
        auto_edge(a, s[i], 'A', 'F', to);
    }

    auto_text(a, s[OBJECT], "{", s[11]);
    auto_text(a, s[11], "}", end);
    auto_call(a, s[11], STRING, s[12]);
    auto_text(a, s[12], ":", s[13]);
    auto_text(a, s[13], " ", s[14]);
    auto_call(a, s[13], VALUE, s[15]);
    auto_call(a, s[14], VALUE, s[15]);
    auto_text(a, s[15], "}", end);
    auto_text(a, s[15], ",", s[16]);
    auto_text(a, s[16], " ", s[17]);
    auto_call(a, s[16], STRING, s[12]);
    auto_call(a, s[17], STRING, s[12]);

    auto_text(a, s[ARRAY], "[", s[18]);
    auto_text(a, s[18], "]", end);
    auto_call(a, s[18], VALUE, s[19]);
    auto_text(a, s[19], "]", end);
    auto_text(a, s[19], ",", s[20]);
    auto_text(a, s[20], " ", s[21]);
    auto_call(a, s[20], VALUE, s[19]);
    auto_call(a, s[21], VALUE, s[19]);

    a->accept[s[23]] = true;
    auto_edge(a, s[NUMBER], '0', '9', s[23]);
    auto_text(a, s[NUMBER], "-", s[22]);
    auto_edge(a, s[22], '0', '9', s[23]);
    auto_edge(a, s[23], '0', '9', s[23]);
    return automata_end(a);
}

#endif
