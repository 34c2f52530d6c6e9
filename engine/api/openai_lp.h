/* openai_lp.h - logprobs in OpenAI's and vLLM's words: pieces of openai_out.c. */
#ifndef API_OPENAI_LP_H
#define API_OPENAI_LP_H

#include "dialect.h"

/* The value of "logprobs": null, or what this delta or choice brings. whole: an object even if it
 * brings nothing. */
void lp_put_chat(struct buf *b, const struct out_choice *c, bool whole);
void lp_put_text(struct buf *b, const struct out_choice *c, bool whole);
/* The value of "prompt_logprobs". */
void lp_put_prompt(struct buf *b, const struct out_choice *c);

#endif
