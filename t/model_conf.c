/* model_conf.c - config.json: the published and the re-saved form, sizes of the real models, and
 * each refusal with its file and field. */
#include "tap.h"
#include "model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static void put_file(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (f != NULL) {
        fputs(text, f);
        fclose(f);
    }
}

static void remove_file(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    unlink(path);
}

#define ROPE "\"rope_parameters\": {\"sliding_attention\": {\"rope_type\": \"default\", " \
    "\"rope_theta\": 10000.0}, \"full_attention\": {\"rope_type\": \"proportional\", " \
    "\"partial_rotary_factor\": 0.25, \"rope_theta\": 1000000.0}}"

/* google/gemma-4-26B-A4B-it; layer_types by their rule */
static const char conf_26b[] =
    "{\"model_type\": \"gemma4\", \"vision_config\": {}, \"audio_config\": null,"
    " \"eos_token_id\": [1, 106], \"text_config\": {\"model_type\": \"gemma4_text\","
    " \"vocab_size\": 262144, \"hidden_size\": 2816, \"num_hidden_layers\": 30,"
    " \"num_attention_heads\": 16, \"num_key_value_heads\": 8, \"num_global_key_value_heads\": 2,"
    " \"head_dim\": 256, \"global_head_dim\": 512, \"attention_k_eq_v\": true,"
    " \"sliding_window\": 1024, \"intermediate_size\": 2112, \"hidden_size_per_layer_input\": 0,"
    " \"enable_moe_block\": true, \"num_experts\": 128, \"top_k_experts\": 8,"
    " \"moe_intermediate_size\": 704, \"use_bidirectional_attention\": \"vision\","
    " \"max_position_embeddings\": 262144, \"final_logit_softcapping\": 30.0,"
    " \"tie_word_embeddings\": true, " ROPE "}}";

/* google/gemma-4-E2B-it */
static const char conf_e2b[] =
    "{\"model_type\": \"gemma4_text\", \"vocab_size\": 262144, \"hidden_size\": 1536,"
    " \"num_hidden_layers\": 35, \"num_attention_heads\": 8, \"num_key_value_heads\": 1,"
    " \"num_global_key_value_heads\": null, \"head_dim\": 256, \"global_head_dim\": 512,"
    " \"sliding_window\": 512, \"intermediate_size\": 6144, \"use_double_wide_mlp\": true,"
    " \"num_kv_shared_layers\": 20, \"hidden_size_per_layer_input\": 256, \"layer_types\": [%s],"
    " \"final_logit_softcapping\": 30.0, " ROPE "}";

static int load(struct model_conf *c, const char *text, struct err *e)
{
    put_file("config.json", text);
    e->msg[0] = '\0';
    return model_conf_load(c, dir, e);
}

static void test_26b(void)
{
    struct model_conf c;
    struct model_size s;
    struct err e;

    is_int(load(&c, conf_26b, &e), 0, "26B loads %s", e.msg);
    model_size(&c, &s);
    is_int(s.total, 25233141790, "26B: text parameters");
    is_int(s.embed, 738197504, "26B: embedding");
    is_int(s.attn, 1110197760, "26B: attention");
    is_int(s.mlp, 535265280, "26B: dense MLP");
    is_int(s.experts, 22837985280, "26B: experts");
    is_int(s.router, 10901760, "26B: router");
    is_int(s.norms, 594206, "26B: norms and scalars");
    is_int(s.head, 0, "26B: the head is the embedding");
    is_int(model_kv_page_bytes(&c, true, 1, 2), 12800, "26B: KV of a token, full layers");
    is_int(model_kv_page_bytes(&c, false, 1, 2), 204800, "26B: KV of a token, sliding layers");
    is_int(model_kv_page_bytes(&c, true, 16, 4), 12800 * 32, "26B: a page of 16 tokens in fp32");
    ok(c.has_vision && !c.has_audio && c.moe && c.tied, "26B: vision, no audio, MoE, tied");
    is_int(c.n_eos, 2, "stop ids of config.json");

    put_file("generation_config.json", "{\"eos_token_id\": [1, 106, 50], \"temperature\": 0.7, "
             "\"top_k\": 64, \"top_p\": 0.95, \"suppress_tokens\": [258883, 258882]}");
    is_int(load(&c, conf_26b, &e), 0, "with generation_config.json %s", e.msg);
    ok(c.n_eos == 3 && c.eos[2] == 50, "its stop ids win");
    ok(c.n_suppress == 2 && c.suppress[1] == 258882, "suppress_tokens");
    ok(c.temperature == 0.7f && c.top_p == 0.95f && c.top_k_default == 64, "defaults");
    put_file("generation_config.json", "{\"eos_token_id\": \"x\"}");
    is_int(load(&c, conf_26b, &e), E_INVALID, "a bad generation_config.json is refused");
    ok(strstr(e.msg, "generation_config.json: eos_token_id") != NULL, "%s", e.msg);
    remove_file("generation_config.json");
}

/* The dense sizes: parameters as published, the 31B's less its vision tower and projector. */
static void test_dense(void)
{
    static const struct {
        const char *kind;
        int hidden, layer, head, kv, full_kv, ffn;
        long long n;
    }
    row[] = {
        { "gemma4_unified", 3840, 48, 16, 8, 1, 15360, 11907350320 },
        { "gemma4", 5376, 60, 32, 16, 4, 21504, 31273088876 - 569550384 - 5376 * 1152 },
    };
    char text[2048];
    struct model_conf c;
    struct model_size s;
    struct err e;

    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        snprintf(text, sizeof(text),
                 "{\"model_type\": \"%s\", \"text_config\": {\"model_type\": \"%s_text\","
                 " \"vocab_size\": 262144, \"hidden_size\": %d, \"num_hidden_layers\": %d,"
                 " \"num_attention_heads\": %d, \"num_key_value_heads\": %d,"
                 " \"num_global_key_value_heads\": %d, \"head_dim\": 256, \"global_head_dim\": 512,"
                 " \"attention_k_eq_v\": true, \"sliding_window\": 1024, \"intermediate_size\": %d,"
                 " \"hidden_size_per_layer_input\": 0, \"max_position_embeddings\": 262144,"
                 " \"final_logit_softcapping\": 30.0, " ROPE "}}",
                 row[i].kind, row[i].kind, row[i].hidden, row[i].layer, row[i].head, row[i].kv,
                 row[i].full_kv, row[i].ffn);
        is_int(load(&c, text, &e), 0, "%d layers of %d %s", row[i].layer, row[i].hidden, e.msg);
        model_size(&c, &s);
        is_int(s.total, row[i].n, "its text parameters");
    }
}

static void test_e2b(void)
{
    char types[2048] = "", text[4096];
    struct model_conf c;
    struct model_size s;
    struct err e;

    for (int i = 0; i < 35; i++)
        snprintf(types + strlen(types), sizeof(types) - strlen(types), "%s\"%s_attention\"",
                 i > 0 ? ", " : "", i % 5 == 4 ? "full" : "sliding");
    snprintf(text, sizeof(text), conf_e2b, types);
    is_int(load(&c, text, &e), 0, "E2B loads as a text-only directory %s", e.msg);
    model_size(&c, &s);
    is_int(s.total, 4628569379, "E2B: text parameters");
    is_int(model_kv_layer(&c, 12), 12, "E2B: an own layer");
    is_int(model_kv_layer(&c, 15), 13, "E2B: the sliding donor");
    is_int(model_kv_layer(&c, 34), 14, "E2B: the full donor");
    is_int(model_kv_page_bytes(&c, false, 1, 2), 12288, "E2B: KV of a token, sliding layers");
    is_int(model_kv_page_bytes(&c, true, 1, 2), 6144, "E2B: KV of a token, full layers");
    is_int(c.eos[0], 1, "stop id by default");
}

static void test_fixtures(void)
{
    struct model_conf c;
    struct err e = {0};

    is_int(model_conf_load(&c, "t/golden/dense", &e), 0, "re-saved form loads %s", e.msg);
    ok(c.head_full == 64 && c.n_kv_full == 1 && c.head_sliding == 16 && c.n_kv_sliding == 2,
       "per_layer_config gives the full layers' heads");
    is_str(c.name, "dense", "the name is the directory's");
    is_int(model_conf_load(&c, "t/golden/moe/", &e), 0, "published form loads %s", e.msg);
    ok(c.head_full == 32 && c.n_kv_full == 1 && c.top_k == 3, "global_ fields");
    is_str(c.name, "moe", "a slash at the end is no name");
    is_int(model_conf_load(&c, "t/golden/none", &e), E_IO, "a missing directory: %s", e.msg);
}

/* The 26B text with one piece replaced. */
static void test_refused(void)
{
    static const struct { const char *was, *is, *says; } cases[] = {
        { "\"hidden_size\": 2816", "\"hidden_size\": NaN", "config.json: " },
        { "\"hidden_size\": 2816", "\"hidden_size\": Infinity", "config.json: " },
        { "\"hidden_size\": 2816", "\"hidden_size\": 1e999", "text_config.hidden_size" },
        { "\"hidden_size\": 2816", "\"hidden_size\": 0", "text_config.hidden_size" },
        { "\"hidden_size\": 2816", "\"hidden_size\": -5", "text_config.hidden_size" },
        { "\"hidden_size\": 2816", "\"hidden_size\": \"2816\"", "text_config.hidden_size" },
        { "\"hidden_size\": 2816", "\"hidden_size\": 2816.5", "text_config.hidden_size" },
        { "\"hidden_size\": 2816", "\"hidden_sizes\": 2816", "text_config.hidden_size: missing" },
        { "\"num_hidden_layers\": 30", "\"num_hidden_layers\": 129", "num_hidden_layers" },
        { "\"top_k_experts\": 8", "\"top_k_experts\": 129", "text_config.top_k_experts" },
        { "\"num_experts\": 128", "\"num_experts\": null", "num_experts: missing" },
        { "\"num_key_value_heads\": 8", "\"num_key_value_heads\": 3", "does not divide" },
        { "\"global_head_dim\": 512", "\"global_head_dim\": 511", "global_head_dim: odd" },
        { "\"attention_k_eq_v\": true", "\"attention_k_eq_v\": 1", "attention_k_eq_v" },
        { "\"vision\",", "\"all\",", "use_bidirectional_attention" },
        { "\"final_logit_softcapping\": 30.0", "\"final_logit_softcapping\": 0",
          "final_logit_softcapping" },
        { "\"rope_theta\": 10000.0", "\"rope_theta\": 0.0", "sliding_attention.rope_theta" },
        { "\"rope_type\": \"proportional\"", "\"rope_type\": \"yarn\"",
          "full_attention.rope_type" },
        { "\"eos_token_id\": [1, 106]", "\"eos_token_id\": [262144]", "config.json: eos_token_id" },
        { "\"model_type\": \"gemma4\"", "\"model_type\": \"gemma3\"", "config.json: model_type" },
        { "\"audio_config\": null", "\"quantization_config\": {}", "quantization_config" },
        { "\"sliding_window\": 1024", "\"attention_bias\": true", "attention_bias" },
        { "\"sliding_window\": 1024", "\"hidden_activation\": \"silu\"", "hidden_activation" },
        { "\"sliding_window\": 1024", "\"num_kv_shared_layers\": 29", "num_kv_shared_layers" },
        { "\"sliding_window\": 1024", "\"layer_types\": [\"full_attention\"]", "layer_types" },
        { "\"sliding_window\": 1024", "\"per_layer_config\": {\"30\": {}}", "per_layer_config" },
        { "\"sliding_window\": 1024", "\"per_layer_config\": {\"5\": {\"head_dim\": 64}}",
          "layers of one type differ" },
        { "\"text_config\": {", "\"text\": {", "text_config: missing" },
        { "}}}}", "}}}", "config.json: " },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *at = strstr(conf_26b, cases[i].was);
        char text[4096];
        struct model_conf c;
        struct err e;

        snprintf(text, sizeof(text), "%.*s%s%s", (int) (at - conf_26b), conf_26b, cases[i].is,
                 at + strlen(cases[i].was));
        is_int(load(&c, text, &e), E_INVALID, "refused: %s", cases[i].is);
        ok(strstr(e.msg, "config.json") == e.msg && strstr(e.msg, cases[i].says) != NULL,
           "%s", e.msg);
    }
}

int main(void)
{
    snprintf(dir, sizeof(dir), "/tmp/t-model-conf-XXXXXX");
    if (mkdtemp(dir) == NULL)
        return 1;
    test_26b();
    test_dense();
    test_e2b();
    test_fixtures();
    test_refused();
    remove_file("config.json");
    rmdir(dir);
    return done_testing();
}
