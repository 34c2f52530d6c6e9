/* t/schema.c - grammars made of JSON Schemas: each keyword at its edges, recursion, calls, and the
 * words of all refusals. In texts of calls <|"|> is the token. */
#include "grammar_text.h"
#include "schema.h"

#define QUOTE 7
#define MARK  "<|\"|>"
#define J     SCHEMA_JSON
#define T     SCHEMA_JSON_TIGHT
#define C     SCHEMA_CALL

static const struct json_limits lim = { 1 << 24, 128, 1 << 20 };

struct row { const char *schema; enum schema_as as; const char *yes[16], *no[20]; };

static const struct row rows[] = {
    /* any value */
    { "true", T, { "null", "true", "false", "0", "-0", "1e5", "\"\"", "[]", "{}",
                   "[1,[{\"a\":[]}],\"b\"]", "{\"\\u0061\":{\"b\":null}}" },
      { "", "nul", "01", "+1", ".5", "1.", "[1,]", "{\"a\"}", "{a:1}", "[1 ]", "[1, 2]", " 1",
        "\"\n\"", "\"\\x\"" } },
    { "{}", J, { "[1, 2]", "[1,2]", "{\"a\": 1, \"b\":2}" },
      { "[1,  2]", "[ 1]", "{\"a\" :1}", "{ }", "[1]\n" } },
    { "{\"title\":\"t\",\"default\":1,\"x-own\":[],\"$id\":\"i\",\"minimum\":null}",
      J, { "\"x\"", "7" }, { "x" } },

    /* strings */
    { "{\"type\":\"string\"}", J,
      { "\"\"", "\"a\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\u00e9\\uD7FF\\uE000\\uffff\"",
        "\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"", "\"\x7f\"" },
      { "", "\"", "a", "\"\\ud83d\"", "\"\\ud83d\\n\"", "\"\\ude00\"", "\"\\u12g4\"", "\"\x01\"",
        "\"\xff\"", "\"\xed\xa0\x80\"", "\"\t\"", "null", "\"a\" " } },
    { "{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}", J,
      { "\"ab\"", "\"abc\"", "\"\\n\\u0041\"", "\"\\ud83d\\ude00\xc3\xa9z\"" },
      { "\"\"", "\"a\"", "\"abcd\"", "\"\\u0041\"", "\"\\ud83d\\ude00\"" } },
    { "{\"type\":\"string\",\"maxLength\":0}", J, { "\"\"" }, { "\"a\"", "\"\\n\"" } },
    { "{\"type\":\"string\",\"minLength\":1.0,\"maxLength\":1e0}", J, { "\"a\"" },
      { "\"\"", "\"ab\"" } },
    { "{\"type\":\"string\",\"maxLength\":1e300}", J, { "\"a\"" }, { "1" } },
    { "{\"maxLength\":1}", J, { "\"a\"", "12", "[1]", "{\"abc\":null}", "null" }, { "\"ab\"" } },
    { "{\"type\":\"string\",\"pattern\":\"^a+\"}", J, { "\"a\"", "\"aab\"" },
      { "\"\"", "\"ba\"" } },
    { "{\"type\":\"string\",\"pattern\":\"[\\\"\\n]\"}", J, { "\"a\\\"b\"", "\"\\n\"" },
      { "\"a\"", "\"\\u0022\"" } },
    { "{\"type\":\"string\",\"format\":\"date\",\"minLength\":10,\"maxLength\":10}", J,
      { "\"2024-02-29\"", "\"2000-02-29\"", "\"2023-12-31\"" },
      { "\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-00-10\"",
        "\"23-01-01\"", "\"2023-01-01 \"", "\"\"" } },
    { "{\"type\":\"string\",\"format\":\"date-time\"}", J,
      { "\"2024-01-01T23:59:59Z\"", "\"2024-01-01T00:00:00.5+14:00\"" },
      { "\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\"",
        "\"2024-01-01T00:60:00Z\"" } },
    { "{\"type\":\"string\",\"format\":\"ipv4\"}", J, { "\"0.0.0.0\"", "\"255.199.20.1\"" },
      { "\"256.0.0.0\"", "\"1.2.3\"", "\"01.2.3.4\"", "\"1.2.3.4.5\"" } },
    { "{\"type\":\"string\",\"format\":\"ipv6\"}", J,
      { "\"::\"", "\"::1\"", "\"1::\"", "\"1:2:3:4:5:6:7:8\"", "\"1::3:4:5:6:7:8\"" },
      { "\":\"", "\"1:2:3:4:5:6:7\"", "\"1::2::3\"", "\"12345::\"",
        "\"1:2:3:4:5:6:7:8:9\"" } },
    { "{\"type\":\"string\",\"format\":\"uuid\"}", J,
      { "\"123e4567-e89b-12d3-a456-42661417400F\"" },
      { "\"123e4567e89b12d3a456426614174000\"", "\"123e4567-e89b-12d3-a456-42661417400g\"" } },
    { "{\"type\":\"string\",\"format\":\"email\"}", J, { "\"a@b.cd\"", "\"a.b+c@x-y.example\"" },
      { "\"a\"", "\"a@b\"", "\"@b.cd\"", "\"a@.cd\"", "\"a@-b.cd\"", "\"a..b@c.de\"" } },
    { "{\"type\":\"string\",\"format\":\"duration\"}", J, { "\"P1D\"", "\"P1Y2M3DT4H5M6S\"",
      "\"PT9M\"", "\"P2W\"" }, { "\"P\"", "\"P1DT\"", "\"1D\"", "\"PT1D\"", "\"P1W2D\"" } },
    { "{\"type\":\"string\",\"format\":\"time\"}", J, { "\"00:00:00Z\"" }, { "\"00:00:00\"" } },
    { "{\"type\":\"string\",\"format\":\"hostname\"}", J, { "\"a\"", "\"a-1.b\"" },
      { "\"\"", "\"-a\"", "\"a-\"", "\"a..b\"", "\"a_b\"" } },
    { "{\"type\":\"string\",\"format\":\"uri\",\"minLength\":1,\"maxLength\":2083}", J,
      { "\"http://a/b?c#d\"", "\"urn:a:%20\"" }, { "\"a b:c\"", "\"//a\"", "\"a:%2\"", "\"a\"" } },
    { "{\"type\":\"string\",\"format\":\"phone\",\"maxLength\":2}", J, { "\"ab\"" },
      { "\"abc\"" } },
    { "{\"type\":\"integer\",\"format\":\"int32\",\"allOf\":[{\"format\":\"int64\"}]}", J, { "5" },
      { "\"5\"" } },
    { "{\"type\":\"string\",\"format\":\"email\",\"pattern\":\"^x$\"}", J, { "\"x\"" },
      { "\"a@b.cd\"" } },

    /* numbers */
    { "{\"type\":\"integer\"}", J, { "0", "-0", "12345678901234567890", "-9" },
      { "123456789012345678901", "01", "1.0", "1e3", "--1", "-" } },
    { "{\"type\":\"number\"}", J,
      { "0", "-0.0", "1.5e-300", "12345678901234567890.12345678901234567890E+999", "7e1" },
      { "1.", ".5", "1e", "1e1000", "0.123456789012345678901", "00.1", "Infinity", "NaN" } },
    { "{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}", J,
      { "-12", "-9", "-1", "0", "9", "10", "99", "100", "105" },
      { "-13", "-20", "-0", "106", "110", "200", "1000", "00", "5.0" } },
    { "{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":11}", J, { "10" },
      { "9", "11", "1", "100" } },
    { "{\"type\":\"integer\",\"minimum\":1.5,\"maximum\":2.5}", J, { "2" }, { "1", "3" } },
    { "{\"type\":\"integer\",\"minimum\":-2.5,\"maximum\":-1.5}", J, { "-2" },
      { "-1", "-3", "2" } },
    { "{\"type\":\"integer\",\"minimum\":1e3,\"maximum\":1003.0}", J, { "1000", "1003" },
      { "999", "1004", "1e3" } },
    { "{\"type\":\"integer\",\"minimum\":99999999999999999998}", J,
      { "99999999999999999998", "99999999999999999999" },
      { "99999999999999999997", "9999999999999999999", "100000000000000000000" } },
    { "{\"type\":\"integer\",\"maximum\":-99999999999999999999}", J, { "-99999999999999999999" },
      { "-99999999999999999998", "99999999999999999999" } },
    { "{\"type\":\"integer\",\"maximum\":1e400,\"minimum\":-1e400}", J,
      { "0", "-5", "99999999999999999999" }, { "100000000000000000000" } },
    { "{\"type\":\"integer\",\"minimum\":5,\"exclusiveMinimum\":true,\"maximum\":8,"
      "\"exclusiveMaximum\":false}", J, { "6", "8" }, { "5", "9" } },
    { "{\"type\":\"integer\",\"minimum\":3,\"exclusiveMinimum\":3}", J, { "4" }, { "3" } },
    { "{\"type\":\"number\",\"minimum\":0}", J, { "0", "0.0", "0.00000000000001", "5", "123.5" },
      { "-0", "-0.1", "-1", "1e5", "0.000000000000001" } },
    { "{\"type\":\"number\",\"minimum\":-0.05,\"maximum\":1.25}", J,
      { "-0.05", "-0.049", "-0.0500", "0", "0.99", "1", "1.2", "1.25", "1.2500" },
      { "-0.051", "-0.06", "-1", "1.26", "1.2501", "1.3", "2", "10", "-0.0" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":0.5,\"exclusiveMaximum\":2}", J,
      { "0.51", "0.5001", "1", "1.99999999999999" }, { "0.5", "0.50", "2", "2.0", "0.4", "0" } },
    { "{\"type\":\"number\",\"exclusiveMinimum\":0}", J, { "0.1", "1", "0.00000000000001" },
      { "0", "0.0", "0.00", "-1" } },
    { "{\"type\":\"number\",\"exclusiveMaximum\":0}", J, { "-0.1", "-1" }, { "0", "-0", "-0.0" } },
    { "{\"type\":\"number\",\"maximum\":0,\"minimum\":0}", J, { "0", "0.0" }, { "0.1", "-0" } },
    { "{\"type\":\"number\",\"minimum\":1e-30,\"maximum\":0.1}", J, { "0.1", "0.01" },
      { "0", "0.11" } },
    { "{\"type\":\"number\",\"multipleOf\":1.0,\"minimum\":-1.5}", J, { "-1", "0", "7" },
      { "-2", "0.5" } },
    { "{\"minimum\":5}", J, { "5", "\"a\"", "null", "[4]" }, { "4" } },

    /* enum, const */
    { "{\"enum\":[1,1.0,\"a\",null,{\"b\":[true,{}],\"a\":\"\\u0001\\\"\"},[]]}", J,
      { "1", "1.0", "\"a\"", "null", "{\"b\":[true,{}],\"a\":\"\\u0001\\\"\"}", "[]" },
      { "1.00", "\"b\"", "{\"a\":\"\\u0001\\\"\",\"b\":[true,{}]}", "{\"b\": [true,{}]}", "[ ]" } },
    { "{\"const\":null}", J, { "null" }, { "\"null\"", "" } },
    { "{\"enum\":[1,2.5,\"x\",\"xyz\",null,7,3.0],\"type\":[\"integer\",\"string\"],\"maximum\":5,"
      "\"maxLength\":2}", J, { "1", "\"x\"", "3.0" }, { "2.5", "\"xyz\"", "null", "7" } },
    { "{\"type\":\"string\",\"nullable\":true,\"enum\":[\"a\",null]}", J, { "\"a\"", "null" },
      { "\"b\"" } },
    { "{\"allOf\":[{\"enum\":[1,2,3]},{\"enum\":[3,2.0,5]},{\"const\":2}]}", J, { "2" },
      { "1", "3", "2.0" } },

    /* objects */
    { "{\"type\":\"object\"}", J, { "{}", "{\"a\":1,\"a\": {\"b\":[]}}" }, { "[]", "1", "{,}" } },
    { "{\"type\":\"object\",\"properties\":{}}", J, { "{}" }, { "{\"a\":1}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},"
      "\"c\":{\"const\":3}}}", J,
      { "{}", "{\"a\":1}", "{\"b\":2}", "{\"c\":3}", "{\"a\":1,\"c\":3}",
        "{\"a\": 1, \"b\": 2, \"c\": 3}" },
      { "{\"b\":2,\"a\":1}", "{\"a\":1,\"a\":1}", "{\"a\":1,}", "{,\"b\":2}", "{\"d\":1}",
        "{\"a\":2}", "{\"a\":1\"b\":2}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2},"
      "\"c\":{\"const\":3}},\"required\":[\"b\"]}", J,
      { "{\"b\":2}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":3}", "{\"a\":1,\"b\":2,\"c\":3}" },
      { "{}", "{\"a\":1}", "{\"a\":1,\"c\":3}" } },
    { "{\"properties\":{\"a\":{\"type\":\"null\"}},\"required\":[\"z\",\"a\",\"y\"]}", J,
      { "{\"a\":null,\"z\":[1],\"y\":{}}", "5", "[]" },
      { "{\"a\":null}", "{\"z\":1,\"a\":null,\"y\":1}", "{\"a\":null,\"y\":1,\"z\":1}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}},\"additionalProperties\":"
      "{\"type\":\"boolean\"},\"required\":[\"r\"]}", J,
      { "{\"r\":true}", "{\"a\":1,\"r\":true,\"x\":false,\"y\":true}", "{\"r\":true,\"aa\":true}",
        "{\"r\":true,\"\":true}", "{\"r\":true,\"A\":true,\"\xc3\xa9\\n\":true}" },
      { "{\"r\":true,\"a\":1}", "{\"r\":true,\"a\":true}", "{\"r\":true,\"\\u0061\":true}",
        "{\"x\":true,\"r\":true}", "{\"r\":1}", "{\"r\":true,\"x\":1}", "{\"r\":true,\"r\":true}",
        "{}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\\\"\\\\\":{\"const\":1},\"a\\\"\":{\"const\":2}},"
      "\"additionalProperties\":true}", J,
      { "{\"a\\\"\\\\\":1,\"a\\\"\":2,\"a\":3,\"a\\\\\":3,\"a\\\"\\\"\":3,\"a\\\"\\\\x\":3}" },
      { "{\"a\\\"\":2,\"a\\\"\\\\\":3}", "{\"a\\\"\":2,\"a\\\"\":3}" } },
    { "{\"type\":\"object\",\"additionalProperties\":{\"const\":1},\"minProperties\":1,"
      "\"maxProperties\":2}", J, { "{\"a\":1}", "{\"a\":1,\"b\":1}" },
      { "{}", "{\"a\":1,\"b\":1,\"c\":1}", "{\"a\":2}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1},\"b\":{\"const\":2}},"
      "\"minProperties\":1,\"maxProperties\":2}", J,
      { "{\"a\":1}", "{\"b\":2}", "{\"a\":1,\"b\":2}" }, { "{}" } },
    { "{\"type\":\"object\",\"maxProperties\":0}", J, { "{}" }, { "{\"a\":1}" } },
    { "{\"type\":\"object\",\"minProperties\":1}", J, { "{\"a\":1}", "{\"a\":1,\"b\":1}" },
      { "{}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}},\"required\":[\"a\"],"
      "\"additionalProperties\":{\"const\":2},\"minProperties\":1,\"maxProperties\":2}", J,
      { "{\"a\":1}", "{\"a\":1,\"b\":2}" }, { "{}", "{\"b\":2}", "{\"a\":1,\"b\":2,\"c\":2}" } },
    { "{\"type\":\"object\",\"required\":[\"a\"],\"maxProperties\":1}", J, { "{\"a\":[]}" },
      { "{}", "{\"a\":1,\"b\":1}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"a\"],\"minProperties\":1,"
      "\"maxProperties\":1}", J, { "{\"a\":1}" }, { "{}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":{\"const\":1}},"
      "\"additionalProperties\":true}", J, { "{}", "{\"b\":1,\"c\":1}" },
      { "{\"a\":1}", "{\"b\":1,\"a\":1}" } },
    { "{\"type\":\"object\",\"patternProperties\":{\"^x\":{\"const\":1}}}", J,
      { "{}", "{\"x\":1,\"xy\": 1}" }, { "{\"y\":1}", "{\"x\":2}" } },
    { "{\"type\":\"object\",\"properties\":{\"a\":true},\"patternProperties\":{}}", J,
      { "{\"a\":[1]}" }, { "{\"b\":1}" } },

    /* arrays */
    { "{\"type\":\"array\"}", J, { "[]", "[1, \"a\", [null]]" }, { "{}", "[,]" } },
    { "{\"type\":\"array\",\"items\":{\"const\":1},\"minItems\":1,\"maxItems\":3}", J,
      { "[1]", "[1,1]", "[1, 1,1]" }, { "[]", "[1,1,1,1]", "[2]", "[1,]" } },
    { "{\"type\":\"array\",\"items\":{\"const\":1},\"maxItems\":0}", J, { "[]" }, { "[1]" } },
    { "{\"type\":\"array\",\"items\":{\"const\":1},\"minItems\":2}", J, { "[1,1]", "[1,1,1]" },
      { "[]", "[1]" } },
    { "{\"type\":\"array\",\"items\":false}", J, { "[]" }, { "[1]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}]}", J,
      { "[]", "[1]", "[1,2]" }, { "[2]", "[1,1]", "[1,2,3]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3},"
      "\"minItems\":1,\"maxItems\":4}", J, { "[1]", "[1,2]", "[1,2,3]", "[1,2,3,3]" },
      { "[]", "[3]", "[1,2,2]", "[1,2,3,3,3]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"minItems\":3}", J,
      { "[1,\"a\",{}]", "[1,2,3,4]" }, { "[1]", "[1,2]", "[2,2,2]" } },
    { "{\"type\":\"array\",\"prefixItems\":[{\"const\":1},false,{\"const\":3}]}", J,
      { "[]", "[1]" }, { "[1,3]", "[1,2]", "[1,2,3]" } },
    { "{\"type\":\"array\",\"items\":[{\"const\":1}],\"additionalItems\":{\"const\":2}}", J,
      { "[]", "[1]", "[1,2,2]" }, { "[2]", "[1,1]" } },
    { "{\"allOf\":[{\"type\":\"array\",\"items\":{\"minimum\":3}},{\"prefixItems\":[{\"type\":"
      "\"integer\"}],\"items\":{\"enum\":[2,4]}}]}", J, { "[]", "[3]", "[7,4,4]" },
      { "[2]", "[3,2]", "[\"a\"]" } },

    /* combinations */
    { "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"integer\",\"minimum\":5},{\"const\":\"a\"}]}",
      J, { "null", "5", "\"a\"" }, { "4", "\"b\"", "true" } },
    { "{\"oneOf\":[{\"const\":1},{\"const\":1},false]}", J, { "1" }, { "2" } },
    { "{\"type\":\"integer\",\"anyOf\":[{\"maximum\":3},{\"minimum\":7},{\"type\":\"string\"}],"
      "\"oneOf\":[{\"minimum\":2},{\"maximum\":-2}]}", J, { "2", "3", "7", "-2", "-50" },
      { "1", "4", "6", "-1", "\"a\"" } },
    { "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"minimum\":1}},\"required\":[\"a\"]"
      "},{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"const\":2}}}]}", J,
      { "{\"a\":1}", "{\"a\":1,\"b\":2}" }, { "{\"a\":0}", "{\"a\":1.5}", "{}", "{\"b\":2}" } },
    { "{\"allOf\":[{\"properties\":{\"a\":{\"const\":1}},\"additionalProperties\":false},"
      "{\"properties\":{\"b\":{\"const\":2}}}],\"type\":\"object\"}", J, { "{}", "{\"a\":1}" },
      { "{\"b\":2}", "{\"a\":1,\"b\":2}" } },
    { "{\"type\":[\"number\",\"null\"],\"allOf\":[{\"type\":[\"integer\",\"null\",\"string\"]}]}",
      J, { "1", "null" }, { "1.5", "\"a\"" } },
    { "{\"type\":\"STRING\",\"nullable\":true}", J, { "\"a\"", "null" }, { "1" } },
    { "{\"nullable\":true,\"enum\":[1]}", J, { "1" }, { "null" } },

    /* references */
    { "{\"$ref\":\"#/definitions/a\",\"definitions\":{\"a\":{\"$ref\":\"#/definitions/b\"},"
      "\"b\":{\"type\":\"boolean\"}}}", J, { "true" }, { "1" } },
    { "{\"$defs\":{\"s\":{\"type\":\"string\"}},\"$ref\":\"#/$defs/s\",\"maxLength\":1}", J,
      { "\"a\"" }, { "\"ab\"", "1" } },
    { "{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", J, { "[]", "[[],[[[]], []]]" },
      { "[1]", "[[]" } },
    { "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"const\":1},\"l\":{\"anyOf\":"
      "[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"l\"]}},"
      "\"$ref\":\"#/$defs/n\"}", J,
      { "{\"l\":null}", "{\"v\":1,\"l\":{\"v\":1,\"l\":{\"l\":null}}}" },
      { "{}", "{\"l\":{}}", "{\"l\":{\"l\":null}" } },
    { "{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}]}", J,
      { "null", "[[null],null]" }, { "1" } },

    { "{\"anyOf\":[{\"type\":\"boolean\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#/anyOf/0\"}}"
      "]}", J,
      { "true", "[false]" }, { "[[]]", "[1]" } },
    { "{\"$defs\":{\"a/b~ /\xc3\xa9%~2\":{\"const\":1}},\"type\":\"array\",\"minItems\":1,"
      "\"prefixItems\":[{\"$ref\":\"#/$defs/a~1b~0%20%7E1%c3%a9%~2\"}]}", J,
      { "[1]" }, { "[2]", "[]" } },

    /* calls */
    { "true", C, { "{}", "{a:1}", "{a b:null,\xc3\xa9:[" MARK "x" MARK ",{}]}" },
      { "[]", "1", MARK MARK, "{ a:1}", "{a :1}", "{a: 1}", "{:1}", "{a:x}", "{\"a\":\"x\"}" } },
    { "{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"string\"},"
      "\"A\":{\"type\":\"integer\"},\"_\":{\"type\":\"boolean\"}}}", C,
      { "{}", "{A:1,b:" MARK "x\"\\\n{}" MARK "}", "{_:true,A:0}" },
      { "{b:" MARK MARK ",A:1}", "{A:1,_:true}", "{A:1, b:" MARK MARK "}", "{b:x}", "{b:\"x\"}" } },
    { "{\"properties\":{\"s\":{\"enum\":[\"a,}\",5,null,{\"z\":\"q\",\"B\":[1,\"x\"]}]}},"
      "\"required\":[\"s\"]}", C,
      { "{s:" MARK "a,}" MARK "}", "{s:5}", "{s:null}",
        "{s:{B:[1," MARK "x" MARK "],z:" MARK "q" MARK "}}" },
      { "{}", "{s:a,}}", "{s:{z:" MARK "q" MARK ",B:[1," MARK "x" MARK "]}}" } },
    { "{\"properties\":{\"s\":{\"maxLength\":2,\"type\":\"string\"}},\"required\":[\"s\"]}", C,
      { "{s:" MARK "\\\"" MARK "}", "{s:" MARK "\xf0\x9f\x98\x80\n" MARK "}" },
      { "{s:" MARK "abc" MARK "}" } },
    { "{\"properties\":{\"a:b\":{\"const\":1},\" c\":{\"const\":2},\"d e\":{\"const\":3}},"
      "\"required\":[\"a:b\",\" c\",\"d e\"]}", C,
      { "{" MARK " c" MARK ":2," MARK "a:b" MARK ":1,d e:3}" },
      { "{" MARK "a:b" MARK ":1," MARK " c" MARK ":2,d e:3}" } },
    { "{\"properties\":{\"m\":{\"const\":1}},\"required\":[\"z\",\"B\"],\"additionalProperties\":"
      "{\"type\":\"boolean\"}}", C,
      { "{B:true,z:false}", "{B:true,m:1,z:true,a:true,mm:false}" },
      { "{m:1,B:true,z:true}", "{B:true,z:true,m:true}", "{B:true,z:1}" } },
    { "{\"properties\":{\"p\":{\"type\":\"string\",\"pattern\":\"^\\\"\\\\n?$\"}},"
      "\"required\":[\"p\"]}", C, { "{p:" MARK "\"" MARK "}", "{p:" MARK "\"\n" MARK "}" },
      { "{p:" MARK "\\\"" MARK "}" } },
    { "{\"patternProperties\":{\"^a\":{\"const\":1}}}", C, { "{}", "{" MARK "a:" MARK ":1}" },
      { "{a:1}" } },
};

struct refusal { const char *schema, *words; enum schema_as as; };

static const struct refusal refusals[] = {
    /* by name */
    { "{\"not\":{}}", "#: 'not' cannot be enforced", J },
    { "{\"properties\":{\"x\":{\"uniqueItems\":true}}}",
      "#/properties/x: 'uniqueItems' cannot be enforced", J },
    { "{\"properties\":{\"a/b~c\":{\"items\":{\"contains\":{}}}}}",
      "#/properties/a~1b~0c/items: 'contains' cannot be enforced", J },
    { "{\"anyOf\":[{},{\"if\":{}}]}", "#/anyOf/1: 'if' cannot be enforced", J },
    { "{\"dependencies\":{}}", "#: 'dependencies' cannot be enforced", J },
    { "{\"dependentRequired\":{}}", "#: 'dependentRequired' cannot be enforced", J },
    { "{\"dependentSchemas\":{}}", "#: 'dependentSchemas' cannot be enforced", J },
    { "{\"propertyNames\":{}}", "#: 'propertyNames' cannot be enforced", J },
    { "{\"unevaluatedProperties\":false}", "#: 'unevaluatedProperties' cannot be enforced", J },
    { "{\"unevaluatedItems\":{}}", "#: 'unevaluatedItems' cannot be enforced", J },
    { "{\"$dynamicRef\":\"#a\"}", "#: '$dynamicRef' cannot be enforced", J },
    { "{\"$recursiveRef\":\"#\"}", "#: '$recursiveRef' cannot be enforced", J },
    { "{\"multipleOf\":0.01}", "#: 'multipleOf' cannot be enforced, but of 1", J },
    { "{\"multipleOf\":1.5}", "#: 'multipleOf' cannot be enforced, but of 1", J },
    { "{\"pattern\":\"a\",\"maxLength\":5}", "#: 'maxLength' beside 'pattern' cannot be enforced",
      J },
    { "{\"pattern\":\"a\",\"minLength\":5}", "#: 'minLength' beside 'pattern' cannot be enforced",
      J },
    { "{\"pattern\":\"a\",\"allOf\":[{\"pattern\":\"b\"}]}",
      "#/allOf/0: 'pattern' beside another cannot be enforced", J },
    { "{\"format\":\"uuid\",\"maxLength\":35}",
      "#: 'format' beside lengths other than 36 to 36 cannot be enforced", J },
    { "{\"enum\":[\"a\"],\"pattern\":\"a\"}", "#: 'pattern' beside 'enum' cannot be enforced", J },
    { "{\"enum\":[[]],\"items\":{}}", "#: 'items' beside 'enum' cannot be enforced", J },
    { "{\"enum\":[{}],\"required\":[]}", "#: 'properties' beside 'enum' cannot be enforced", J },
    { "{\"properties\":{\"a\":true},\"patternProperties\":{\"b\":{}}}",
      "#: 'patternProperties' cannot be enforced, but for one pattern and nothing beside it", J },
    { "{\"patternProperties\":{\"a\":{},\"b\":{}}}",
      "#: 'patternProperties' cannot be enforced, but for one pattern and nothing beside it", J },
    { "{\"type\":\"object\",\"minProperties\":2}",
      "#: 'minProperties' cannot be enforced here", J },
    { "{\"properties\":{\"a\":true},\"additionalProperties\":true,\"maxProperties\":2}",
      "#: 'maxProperties' cannot be enforced here", J },
    { "{\"properties\":{\"a\":true,\"b\":true},\"minProperties\":2}",
      "#: 'minProperties' cannot be enforced here", J },
    { "{\"properties\":{\"a\":true,\"b\":true},\"maxProperties\":1}",
      "#: 'maxProperties' cannot be enforced here", J },

    /* nothing is allowed */
    { "false", "#: nothing is allowed: the schema is false", J },
    { "{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}",
      "#: nothing is allowed: minLength is above maxLength", J },
    { "{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}",
      "#: nothing is allowed: an array of it must have more elements than it can have", J },
    { "{\"type\":\"array\",\"items\":false,\"minItems\":1}",
      "#: nothing is allowed: an array of it must have more elements than it can have", J },
    { "{\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":1.1,\"maximum\":1.9}}}",
      "#/properties/a: nothing is allowed: no number is within the bounds", J },
    { "{\"type\":\"number\",\"minimum\":2,\"exclusiveMaximum\":2}",
      "#: nothing is allowed: no number is within the bounds", J },
    { "{\"type\":\"number\",\"minimum\":1e30}",
      "#: nothing is allowed: no number is within the bounds", J },
    { "{\"enum\":[1],\"type\":\"string\"}",
      "#: nothing is allowed: no value of 'enum' or 'const' is left", J },
    { "{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
      "#: nothing is allowed: a required key may not be there", J },
    { "{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":false}}",
      "#: nothing is allowed: a required key has no value", J },
    { "{\"type\":\"object\",\"properties\":{\"a\":{}},\"minProperties\":2}",
      "#: nothing is allowed: an object of it must have more members than it may have", J },
    { "{\"type\":\"object\",\"minProperties\":2,\"maxProperties\":1}",
      "#: nothing is allowed: an object of it must have more members than it may have", J },
    { "{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}",
      "#: nothing is allowed: its types exclude each other", J },
    { "{\"anyOf\":[false,false]}", "#: nothing is allowed: the schema is false", J },
    { "{\"type\":\"array\"}", "#: nothing is allowed: its types exclude each other", C },

    /* references */
    { "{\"$ref\":\"#/$defs/x\"}", "#: '$ref' leads to nothing in this schema: #/$defs/x", J },
    { "{\"$ref\":\"https://example.com/s\"}",
      "#: '$ref' leads to nothing in this schema: https://example.com/s", J },
    { "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"aa\":{}}}",
      "#: '$ref' leads to nothing in this schema: #/$defs/a", J },
    { "{\"$ref\":\"#/$defs/a~\",\"$defs\":{\"a\":{},\"a~0\":{}}}",
      "#: '$ref' leads to nothing in this schema: #/$defs/a~", J },
    { "{\"$ref\":\"#/anyOf/1\",\"anyOf\":[{}]}",
      "#: '$ref' leads to nothing in this schema: #/anyOf/1", J },
    { "{\"$ref\":\"#/anyOf/00\",\"anyOf\":[{}]}",
      "#: '$ref' leads to nothing in this schema: #/anyOf/00", J },
    { "{\"$ref\":\"#/anyOf/\",\"anyOf\":[{}]}",
      "#: '$ref' leads to nothing in this schema: #/anyOf/", J },
    { "{\"$ref\":\"#/anyOf/4294967296\",\"anyOf\":[{}]}",
      "#: '$ref' leads to nothing in this schema: #/anyOf/4294967296", J },
    { "{\"$ref\":\"#/required/0\",\"required\":[\"a\"]}",
      "#/required/0: a schema is an object or a boolean, not a string", J },
    { "{\"$ref\":5}", "#: '$ref' must be a string", J },
    { "{\"$ref\":\"#\"}", "#: it refers to itself and to nothing else", J },
    { "{\"anyOf\":[{\"type\":\"string\"},{\"$ref\":\"#\"}]}",
      "#: it refers to itself and to nothing else", J },
    { "{\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/b\"}]},\"b\":{\"$ref\":\"#/$defs/a\"}},"
      "\"items\":{\"$ref\":\"#/$defs/a\"}}", "#/$defs/a: it refers to itself and to nothing else",
      J },
    { "{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
      "no text matches", J },

    /* schemas that are none */
    { "5", "#: a schema is an object or a boolean, not a number", J },
    { "{\"items\":{\"anyOf\":[true,\"a\"]}}",
      "#/items/anyOf/1: a schema is an object or a boolean, not a string", J },
    { "{\"properties\":{\"a\":[]}}",
      "#/properties/a: a schema is an object or a boolean, not an array", J },
    { "{\"type\":\"text\"}", "#: 'type' must be a type or an array of types", J },
    { "{\"type\":[]}", "#: 'type' must be a type or an array of types", J },
    { "{\"type\":[\"null\",5]}", "#: 'type' must be a type or an array of types", J },
    { "{\"enum\":[]}", "#: 'enum' must be an array that is not empty", J },
    { "{\"enum\":\"a\"}", "#: 'enum' must be an array that is not empty", J },
    { "{\"anyOf\":[]}", "#: 'anyOf' must be an array that is not empty", J },
    { "{\"allOf\":{}}", "#: 'allOf' must be an array that is not empty", J },
    { "{\"minLength\":-1}", "#: 'minLength' must be a whole number that is not negative", J },
    { "{\"maxItems\":1.5}", "#: 'maxItems' must be a whole number that is not negative", J },
    { "{\"maxItems\":\"1\"}", "#: 'maxItems' must be a whole number that is not negative", J },
    { "{\"minLength\":1e300}", "#: 'minLength' is more than any answer has", J },
    { "{\"minimum\":\"0\"}", "#: 'minimum' must be a number", J },
    { "{\"exclusiveMaximum\":\"0\"}", "#: 'exclusiveMaximum' must be a number", J },
    { "{\"pattern\":5}", "#: 'pattern' must be a string", J },
    { "{\"pattern\":\"(\"}", "#: 'pattern': ", J },
    { "{\"patternProperties\":{\"(\":{}}}", "#/patternProperties/(: 'pattern': ", J },
    { "{\"properties\":[]}", "#: 'properties' must be an object of schemas", J },
    { "{\"required\":[1]}", "#: 'required' must be an array of strings", J },
    { "{\"required\":true}", "#: 'required' must be an array of strings", J },
    { "{\"additionalProperties\":1}", "#: 'additionalProperties' must be a schema", J },
    { "{\"items\":1}", "#: 'items' and 'prefixItems' must be schemas and arrays", J },
    { "{\"items\":[],\"prefixItems\":[]}", "#: 'items' is an array beside 'prefixItems'", J },
};

static int compile(struct grammar **g, const char *text, enum schema_as as, struct err *e)
{
    struct grammar_make *m = grammar_make(0);
    struct json_doc     *doc = NULL;
    const struct json   *root;
    int                  rc;

    *g = NULL;
    rc = json_parse(&doc, &root, text, strlen(text), &lim, e);
    if (rc == 0)
        rc = grammar_compile(g, m, schema_gram(m, root, as, QUOTE), e);
    json_free(doc);
    grammar_make_free(m);
    return rc;
}

static bool takes(const struct grammar *g, const char *text)
{
    int *sym = malloc((strlen(text) + 1) * sizeof(*sym)), n = 0;
    bool yes;

    while (*text != 0) {
        bool mark = strncmp(text, MARK, strlen(MARK)) == 0;

        sym[n++] = mark ? RUN_TOKEN + QUOTE : (unsigned char) *text;
        text += mark ? strlen(MARK) : 1;
    }
    yes = run_takes(g, sym, n);
    free(sym);
    return yes;
}

static void table(void)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        const char       *broken;
        struct grammar   *g;
        struct err        e = { 0 };

        if (!ok(compile(&g, r->schema, r->as, &e) == 0, "%s", r->schema)) {
            printf("# %s\n", e.msg);
            continue;
        }
        broken = run_broken(g);
        ok(broken == NULL, "its automata: %s", broken != NULL ? broken : "fine");
        for (int k = 0; k < 16 && r->yes[k] != NULL; k++)
            ok(takes(g, r->yes[k]), "  allows %s", text_shown(r->yes[k]));
        for (int k = 0; k < 20 && r->no[k] != NULL; k++)
            ok(!takes(g, r->no[k]), "  does not allow %s", text_shown(r->no[k]));
        grammar_free(g);
    }
}

static void refused(void)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i];
        struct grammar       *g;
        struct err            e = { 0 };

        is_int(compile(&g, r->schema, r->as, &e), E_INVALID, "refused: %s", r->schema);
        if (!ok(strncmp(e.msg, r->words, strlen(r->words)) == 0, "  %s", r->words))
            printf("# %s\n", e.msg);
        grammar_free(g);
    }
}

/* Texts of so many characters, around both sides of a limit and of the blocks that long ones are
 * made of. */
static void lengths(void)
{
    static const int range[][2] = { { 0, 255 }, { 0, 256 }, { 0, 257 }, { 256, 256 }, { 257, 257 },
                                    { 3, 1000 }, { 511, 513 }, { 600, -1 } };
    struct buf       text = { 0 }, schema = { 0 };
    struct grammar  *g;
    struct err       e;

    for (size_t i = 0; i < sizeof(range) / sizeof(range[0]); i++) {
        int lo = range[i][0], hi = range[i][1];

        schema.n = 0;
        buf_fmt(&schema, "{\"type\":\"string\",\"minLength\":%d", lo);
        if (hi >= 0)
            buf_fmt(&schema, ",\"maxLength\":%d", hi);
        buf_put(&schema, "}", 2);
        is_int(compile(&g, schema.p, J, &e), 0, "%s", schema.p);
        for (int at = 0; at < 8; at++) {
            int n = at < 4 ? lo - 2 + at : hi - 6 + at;

            if (n < 0 || (hi < 0 && at >= 4))
                continue;
            text.n = 0;
            buf_str(&text, "\"");
            for (int k = 0; k < n; k++)
                buf_str(&text, k % 3 == 0 ? "\\n" : k % 3 == 1 ? "\xc3\xa9" : "a");
            buf_put(&text, "\"", 2);
            is_int(takes(g, text.p), n >= lo && (hi < 0 || n <= hi), "  %d characters", n);
        }
        grammar_free(g);
    }
    buf_free(&text);
    buf_free(&schema);
}

/* n members that may be left out: the states grow with n, not with its square. */
static size_t states_of(int n)
{
    struct buf      text = { 0 };
    struct grammar *g;
    struct err      e;
    size_t          n_state = 0;

    buf_str(&text, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < n; i++)
        buf_fmt(&text, "%s\"key%04d\":{\"type\":\"boolean\"}", i > 0 ? "," : "", i);
    buf_put(&text, "}}", 3);
    if (compile(&g, text.p, J, &e) == 0)
        n_state = g->n_state;
    grammar_free(g);
    buf_free(&text);
    return n_state;
}

static void linear(void)
{
    size_t a = states_of(100), b = states_of(200), c = states_of(400);

    ok(a > 0 && b > a && c > b && c < 5 * a, "100, 200, 400 members: %zu, %zu, %zu states", a, b,
       c);
}

/* Limits, in words. */
static void limits(void)
{
    struct buf      text = { 0 };
    struct grammar *g;
    struct err      e = { 0 };

    for (int i = 0; i < 40; i++)
        buf_fmt(&text, "%s{\"title\":\"%d\",\"minimum\":%d}", i == 0 ? "{\"allOf\":[" : ",", i, i);
    buf_put(&text, "]}", 3);
    is_int(compile(&g, text.p, J, &e), E_INVALID, "40 schemas at one place");
    ok(strstr(e.msg, ": more than 32 schemas hold at one place") != NULL, "%s", e.msg);

    text.n = 0;
    buf_str(&text, "{\"allOf\":[");
    for (int i = 0; i < 11; i++)
        buf_fmt(&text, "%s{\"anyOf\":[{\"minimum\":%d},{\"maximum\":%d}]}", i == 0 ? "" : ",", i,
                i);
    buf_put(&text, "]}", 3);
    is_int(compile(&g, text.p, J, &e), E_INVALID, "2048 alternatives");
    ok(strstr(e.msg, ": more than 1024 alternatives") != NULL, "%s", e.msg);

    is_int(compile(&g, "{\"type\":\"string\",\"maxLength\":16000000,\"minLength\":15999999}", J,
                   &e), E_FULL, "too large a grammar: %s", e.msg);
    buf_free(&text);
}

/* Several schemas of one grammar, and any object. */
static void together(void)
{
    static const char *const texts[] = {
        "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/x\"}},\"$defs\":{\"x\":{\"const\":1}}}",
        "{\"properties\":{\"a\":{\"$ref\":\"#/$defs/x\"}},\"$defs\":{\"x\":{\"const\":2}}}",
    };
    struct grammar_make *m = grammar_make(0);
    struct schema       *s = schema_open(m, C, QUOTE);
    gram                 root = grammar_text(m, "none");
    struct grammar      *g;
    struct err           e;

    for (int i = 0; i < 2; i++) {
        struct json_doc   *doc;
        const struct json *json;

        json_parse(&doc, &json, texts[i], strlen(texts[i]), &lim, NULL);
        root = grammar_alt(m, root, grammar_seq(m, grammar_text(m, i == 0 ? "f" : "g"),
                                                schema_add(s, json)));
        json_free(doc);
    }
    schema_close(s);
    root = grammar_alt(m, root, grammar_seq(m, grammar_text(m, "h"),
                                            schema_any_object(m, J, QUOTE)));
    is_int(grammar_compile(&g, m, root, &e), 0, "three in one grammar");
    ok(takes(g, "f{a:1}") && takes(g, "g{a:2}") && takes(g, "none"), "each has its own");
    ok(!takes(g, "f{a:2}") && !takes(g, "g{a:1}"), "and not the other's");
    ok(takes(g, "h{\"a\":[{}]}") && !takes(g, "h[]") && !takes(g, "h{a:1}"), "any object");
    grammar_free(g);
    grammar_make_free(m);
}

int main(void)
{
    table();
    refused();
    lengths();
    linear();
    limits();
    together();
    return done_testing();
}
