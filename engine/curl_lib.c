#include "curl_lib.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#define ROW(name)  { "curl_" #name, offsetof(struct curl_lib, name) }

static const struct { const char *name; size_t off; } rows[] = {
    ROW(global_init), ROW(easy_init), ROW(easy_setopt), ROW(easy_getinfo), ROW(easy_perform),
    ROW(easy_cleanup), ROW(easy_strerror), ROW(slist_append), ROW(slist_free_all),
    ROW(multi_init), ROW(multi_add_handle), ROW(multi_remove_handle), ROW(multi_perform),
    ROW(multi_poll), ROW(multi_info_read), ROW(multi_cleanup), ROW(multi_strerror),
};

int curl_lib_open(struct curl_lib *c, struct err *e)
{
    static const char *const name[] = { "libcurl.so.4", "libcurl-gnutls.so.4", "libcurl-nss.so.4" };
    void *dl = NULL, *f;

    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]) && dl == NULL; i++)
        dl = dlopen(name[i], RTLD_NOW | RTLD_LOCAL);
    if (dl == NULL)
        return err_set(e, E_IO, "bench serve: libcurl.so.4 cannot be opened: install libcurl4");

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if ((f = dlsym(dl, rows[i].name)) == NULL)
            return err_set(e, E_IO, "bench serve: libcurl has no %s: 7.66 or newer is needed",
                           rows[i].name);
        memcpy((char *) c + rows[i].off, &f, sizeof(f));
    }
    if (c->global_init(CURL_GLOBAL_ALL) != CURLE_OK)
        return err_set(e, E_IO, "bench serve: libcurl cannot be initialised");
    return 0;
}
