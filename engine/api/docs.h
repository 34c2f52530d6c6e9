/* docs.h - docs/api.md, made of the tables that the code runs on: `inferd api` prints it. */
#ifndef API_DOCS_H
#define API_DOCS_H

#include "buf.h"

void docs_write(struct buf *b);
void docs_routes(struct buf *b);     /* http.c: the rows of its table */

#endif
