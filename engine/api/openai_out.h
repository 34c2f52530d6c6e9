/* openai_out.h - pieces of OpenAI's dialect that other writers share. */
#ifndef API_OPENAI_OUT_H
#define API_OPENAI_OUT_H

#include "dialect.h"

/* "error":{...}, and the whole of an error reply. */
void out_error_member(struct buf *b, const struct api_err *e);
int  out_error(struct buf *b, const struct api_err *e, const char *request_id);
void out_usage(struct buf *b, const struct out_usage *u);
void out_ids(struct buf *b, struct out_ids ids);

#endif
