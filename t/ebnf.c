/* t/ebnf.c - grammars as text: what they allow and what not, each refusal with its words and its
 * line, limits. */
#include "ebnf.h"
#include "grammar_text.h"
#include "tap.h"

#define TEXT_MAX 12

static struct err err;

static struct grammar *compile(const char *p, size_t n)
{
    struct grammar_make *m = grammar_make(0);
    struct grammar      *g;

    err = (struct err) { 0 };
    grammar_compile(&g, m, ebnf_gram(m, p, n), &err);
    grammar_make_free(m);
    return g;
}

struct row { const char *name, *text, *yes[TEXT_MAX], *no[TEXT_MAX]; };

static const struct row rows[] = {
    { "literal", "root ::= \"yes\"", { "yes" }, { "", "ye", "yess", "\"yes\"" } },
    { "alternatives", "root ::= \"a\" | \"bc\" |", { "a", "bc", "" }, { "abc" } },
    { "nothing but the empty text", "root ::=", { "" }, { "a" } },
    { "escapes in literals",
      "root ::= \"\\\"\\\\\\n\\r\\t\\x41\\u00e9\\U0001F600\\uD83D\\uDE00\\[\\-\xc3\xa9\"",
      { "\"\\\n\r\tA\xc3\xa9\xf0\x9f\x98\x80\xf0\x9f\x98\x80[-\xc3\xa9" }, { "" } },
    { "sets", "root ::= [a-z^\\]\\-] [^\\n\\x00-\\x1F\"\\\\] [-\\t]",
      { "a\xc3\xa9-", "^x\t", "]-\t", "-a-" }, { "A--", "a\"-", "a\\-", "a\n-", "a\1-", "aaa" } },
    { "any character", "root ::= . .", { "ab", "\n\xc3\xa9" }, { "a", "abc", "\xc3\xa9" } },
    { "counts", "root ::= \"a\"? \"b\"* \"c\"+ \"d\"{2} [e]{1,} (\"f\" \"g\"){0,2}",
      { "cdde", "abbccddeefgfg" }, { "dde", "cde", "cddefgfgfg", "cdd", "cddefgf" } },
    { "blanks in counts", "root ::= \"a\"{ 2 , 3 } \"b\" * \"c\"\n{1}",
      { "aac", "aaabbc" }, { "ac", "aaaac" } },
    { "groups", "root ::= (\"a\" | (\"b\" (\"c\" |))) ()\"d\"", { "ad", "bcd", "bd" }, { "cd" } },
    { "a count is of the last thing alone", "root ::= \"ab\"+ \"c\"", { "abc", "ababc" },
      { "abbc" } },
    { "rules before and after, names with - and _",
      "a-1 ::= \"x\"\nroot ::= a-1 b_2\nb_2 ::= \"y\" | a-1 b_2\n", { "xy", "xxxy" },
      { "x", "y", "xyy" } },
    { "many lines, comments, no line break at the end",
      "# one\nroot ::=  # two \"\n  \"a\"  # three | \"z\"\n  | \"b\"\n\n  | (\n \"c\"\n)#four",
      { "a", "b", "c" }, { "z", "ab" } },
    { "carriage returns and a rule's head on two lines", "\r\nroot\r\n::= a\r\na ::= \"b\"\r\n",
      { "b" }, { "a" } },
    { "two rules in a row", "root ::= a a ::= \"b\"", { "b" }, { "bb" } },

    { "arithmetic",
      "root  ::= (expr \"=\" ws term \"\\n\")+\n"
      "expr  ::= term ([-+*/] ws term)*\n"
      "term  ::= ident | num | \"(\" ws expr \")\" ws\n"
      "ident ::= [a-z] [a-z0-9_]* ws\n"
      "num   ::= [0-9]+ ws\n"
      "ws    ::= [ \\t\\n]*\n",
      { "1=1\n", "1 + 2 * x1= 7\n", "((a))=(b)\n", "1=2\n3=4\n" },
      { "1=1", "+1=1\n", "(1=1\n", "1+=2\n" } },
    { "JSON",
      "root   ::= object\n"
      "value  ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
      "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
      "array  ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
      "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" "
      "[0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
      "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]"
      "{0,15})? ws\n"
      "ws     ::= | \" \" | \"\\n\" [ \\t]{0,20}\n",
      { "{}", "{\"a\":1}", "{\"a\": [1, -2.5e7,{}], \"\\u00e9\\n\": \"\xc3\xa9\"}",
        "{\"a\":{\"b\":{\"c\":[[[null]]]}}}\n" },
      { "", "[]", "{\"a\":}", "{\"a\":01}", "{\"a\":\"\n\"}", "{\"a\":1,}", "{\"a\":[1}",
        "{a:1}" } },
    { "a list",
      "root ::= item+\n"
      "# a dash, a blank, words\n"
      "item ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"\n",
      { "- milk\n", "- a b\n- \xc3\xa9\n" }, { "- \n", "milk\n", "- milk", "- a\xe2\x80\xa8\n" } },
    { "chess",
      "root  ::= \"1. \" move \" \" move \"\\n\" ([1-9] [0-9]? \". \" move \" \" move \"\\n\")+\n"
      "move  ::= (pawn | piece | castle) [+#]?\n"
      "piece ::= [NBKQR] [1-8a-h]? \"x\"? square\n"
      "pawn  ::= ([a-h] \"x\")? square (\"=\" [NBKQR])?\n"
      "castle ::= \"O-O\" \"-O\"?\n"
      "square ::= [a-h] [1-8]\n",
      { "1. e4 e5\n2. Nf3 Nc6\n", "1. d4 Nf6\n2. cxd5 Qxd5+\n3. O-O O-O-O#\n" },
      { "1. e4 e5\n", "1. e9 e5\n2. a1 a1\n", "1. e4\n2. e5\n" } },
    { "right and middle recursion",
      "root ::= \"(\" root \")\" | \"a\" tail\ntail ::= \"b\" tail | \"\"\n",
      { "a", "((abb))", "(a)" }, { "", "(a", "a)", "()" } },
};

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        struct grammar   *g = compile(r->text, strlen(r->text));

        if (!ok(g != NULL, "%s %s", r->name, err.msg))
            continue;
        for (int k = 0; k < TEXT_MAX && r->yes[k] != NULL; k++)
            ok(text_matches(g, r->yes[k], strlen(r->yes[k])), "%s: %s", r->name,
               text_shown(r->yes[k]));
        for (int k = 0; k < TEXT_MAX && r->no[k] != NULL; k++)
            ok(!text_matches(g, r->no[k], strlen(r->no[k])), "%s: not %s", r->name,
               text_shown(r->no[k]));
        grammar_free(g);
    }
}

struct error { const char *text; int line; const char *why; };

static const struct error errors[] = {
    { "", 1, "there is no rule root" },
    { "# nothing\n", 1, "there is no rule root" },
    { "a ::= \"b\"\n", 1, "there is no rule root" },
    { "root ::= a\n  b\na ::= \"x\"", 2, "there is no rule b" },
    { "root ::= \"a\"\na ::= \"b\"\nroot ::= \"c\"", 3, "a second rule root" },
    { "\n\"a\"", 2, "a rule begins with its name and ::=" },
    { "root = \"a\"", 1, "a rule begins with its name and ::=" },
    { "root", 1, "a rule begins with its name and ::=" },
    { "start: \"a\" | b\n", 1, "Lark's syntax" },
    { "?start : \"a\"\n", 1, "Lark's syntax" },
    { "!start : \"a\"\n", 1, "Lark's syntax" },
    { "term.2: \"a\"\n", 1, "Lark's syntax" },
    { "%ignore \" \"\n", 1, "Lark's syntax" },
    { "// a comment\nstart: \"a\"", 1, "Lark's syntax" },
    { "root ::= \"a\"\n%import common.WS", 2, "Lark's syntax" },
    { "root ::= a\na: \"b\"", 2, "Lark's syntax" },
    { "root ::= /a+/", 1, "Lark's syntax" },
    { "root ::= \"a\"\n  ~ 3", 2, "Lark's syntax" },
    { "root ::= \"a\n\"", 1, "a literal that does not end on its line" },
    { "root ::= \"a", 1, "a literal that does not end on its line" },
    { "root ::= \"a\\\"", 1, "a literal that does not end on its line" },
    { "root ::= \"a\\", 1, "nothing follows the backslash" },
    { "root ::= \"a\\q\"", 1, "an escape that is not known" },
    { "root ::= \"\\d\"", 1, "a class in a literal" },
    { "root ::= \"\\xZ1\"", 1, "\\x takes 2" },
    { "root ::= \"\\U00110000\"", 1, "no such character" },
    { "root ::=\n [a", 2, "a set that has no end" },
    { "root ::=\n []", 2, "an empty set" },
    { "root ::=\n [z-a]", 2, "a range that ends before it begins" },
    { "root ::= \"a\" (\n\"b\"\n", 1, "a ( that is not closed" },
    { "root ::= (\"a\"\na ::= \"b\"\n", 1, "a ( that is not closed" },
    { "root ::= \"a\"\n)", 2, "a ) that closes nothing" },
    { "root ::= *", 1, "nothing to repeat" },
    { "root ::= \"a\" | +", 1, "nothing to repeat" },
    { "root ::= (?\"a\")", 1, "nothing to repeat" },
    { "root ::= {2}", 1, "nothing to repeat" },
    { "root ::= \"a\"**", 1, "a count of a count" },
    { "root ::= \"a\"\n+\n{2}", 3, "a count of a count" },
    { "root ::= \"a\"{}", 1, "a count is {m}, {m,} or {m,n}" },
    { "root ::= \"a\"{x}", 1, "a count is {m}, {m,} or {m,n}" },
    { "root ::= \"a\"{1", 1, "a count is {m}, {m,} or {m,n}" },
    { "root ::= \"a\"{,2}", 1, "write {0,n}" },
    { "root ::= \"a\"{2,1}", 1, "a count whose end is below its beginning" },
    { "root ::= \"a\"{65536}", 1, "a count above 65535" },
    { "root ::= <think>", 1, "token references" },
    { "root ::= \"a\" <[12]>", 1, "token references" },
    { "root ::= (=\"a\") \"a\"", 1, "look-ahead" },
    { "root ::= (!\"a\") \"b\"", 1, "look-ahead" },
    { "root ::= 'a'", 1, "neither a literal" },
    { "root ::= \"a\" ;", 1, "neither a literal" },
    { "root ::= \xc3\xa9", 1, "neither a literal" },
    { "root ::= \"a\"\n\xff", 1, "not UTF-8" },
};

static void test_errors(void)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        const struct error *r = &errors[i];
        struct grammar     *g = compile(r->text, strlen(r->text));
        char                place[64];

        snprintf(place, sizeof(place), "grammar, line %d: ", r->line);
        ok(g == NULL && strncmp(err.msg, place, strlen(place)) == 0
           && strstr(err.msg, r->why) != NULL, "%s: %s", text_shown(r->text), err.msg);
        grammar_free(g);
    }
}

/* What only the compiler finds names the rule. */
static void test_left_recursion(void)
{
    static const char *const left[] = { "root ::= list\nlist ::= list \"a\" | \"a\"",
                                        "root ::= list\nlist ::= (\"x\"? list \"a\")? \"b\"" };

    for (int i = 0; i < 2; i++) {
        struct grammar *g = compile(left[i], strlen(left[i]));

        ok(g == NULL && err.code == E_INVALID && strstr(err.msg, "list") != NULL,
           "left recursion: %s", err.msg);
        grammar_free(g);
    }
}

/* n rules, a chain from the root to the last. */
static struct grammar *chain(int n)
{
    struct buf      b = { 0 };
    struct grammar *g;

    buf_str(&b, "root ::= r1\n");
    for (int i = 1; i < n - 1; i++)
        buf_fmt(&b, "r%d ::= \"a\" r%d?\n", i, i + 1);
    buf_fmt(&b, "r%d ::= \"z\"\n", n - 1);
    g = compile(b.p, b.n);
    buf_free(&b);
    return g;
}

static void test_limits(void)
{
    struct buf      b = text_many("root ::= ", "(\"a\"", ")?", 9 + 6 * EBNF_DEPTH_MAX);
    struct grammar *g = compile(b.p, b.n);

    ok(g != NULL && text_matches(g, "aaaa", 4), "parentheses as deep as may be %s", err.msg);
    grammar_free(g);
    buf_free(&b);
    b = text_many("root ::= ", "(\"a\"", ")?", 9 + 6 * (EBNF_DEPTH_MAX + 1));
    g = compile(b.p, b.n);
    ok(g == NULL && err.code == E_FULL && strstr(err.msg, "more than 128 parentheses") != NULL,
       "one deeper: %s", err.msg);
    buf_free(&b);

    g = chain(GRAMMAR_RULE_MAX);
    ok(g != NULL && text_matches(g, "aaaa", 4) && !text_matches(g, "aaz", 3),
       "as many rules as may be %s", err.msg);
    grammar_free(g);
    g = chain(GRAMMAR_RULE_MAX + 1);
    ok(g == NULL && err.code == E_FULL && strstr(err.msg, "rules") != NULL, "one more: %s",
       err.msg);

    b = text_many("root ::= \"a\" #", "x", "", EBNF_BYTES_MAX);
    g = compile(b.p, b.n);
    ok(g != NULL, "as long as may be %s", err.msg);
    grammar_free(g);
    buf_str(&b, "x");
    g = compile(b.p, b.n);
    ok(g == NULL && err.code == E_FULL && strstr(err.msg, "262144") != NULL, "one byte longer: %s",
       err.msg);
    buf_free(&b);
}

/* As in t/regex.c: 50 ms, of which a busy machine may make seconds. */
static void test_bombs(void)
{
    static const struct { const char *begin, *middle, *end; size_t n; } bombs[] = {
        { "root ::= (\"a\"|\"b\")* \"a\" ", "(\"a\"|\"b\")", "", 4000 },
        { "a ::= \"x\"\nroot ::= ", "a ", "", EBNF_BYTES_MAX },
        { "root ::= \"a\"", "|\"a\"", "", EBNF_BYTES_MAX },
        { "root ::= \"b\"", "|\"a\" root", "", EBNF_BYTES_MAX },
        { "root ::= ", "[^a]", "", EBNF_BYTES_MAX },
        { "root ::= ", "[\\p{L}]", "", EBNF_BYTES_MAX },
        { "root ::= ", "(", "\"a\"){9}", 1000 },
        { "root ::= ", "(", "\"a\"*)*", 800 },
        { "a ::= b{65535}\nb ::= c{65535}\nc ::= \"x\" root?\nroot ::= a{65535}", " ", "", 100 },
        { "root ::= \"a\"", " #\n", "", EBNF_BYTES_MAX },
    };

    for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
        struct buf           b = text_many(bombs[i].begin, bombs[i].middle, bombs[i].end,
                                           bombs[i].n);
        uint64_t             from = text_now_ns();
        struct grammar_make *m = grammar_make(from + 50000000);
        struct grammar      *g;

        err = (struct err) { 0 };
        grammar_compile(&g, m, ebnf_gram(m, b.p, b.n), &err);
        ok((g != NULL || err.code == E_FULL) && text_now_ns() - from < 5000000000,
           "%s %s: %s", text_shown(bombs[i].begin), text_shown(bombs[i].middle), err.msg);
        grammar_make_free(m);
        grammar_free(g);
        buf_free(&b);
    }
}

/* Cut at each byte: a grammar or words, never anything else. */
static void test_cut(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool good = true;

        for (size_t n = 0; n < strlen(rows[i].text); n++) {
            char           *cut = malloc(n > 0 ? n : 1);
            struct grammar *g;

            memcpy(cut, rows[i].text, n);
            g = compile(cut, n);
            good = good && (g != NULL) == (err.msg[0] == '\0');
            grammar_free(g);
            free(cut);
        }
        ok(good, "%s: cut anywhere", rows[i].name);
    }
}

int main(void)
{
    test_rows();
    test_errors();
    test_left_recursion();
    test_limits();
    test_bombs();
    test_cut();
    return done_testing();
}
