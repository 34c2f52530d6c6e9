/* early.c - requests that generate nothing yet: their body is being received or read. Others may
 * look for them by id, under the lock of the port's generations; who becomes one goes from this
 * list to that at once. */
#include "work.h"

#include <string.h>

void early_add(struct stream *st)
{
    struct port *p = st->link->port;

    pthread_mutex_lock(&p->gens_lock);
    st->early_next = p->early;
    st->early_link = &p->early;
    if (st->early_next != NULL)
        st->early_next->early_link = &st->early_next;
    p->early = st;
    pthread_mutex_unlock(&p->gens_lock);
}

bool early_leave(struct stream *st)
{
    if (st->early_link != NULL) {
        *st->early_link = st->early_next;
        if (st->early_next != NULL)
            st->early_next->early_link = st->early_link;
        st->early_link = NULL;
    }
    return st->aborted;
}

void early_remove(struct stream *st)
{
    struct port *p = st->link->port;

    pthread_mutex_lock(&p->gens_lock);
    (void) early_leave(st);
    pthread_mutex_unlock(&p->gens_lock);
}

void early_rename(struct stream *st, struct slice id)
{
    struct port *p = st->link->port;

    pthread_mutex_lock(&p->gens_lock);
    memcpy(st->request_id, id.p, id.n);
    st->request_id[id.n] = '\0';
    pthread_mutex_unlock(&p->gens_lock);
}

int early_abort(struct port *p, const char *request_id)
{
    int n = 0;

    for (struct stream *st = p->early; st != NULL; st = st->early_next) {
        if (strcmp(st->request_id, request_id) != 0)
            continue;
        st->aborted = true;
        n++;
    }
    return n;
}

static struct stream *take_aborted(struct port *p)
{
    struct stream *st;

    pthread_mutex_lock(&p->gens_lock);
    for (st = p->early; st != NULL && !st->aborted; st = st->early_next)
        ;
    if (st != NULL)
        (void) early_leave(st);
    pthread_mutex_unlock(&p->gens_lock);
    return st;
}

void early_end(struct port *p)
{
    struct stream *st;
    struct api_err e;

    while ((st = take_aborted(p)) != NULL) {
        if (st->work != NULL)
            work_abandon(st->work);
        st->work = NULL;
        http_aborted(st, &e);
        http_error(st, &e);
    }
}
