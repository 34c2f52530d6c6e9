/* sampling_in.h - setters of the fields that tell how ids are chosen; see field.h. */
#ifndef API_SAMPLING_IN_H
#define API_SAMPLING_IN_H

#include "field.h"

/* -1 is no seed. */
field_fn sampling_seed;
field_fn sampling_stop, sampling_stop_ids;
/* Shapes, numbers and lengths; that ids are in the vocabulary is checked by steering_open. */
field_fn sampling_bias, sampling_ids, sampling_words;
/* An object of sampling_repetition_fields. */
field_fn sampling_repetition;
extern const struct field sampling_repetition_fields[];

/* The id of a key of logit_bias, plain decimal digits; -1: it is none. */
int64_t sampling_bias_id(struct slice key);

#endif
