/* tok.h - tokens <-> text: Gemma 4's BPE from tokenizer.json.
 *
 * Normalise (space -> U+2581), merge by rank with a heap, byte fallback; special tokens are split
 * off first, only where the caller allows it. A tokenizer is read-only after tok_open: any number
 * of threads may use it. Refuses a file whose model, normalizer or decoder is another kind. */
#ifndef TEXT_TOK_H
#define TEXT_TOK_H

#include "buf.h"
#include "err.h"

struct tok;

/* Growable array of token ids; the owner frees it with ids_free. */
struct ids { int32_t *p; size_t n, cap; };
int  ids_put(struct ids *a, int32_t id);              /* E_FULL: out of memory */
void ids_free(struct ids *a);

/* dir/tokenizer.json. E_IO with err "no such file" when the directory has none: such a model still
 * serves token-id prompts. */
int  tok_open(struct tok **out, const char *dir, struct err *e);
void tok_close(struct tok *t);

int32_t tok_n_vocab(const struct tok *t);
/* Id of an exact entry (e.g. "<|turn>"), or -1. */
int32_t tok_id(const struct tok *t, const char *text);
bool    tok_is_special(const struct tok *t, int32_t id);

/* Append the ids of s (valid UTF-8). parse_special: special tokens written in the text become their
 * id, as HF and vLLM do with a rendered prompt. O(n log n), no recursion. */
int  tok_encode(const struct tok *t, const char *s, size_t n, bool parse_special, struct ids *out,
                struct err *e);

/* The same with parse_special, except that no special token is seen where it touches plain. */
int  tok_encode_around(const struct tok *t, const char *s, size_t n, const struct spans *plain,
                       struct ids *out, struct err *e);

/* The text of one id: bytes with spaces restored, a single raw byte for <0xHH>. Borrowed. */
struct slice tok_text(const struct tok *t, int32_t id);
/* The entry as the file spells it. Borrowed. */
struct slice tok_entry(const struct tok *t, int32_t id);

/* Streaming decode: never emits half a character. skip_special drops special tokens. */
struct tok_stream { uint8_t pend[4]; uint8_t n_pend; bool skip_special; };
void tok_stream_put(const struct tok *t, struct tok_stream *s, int32_t id, struct buf *out);
void tok_stream_end(struct tok_stream *s, struct buf *out);

#endif
