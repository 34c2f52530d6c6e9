/* curl_lib.h - libcurl, loaded when something is measured: a server runs without it. */
#ifndef ENGINE_CURL_LIB_H
#define ENGINE_CURL_LIB_H

#include <curl/curl.h>
#include "err.h"

/* The functions in use, named as in libcurl without their prefix. */
struct curl_lib {
    CURLcode    (*global_init)(long flags);
    CURL       *(*easy_init)(void);
    CURLcode    (*easy_setopt)(CURL *h, CURLoption o, ...);
    CURLcode    (*easy_getinfo)(CURL *h, CURLINFO i, ...);
    CURLcode    (*easy_perform)(CURL *h);
    void        (*easy_cleanup)(CURL *h);
    const char *(*easy_strerror)(CURLcode rc);
    struct curl_slist *(*slist_append)(struct curl_slist *l, const char *s);
    void        (*slist_free_all)(struct curl_slist *l);
    CURLM      *(*multi_init)(void);
    CURLMcode   (*multi_add_handle)(CURLM *m, CURL *h);
    CURLMcode   (*multi_remove_handle)(CURLM *m, CURL *h);
    CURLMcode   (*multi_perform)(CURLM *m, int *running);
    CURLMcode   (*multi_poll)(CURLM *m, struct curl_waitfd *fd, unsigned n, int ms, int *ready);
    CURLMsg    *(*multi_info_read)(CURLM *m, int *left);
    CURLMcode   (*multi_cleanup)(CURLM *m);
    const char *(*multi_strerror)(CURLMcode rc);
};

/* Once a process; E_IO: it is not installed. */
int curl_lib_open(struct curl_lib *c, struct err *e);

#endif
