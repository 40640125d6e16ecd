/*
 * Kills its process at the N-th kill point: for LD_PRELOAD, with the environment
 *
 *   KILLPOINT_AT     N, from 1 on; unset or 0 kills nobody
 *   KILLPOINT_CALLS  sync: what makes the disk keep something; send: what says something to somebody; all: both
 *   KILLPOINT_COUNT  a file that gets the number of points that were passed, when the process ends by itself
 *
 * There is one point before each of these calls and one after it, counted over all threads.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SYNC = 1, SEND = 2 };

static atomic_long passed;
static long at;
static int calls;

__attribute__((constructor)) static void begin(void) {
  const char *number = getenv("KILLPOINT_AT");
  const char *kind = getenv("KILLPOINT_CALLS");
  at = number ? atol(number) : 0;
  if (kind && strcmp(kind, "sync") == 0) calls = SYNC;
  else if (kind && strcmp(kind, "send") == 0) calls = SEND;
  else calls = SYNC | SEND;
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("KILLPOINT_COUNT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) {
    fprintf(file, "%ld\n", atomic_load(&passed));
    fclose(file);
  }
}

static void point(int kind) {
  if ((calls & kind) && atomic_fetch_add(&passed, 1) + 1 == at) kill(getpid(), SIGKILL);
}

#define WRAPPED(kind, result, name, parameters, arguments)              \
  result name parameters {                                              \
    static result(*real) parameters;                                    \
    if (!real) real = (result(*) parameters)dlsym(RTLD_NEXT, #name);    \
    point(kind);                                                        \
    result answer = real arguments;                                     \
    int error = errno;                                                  \
    point(kind);                                                        \
    errno = error;                                                      \
    return answer;                                                      \
  }

WRAPPED(SYNC, int, fsync, (int fd), (fd))
WRAPPED(SYNC, int, fdatasync, (int fd), (fd))
WRAPPED(SEND, ssize_t, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
WRAPPED(SEND, ssize_t, sendto,
        (int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length),
        (fd, data, size, flags, to, length))
WRAPPED(SEND, ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAPPED(SEND, ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
