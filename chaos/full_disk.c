/* A disk that fills up at a chosen write, for a library that writes by itself, as SQLite does: preload it into the
   program. Counted are the writes to files whose path begins with what `disk_begin` was given; what other processes
   write is not. The write that fills the disk leaves half of its bytes, and every later one says ENOSPC until there is
   room again. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char watched[PATH_MAX], filled_by[PATH_MAX];
static atomic_long writes, full_at;
static atomic_int full;

void disk_begin(const char *prefix, long at)
{
    watched[0] = 0;
    filled_by[0] = 0;
    atomic_store(&writes, 0);
    atomic_store(&full, 0);
    atomic_store(&full_at, at);
    snprintf(watched, sizeof watched, "%s", prefix);
}

long disk_writes(void) { return atomic_load(&writes); }
int disk_is_full(void) { return atomic_load(&full); }
const char *disk_filled_by(void) { return filled_by; }

void disk_make_room(void)
{
    atomic_store(&full_at, 0);
    atomic_store(&full, 0);
}

static int lies_on_disk(int descriptor, char *path)
{
    char link[64];
    if (!watched[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, watched, strlen(watched)) == 0;
}

/* How many of `count` bytes there is room for; -1 with errno where there is none. */
static ssize_t take(int descriptor, size_t count)
{
    char path[PATH_MAX];
    int before = errno;
    int counts = lies_on_disk(descriptor, path);
    errno = before;
    if (!counts)
        return (ssize_t)count;
    long number = atomic_fetch_add(&writes, 1) + 1;
    if (!atomic_load(&full) && number != atomic_load(&full_at))
        return (ssize_t)count;
    if (!atomic_exchange(&full, 1)) {
        snprintf(filled_by, sizeof filled_by, "%s", path);
        if (count > 1)
            return (ssize_t)(count / 2);
    }
    errno = ENOSPC;
    return -1;
}

ssize_t write(int descriptor, const void *data, size_t count)
{
    static ssize_t (*original)(int, const void *, size_t);
    if (!original)
        original = dlsym(RTLD_NEXT, "write");
    ssize_t room = take(descriptor, count);
    return room < 0 ? room : original(descriptor, data, (size_t)room);
}

ssize_t pwrite64(int descriptor, const void *data, size_t count, off64_t offset)
{
    static ssize_t (*original)(int, const void *, size_t, off64_t);
    if (!original)
        original = dlsym(RTLD_NEXT, "pwrite64");
    ssize_t room = take(descriptor, count);
    return room < 0 ? room : original(descriptor, data, (size_t)room, offset);
}
