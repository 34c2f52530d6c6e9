/* log.h - one line a message on stderr: time, level, words. Prompts never pass through here. */
#ifndef ENGINE_LOG_H
#define ENGINE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO };

void log_set_level(enum log_level level);       /* before threads start; default LOG_INFO */
__attribute__((format(printf, 2, 3)))
void log_line(enum log_level level, const char *fmt, ...);

#define log_error(...)  log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)   log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)   log_line(LOG_INFO, __VA_ARGS__)

#endif
