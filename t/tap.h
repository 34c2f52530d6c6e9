/* tap.h - just enough TAP for the C tests: ok(), is_int(), is_str(), done_testing(). All files
 * of a program count as one. */
#ifndef T_TAP_H
#define T_TAP_H

#include <stdio.h>
#include <string.h>

__attribute__((weak)) int tap_n, tap_failed;

__attribute__((format(printf, 2, 3), unused))
static int ok(int cond, const char *fmt, ...)
{
    char name[400];
    __builtin_va_list ap;

    __builtin_va_start(ap, fmt);
    vsnprintf(name, sizeof(name), fmt, ap);
    __builtin_va_end(ap);

    printf("%sok %d - %s\n", cond ? "" : "not ", ++tap_n, name);
    tap_failed += !cond;
    fflush(stdout);
    return cond;
}

#define is_int(got, want, ...) do {                                                        \
        long long tap_g = (long long) (got), tap_w = (long long) (want);                   \
        if (!ok(tap_g == tap_w, __VA_ARGS__))                                              \
            printf("# got %lld, want %lld (%s:%d)\n", tap_g, tap_w, __FILE__, __LINE__);   \
    } while (0)

#define is_str(got, want, ...) do {                                                        \
        const char *tap_g = (got), *tap_w = (want);                                        \
        if (!ok(strcmp(tap_g, tap_w) == 0, __VA_ARGS__))                                   \
            printf("# got  '%s'\n# want '%s' (%s:%d)\n", tap_g, tap_w, __FILE__, __LINE__);\
    } while (0)

__attribute__((unused))
static int done_testing(void)
{
    printf("1..%d\n", tap_n);
    return tap_failed != 0;
}

#endif
