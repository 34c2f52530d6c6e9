/* keys.h - the API keys of clients: who may come in, as whom, and as an operator or not.
 *
 * A text file, one key a line: KEY [NAME [admin]], with '#' for lines of comment. Keys of one NAME
 * are one tenant, so a key can be replaced by another without a loss of prefixes; a key without a
 * name is a tenant of its own. Keys themselves are not kept, only a keyed hash of each, and each
 * comparison looks at all of them. Any thread. */
#ifndef API_KEYS_H
#define API_KEYS_H

#include "buf.h"
#include "err.h"
#include "hash.h"

enum key_role { KEY_NONE, KEY_USER, KEY_ADMIN };

struct keyring;                     /* keyring_open .. keyring_close */

/* Reads the file; path and the secret are borrowed. E_IO, or E_INVALID: e names the line, never
 * what stands there. */
int  keyring_open(struct keyring **out, const char *path, const struct hash_key *secret,
                  struct err *e);
/* Read it again. A file that is wrong changes nothing. */
int  keyring_reload(struct keyring *k, struct err *e);
void keyring_close(struct keyring *k);         /* NULL is fine */

/* KEY_NONE, or the role of the key and its tenant. */
enum key_role keyring_find(struct keyring *k, struct slice key, struct hash128 *tenant);
int  keyring_n(struct keyring *k, enum key_role role);   /* keys of this role */

#endif
