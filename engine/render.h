/* render.h - `inferd render FILE`: messages in, prompt text out, no model needed. */
#ifndef ENGINE_RENDER_H
#define ENGINE_RENDER_H

#include <stdio.h>

#include "err.h"

/* in: one JSON object a line with messages, tools, chat_template_kwargs, add_generation_prompt,
 * continue_final_message and variant ("large" or "small", default large); other keys are the
 * caller's own. out: one {"text": prompt} a line, or {"error": words} for a line that is refused.
 * E_INVALID when any was; E_IO when out cannot be written. */
int render_file(FILE *in, FILE *out, struct err *e);

#endif
