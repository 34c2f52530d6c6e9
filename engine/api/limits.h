/* limits.h - the one table of what a client may ask for. Beyond a limit: 4xx in words. */
#ifndef API_LIMITS_H
#define API_LIMITS_H

#define API_LINK_MAX           64            /* nginx workers of one api thread */
#define API_BODY_BYTES_MAX     (64u << 20)   /* one request body: 413 */
#define API_BODY_TOTAL_MAX     (256u << 20)  /* bodies being received by one thread: 503 */
#define API_INLINE_BYTES       (8u << 10)    /* a longer body is read on the reader thread */
#define API_URI_BYTES_MAX      1024          /* 414 */
#define API_JSON_DEPTH_MAX     64
#define API_JSON_NODES_MAX     (4u << 20)    /* a prompt of token ids has a node an id */
#define API_TEXT_BYTES_MAX     (4u << 20)    /* text that one request may have tokenised: 0.8 s */
#define API_MESSAGE_MAX        4096
#define API_N_MAX              128           /* n, choices of one prompt */
#define API_PROMPT_MAX         256           /* prompts of one completion request */
#define API_CHOICE_MAX         256           /* prompts times n */
#define API_STOP_MAX           4
#define API_STOP_BYTES_MAX     256           /* of one stop string */
#define API_STOP_ID_MAX        64
#define API_BIAS_MAX           1024          /* ids of logit_bias */
#define API_BIAS_VALUE_MAX     100           /* and of either sign */
#define API_ALLOWED_ID_MAX     (1 << 18)     /* ids of allowed_token_ids */
#define API_BAD_WORD_MAX       128
#define API_BAD_WORD_BYTES_MAX 256           /* of one of them */
#define API_LOGPROB_MAX        20            /* top_logprobs, logprobs, prompt_logprobs */
#define API_PROMPT_LOGPROB_MAX (4 << 20)     /* of all prompts of a request, of all ids */
#define API_STREAM_INTERVAL_MAX 1024
#define API_REPEAT_MAX         1024          /* tokens of a pattern, and how often it comes */
#define API_METADATA_MAX       16
#define API_METADATA_KEY_MAX   64
#define API_METADATA_VALUE_MAX 512
#define API_REQUEST_ID_MAX     128
#define API_LABEL_BYTES_MAX    512           /* user, prompt_cache_key, the id of a call .. */
#define API_TOOL_MAX           128           /* tools of one request */
#define API_TOOL_CALL_MAX      128           /* calls, and results, of one message in the history */
#define API_TOOL_NAME_MAX      64
#define API_SCHEMA_DEPTH_MAX   32            /* objects and arrays in each other */
#define API_SCHEMA_NODES_MAX   16384         /* values in the schemas of all tools */
#define API_SCHEMA_BYTES_MAX   (1u << 20)    /* of a schema that comes as a text */
#define API_FORMAT_NAME_MAX    64
#define API_FORMAT_CHOICE_MAX  4096          /* strings of choice */
#define API_FORMAT_CHOICE_BYTES_MAX 4096     /* of one of them */
#define API_GRAMMAR_MS         100           /* of work, to compile what an answer may be */
#define API_GRAMMAR_WARM_MS    500           /* and to look for its tokens before anybody waits */
#define API_GRAMMAR_CACHE_MAX  (256u << 20)  /* bytes of grammars that nobody may be using */
#define API_TEXT_HOLD_MAX      4096          /* decoded text of a choice without credit */
#define API_CACHE_SALT_MAX     128           /* bytes */
#define API_KEY_MAX            1024          /* keys in --api-key-file */
#define API_KEY_BYTES_MIN      8
#define API_KEY_BYTES_MAX      256
#define API_KEY_NAME_MAX       64
#define API_RETRY_MS           1000          /* where nobody knows better; see RETRY_MS_MAX */

#endif
