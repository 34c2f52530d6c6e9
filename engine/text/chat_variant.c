/* chat_variant.c - which of the two official templates a model directory holds. */
#include "chat.h"

#include "file.h"
#include "sha256.h"

#include <stdlib.h>
#include <string.h>

#define TEMPLATE_BYTES_MAX (1u << 20)

/* The templates of 2026-07-09, whose bytes chat_render reproduces: the first 64 bits of SHA-256. */
static const struct { uint64_t hash; enum chat_variant variant; } official[] = {
    { 0xdf269903ea2e27a6u, CHAT_LARGE },
    { 0x3beb16a140a78c7bu, CHAT_SMALL },
};

int chat_variant_detect(const char *dir, enum chat_variant *v, bool *known, bool *found,
                        struct err *e)
{
    /* As the template's source spells it, with a backslash and an n. */
    static const char closed[] = "<|channel>thought\\n<channel|>";
    char              path[4096], *text;
    size_t            n;
    uint64_t          hash;
    int               rc;

    *v = CHAT_LARGE;
    *known = *found = false;
    if ((size_t) snprintf(path, sizeof(path), "%s/chat_template.jinja", dir) >= sizeof(path))
        return err_set(e, E_INVALID, "chat template: the path is too long");
    if ((rc = file_read(path, TEMPLATE_BYTES_MAX, &text, &n, e)) != 0)
        return rc == E_IO ? 0 : rc;

    hash = sha256_64(text, n);
    *found = true;
    *v = CHAT_SMALL;
    for (size_t i = 0; i + sizeof(closed) - 1 <= n && *v == CHAT_SMALL; i++)
        if (memcmp(text + i, closed, sizeof(closed) - 1) == 0)
            *v = CHAT_LARGE;
    for (size_t i = 0; i < sizeof(official) / sizeof(official[0]); i++) {
        if (official[i].hash == hash) {
            *v = official[i].variant;
            *known = true;
        }
    }
    free(text);
    return 0;
}
