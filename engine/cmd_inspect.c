/* cmd_inspect.c - what a model directory holds, without loading it: shapes, tensors, template. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "chat.h"
#include "cmd.h"
#include "model.h"
#include "plan.h"
#include "safetensors.h"
#include "tok.h"

#define DTYPE_MAX  16

static void show_conf(const struct model_conf *c)
{
    printf("model            %s\n", c->name);
    printf("layers           %d:", c->n_layer);
    for (int32_t i = 0; i < c->n_layer; i++)
        printf("%s%c", i % 6 == 0 ? " " : "", c->is_full[i] ? 'F' : 's');
    printf("  (s sliding, window %d; F full)\n", c->window);
    printf("hidden           %d, vocabulary %d, positions %d\n", c->hidden, c->vocab, c->max_pos);
    printf("attention        %d heads; sliding %d kv x %d, full %d kv x %d%s\n", c->n_head,
           c->n_kv_sliding, c->head_sliding, c->n_kv_full, c->head_full,
           c->k_eq_v ? ", K = V" : "");
    if (c->n_kv_shared > 0)
        printf("shared KV        the last %d layers\n", c->n_kv_shared);
    printf("MLP              %d%s\n", c->ffn, c->double_wide ? ", double in shared-KV layers" : "");
    if (c->moe)
        printf("experts          %d of width %d, %d for each token\n", c->n_expert, c->expert_ffn,
               c->top_k);
    if (c->ple > 0)
        printf("per-layer input  %d\n", c->ple);
    printf("stop ids        ");
    for (int32_t i = 0; i < c->n_eos; i++)
        printf(" %d", c->eos[i]);
    printf("\ndefaults         temperature %g, top_k %d, top_p %g\n", (double) c->temperature,
           c->top_k_default, (double) c->top_p);
    if (c->has_vision || c->has_audio)
        printf("not used yet     %s%s\n", c->has_vision ? "vision " : "",
               c->has_audio ? "audio" : "");
}

static int show_tensors(const char *dir, struct err *e)
{
    struct { char name[8]; int32_t n; uint64_t bytes; } sum[DTYPE_MAX];
    int32_t n_sum = 0, k;
    struct st *st;
    int rc;

    if ((rc = st_open(&st, dir, e)) != 0)
        return rc;
    for (int32_t i = 0; i < st_count(st); i++) {
        const struct st_tensor *t = st_at(st, i);

        for (k = 0; k < n_sum && strcmp(sum[k].name, t->dtype) != 0; k++)
            ;
        if (k == DTYPE_MAX)
            continue;                       /* the format has fewer types than that */
        if (k == n_sum) {
            memset(&sum[n_sum], 0, sizeof(sum[0]));
            memcpy(sum[n_sum++].name, t->dtype, sizeof(t->dtype));
        }
        sum[k].n++;
        sum[k].bytes += t->bytes;
    }
    printf("tensors          %d:", st_count(st));
    for (k = 0; k < n_sum; k++)
        printf("%s %d %s (%.1f MB)", k > 0 ? "," : "", sum[k].n, sum[k].name,
               (double) sum[k].bytes / 1e6);
    printf("\n");
    st_close(st);
    return 0;
}

static int show_text(const char *dir, struct err *e)
{
    enum chat_variant variant;
    bool known, found;
    struct tok *tok;
    int rc;

    rc = tok_open(&tok, dir, e);
    if (rc == E_IO) {
        printf("tokenizer        none: token-id prompts only\n");
        return 0;
    }
    if (rc != 0)
        return rc;
    printf("tokenizer        %d entries\n", tok_n_vocab(tok));
    tok_close(tok);

    if ((rc = chat_variant_detect(dir, &variant, &known, &found, e)) != 0)
        return rc;
    printf("chat template    %s%s\n", variant == CHAT_LARGE ? "large" : "small",
           !found ? " (no file: the default)" : known ? " (published)" : " (not a published file)");
    return 0;
}

int cmd_inspect(const struct conf *c)
{
    const char *dir = c->pos[0];
    struct model_conf mc;
    struct err e;

    if (model_conf_load(&mc, dir, &e) != 0)
        return cmd_fail(&e);
    show_conf(&mc);
    if (show_tensors(dir, &e) != 0 || show_text(dir, &e) != 0)
        return cmd_fail(&e);
    return 0;
}

int cmd_plan(const struct conf *c)
{
    struct model_conf mc;
    struct plan p;
    struct err e;

    if (model_conf_load(&mc, c->pos[0], &e) != 0 || plan_make(&p, &mc, c, &e) != 0)
        return cmd_fail(&e);
    plan_print(&p, &mc, c);
    return 0;
}
