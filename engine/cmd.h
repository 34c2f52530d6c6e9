/* cmd.h - the subcommands of main.c. Each returns the exit code of the process. */
#ifndef ENGINE_CMD_H
#define ENGINE_CMD_H

#include <stddef.h>
#include "conf.h"

#define INFERD_VERSION  "0.1.0"

int cmd_serve(const struct conf *c);
int cmd_plan(const struct conf *c);
int cmd_inspect(const struct conf *c);
int cmd_chat(const struct conf *c);
int cmd_bench_engine(const struct conf *c);
int cmd_bench_pace(const struct conf *c);
int cmd_bench_serve(const struct conf *c);

/* One line on stderr, "inferd: ...", and 1. */
int cmd_fail(const struct err *e);

/* A word for a row of CSV: nothing, where none was given. */
static inline const char *cmd_cell(const char *s)
{
    return s != NULL ? s : "";
}

#endif
