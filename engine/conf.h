/* conf.h - the options of every subcommand, from one table (conf.c).
 *
 * The table parses argv, supplies defaults, checks bounds and prints --help. Names are vLLM's where
 * vLLM has the option. Strings are borrowed from argv. */
#ifndef ENGINE_CONF_H
#define ENGINE_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include "err.h"

#define CONF_NAME_MAX  8
#define CONF_POS_MAX   2

enum conf_backend { BACKEND_CPU, BACKEND_CUDA };
enum conf_load { LOAD_AUTO, LOAD_DUMMY };
enum conf_message_tokens { MESSAGE_TOKENS_TEXT, MESSAGE_TOKENS_PARSE };

struct conf {
    const char *pos[CONF_POS_MAX];          /* the directory, the file */
    int32_t     n_pos;
    bool        help;

    const char *served_name[CONF_NAME_MAX]; /* default: the directory's last part */
    int32_t     n_served_name;
    int32_t     max_model_len;              /* 0: max_position_embeddings */
    int32_t     max_num_seqs;
    int32_t     max_num_batched_tokens;
    int32_t     block_size;
    uint64_t    kv_cache_memory_bytes;      /* 0: chosen by plan */
    uint64_t    memory_bytes;               /* 0: what this machine has */
    int32_t     backend;                    /* enum conf_backend */
    double      gpu_memory_utilization;     /* of the GPU's memory, for everything */
    int32_t     load_format;                /* enum conf_load */
    int32_t     threads;                    /* 0: one per core */
    int32_t     api_threads;
    int32_t     max_queue;
    int32_t     max_queue_tokens;           /* 0: no limit */
    int32_t     max_queue_wait_s;           /* 0: no limit */
    int32_t     max_requests_per_key;       /* 0: no limit */
    int32_t     itl_target_ms;              /* 0: none */
    bool        no_prefix_cache, no_overlap, strict;
    int32_t     reuse_point_tokens;         /* 0: only at the ends of prompts and answers */
    int32_t     kv_session_tokens;          /* 0: chosen by plan */
    const char *uds;                        /* NULL: /run/inferd/NAME.sock */
    int32_t     uds_mode;
    const char *uds_group;
    int32_t     message_tokens;             /* enum conf_message_tokens */
    int32_t     ping_interval_s;            /* 0: never */
    const char *api_key_file;               /* NULL: none */
    int32_t     drain_timeout_s;
    int32_t     log_level;                  /* enum log_level */

    int32_t     batch;                      /* score */
    const char *system;                     /* chat */
    bool        thinking;
    double      temperature;                /* < 0: the model's default */
    int32_t     max_tokens;
    const char *batches, *contexts;         /* bench engine: lists of numbers */
    int32_t     prompt_tokens, decodes;     /* bench pace */

    const char *url, *model, *header;       /* bench serve */
    int32_t     num_prompts, num_warmups;
    int32_t     max_concurrency;            /* 0: no limit */
    double      request_rate;               /* 0: all at once */
    int32_t     random_input_len, random_output_len, random_prefix_len, random_vocab;
    double      random_range_ratio;
    int32_t     seed;
    bool        no_ignore_eos;
    double      top_p;                      /* < 0: not sent */
    int32_t     top_k;                      /* likewise */
    double      good_ms[3];                 /* ttft, tpot, e2el; 0: any */
    const char *result_file, *csv;
    const char *commit, *device, *shape;    /* words for the row of csv */
};

enum conf_cmd_bit {
    CONF_SERVE = 1, CONF_PLAN = 2, CONF_INSPECT = 4, CONF_SCORE = 8, CONF_RENDER = 16,
    CONF_CHAT = 32, CONF_BENCH = 64, CONF_BENCH_SERVE = 128, CONF_BENCH_PACE = 256,
    CONF_API = 512,
};

/* argv after the subcommand. E_INVALID: e names the option and what it takes. */
int  conf_parse(struct conf *c, int cmd, int n_arg, char **arg, struct err *e);
void conf_help(int cmd);                    /* to stdout */

/* "64k", "2g", "1048576": E_INVALID if malformed or too large. */
int  conf_size(const char *s, uint64_t *v);

#endif
