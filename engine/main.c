/* main.c - inferd's subcommands. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "docs.h"
#include "log.h"
#include "render.h"
#include "score.h"

int cmd_fail(const struct err *e)
{
    fprintf(stderr, "inferd: %s\n", e->msg);
    return 1;
}

static int cmd_score(const struct conf *c)
{
    struct err e;

    return score_file(c, stdout, &e) != 0 ? cmd_fail(&e) : 0;
}

static int cmd_render(const struct conf *c)
{
    FILE *in = strcmp(c->pos[0], "-") == 0 ? stdin : fopen(c->pos[0], "r");
    struct err e;
    int rc;

    if (in == NULL) {
        err_set(&e, E_IO, "%s: cannot be opened", c->pos[0]);
        return cmd_fail(&e);
    }
    rc = render_file(in, stdout, &e);
    if (in != stdin)
        fclose(in);
    return rc != 0 ? cmd_fail(&e) : 0;
}

static int cmd_api(const struct conf *c)
{
    struct buf b = { 0 };
    struct err e;

    (void) c;
    docs_write(&b);
    if (b.full || fwrite(b.p, 1, b.n, stdout) != b.n) {
        err_set(&e, E_IO, "api: cannot be written");
        buf_free(&b);
        return cmd_fail(&e);
    }
    buf_free(&b);
    return 0;
}

static const struct {
    const char *name;
    int         cmd;
    int       (*run)(const struct conf *c);
    const char *help;
} commands[] = {
    { "serve",   CONF_SERVE,   cmd_serve,   "serve a model to nginx over a unix socket" },
    { "chat",    CONF_CHAT,    cmd_chat,    "talk to a model in this terminal" },
    { "plan",    CONF_PLAN,    cmd_plan,    "print the memory budget; loads no weights" },
    { "inspect", CONF_INSPECT, cmd_inspect, "print what a model directory holds" },
    { "score",   CONF_SCORE,   cmd_score,   "log-probabilities and greedy tokens of prompts" },
    { "bench engine", CONF_BENCH, cmd_bench_engine, "speed of prefill and decode, without nginx" },
    { "bench pace", CONF_BENCH_PACE, cmd_bench_pace, "a long prompt beside answers under way" },
    { "bench serve", CONF_BENCH_SERVE, cmd_bench_serve, "speed of a server over HTTP, any server" },
    { "render",  CONF_RENDER,  cmd_render,  "print the prompt text of chat requests" },
    { "api",     CONF_API,     cmd_api,     "print docs/api.md: endpoints, fields and limits" },
};

#define N_COMMAND  (sizeof(commands) / sizeof(commands[0]))

static int usage(FILE *to)
{
    fprintf(to, "usage: inferd COMMAND ... (inferd COMMAND --help)\n\n");
    for (size_t i = 0; i < N_COMMAND; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].help);
    return to == stdout ? 0 : 2;
}

/* How many arguments name this command: 1, 2 for "bench engine"; 0: they name another. */
static int named(const char *name, int argc, char **argv)
{
    const char *second = strchr(name, ' ');
    size_t n = second != NULL ? (size_t) (second - name) : strlen(name);

    if (strncmp(argv[1], name, n) != 0 || argv[1][n] != '\0')
        return 0;
    if (second == NULL)
        return 1;
    return argc > 2 && strcmp(argv[2], second + 1) == 0 ? 2 : 0;
}

static int command(int argc, char **argv)
{
    struct conf c;
    struct err e;
    bool bench;

    if (argc < 2)
        return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    if (strcmp(argv[1], "--version") == 0)
        return printf("inferd %s\n", INFERD_VERSION) < 0;

    for (size_t i = 0; i < N_COMMAND; i++) {
        int used = named(commands[i].name, argc, argv);

        if (used == 0)
            continue;
        if (conf_parse(&c, commands[i].cmd, argc - 1 - used, argv + 1 + used, &e) != 0)
            return cmd_fail(&e);
        if (c.help) {
            conf_help(commands[i].cmd);
            return 0;
        }
        log_set_level(commands[i].cmd == CONF_SERVE ? (enum log_level) c.log_level : LOG_WARN);
        return commands[i].run(&c);
    }

    bench = argc > 2 && strcmp(argv[1], "bench") == 0;
    if (bench && (strcmp(argv[2], "--help") == 0 || strcmp(argv[2], "-h") == 0))
        return usage(stdout);
    fprintf(stderr, "inferd: unknown command %.40s%s%.40s\n", argv[1], bench ? " " : "",
            bench ? argv[2] : "");
    return usage(stderr);
}

/* Who closed one of the first three meant silence: the next file that is opened would have its
 * number, and a log line would go to a client's socket. To read only, so that a result which goes
 * nowhere is a failure. */
static void hold_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    close(fd);
}

int main(int argc, char **argv)
{
    int rc;

    /* glibc's own threshold follows the largest block that was ever freed: after a few long bodies
     * they would live on the heap, which does not shrink. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);

    hold_streams();
    rc = command(argc, argv);
    if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        fprintf(stderr, "inferd: standard output: %s\n", strerror(errno));
        return 1;
    }
    return rc;
}
