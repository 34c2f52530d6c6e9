/* score.h - inferd score: log-probabilities and greedy tokens of prompts, to check the numbers.
 *
 * In: one JSON object a line, {"prompt":[ids...],"n":24}. Out: one line each, in the same order,
 * {"logprob_of_next":[len-1],"last_logits":[vocab],"greedy":[n ids]}. The requests go through the
 * real scheduler, KV pools and sampler, --batch of them at once; no stop id ends them. A line may
 * carry the answer's fields as well (a file of references): they are not read. */
#ifndef ENGINE_SCORE_H
#define ENGINE_SCORE_H

#include <stdio.h>
#include "conf.h"

/* c->pos: the model's directory, the file ("-": stdin). */
int score_file(const struct conf *c, FILE *out, struct err *e);

#endif
