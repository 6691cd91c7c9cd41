/* A disk whose power may be cut, loaded before the C library (LD_PRELOAD): whatever a process changes below one folder is done
 * and noted, in one order, in a journal. power.rs plays the journal up to any point and decides what of it was on the disk by
 * then; it has the same record. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct record {
    uint32_t kind;
    uint32_t first;  /* bytes that follow */
    uint32_t second; /* bytes that follow those */
    uint32_t spare;
    uint64_t inode;
    uint64_t at; /* offset or length */
};

static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static int journal = -1;

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("HYDROMESH_TEST_POWER_ROOT"), *path = getenv("HYDROMESH_TEST_POWER_JOURNAL");
    if (!place || !path) return;
    snprintf(root, sizeof root, "%s/", place);
    journal = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void all_of(const void *bytes, size_t count) {
    while (count) {
        ssize_t done = syscall(SYS_write, journal, bytes, count);
        if (done <= 0) abort();
        bytes = (const char *)bytes + done;
        count -= (size_t)done;
    }
}

static void note(char kind, uint64_t inode, uint64_t at, const void *first, size_t a, const void *second, size_t b) {
    struct record record = {(uint32_t)kind, (uint32_t)a, (uint32_t)b, 0, inode, at};
    int before = errno;
    all_of(&record, sizeof record);
    all_of(first, a);
    all_of(second, b);
    errno = before;
}

static void named(char kind, uint64_t inode, const char *one, const char *two) {
    note(kind, inode, 0, one, strlen(one), two, strlen(two));
}

/* Returns where below the folder a path leads, in a buffer; nothing if it is elsewhere, or nothing that has to last. */
static const char *inside(char *buffer, int folder, const char *path) {
    if (journal < 0) return NULL;
    if (folder != AT_FDCWD && path[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, buffer, PATH_MAX);
        if (length < 0) return NULL;
        snprintf(buffer + length, PATH_MAX, "/%s", path);
    } else {
        snprintf(buffer, 2 * PATH_MAX, "%s", path);
    }
    size_t length = strlen(root);
    /* The folder itself. */
    if (strlen(buffer) == length - 1 && !strncmp(buffer, root, length - 1)) return buffer + length - 1;
    if (strncmp(buffer, root, length) != 0) return NULL;
    const char *rest = buffer + length, *end = strrchr(rest, '-');
    if (!strncmp(rest, "repo", 4) || !strncmp(rest, "topics", 6) || !strncmp(rest, "spill", 5)) return NULL;
    return end && !strcmp(end, "-shm") ? NULL : rest;
}

static const char *inside_file(char *buffer, int file, struct stat *about) {
    char link[64];
    if (journal < 0) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0 || buffer[0] != '/') return NULL;
    buffer[length] = 0;
    char copy[2 * PATH_MAX];
    const char *rest = inside(copy, AT_FDCWD, buffer);
    if (!rest || fstat(file, about) != 0) return NULL;
    return memmove(buffer, rest, strlen(rest) + 1);
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define LOCK pthread_mutex_lock(&order)
#define UNLOCK(result) \
    do { \
        int before = errno; \
        pthread_mutex_unlock(&order); \
        errno = before; \
        return result; \
    } while (0)

static void opened(int file, const char *rest, int flags, int there) {
    struct stat about;
    if (file < 0 || fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) return;
    if (!there && (flags & O_CREAT)) named('C', about.st_ino, rest, "");
    else if (there && (flags & O_TRUNC)) note('T', about.st_ino, 0, "", 0, "", 0);
}

#define OPENS(function, called, FOLDER, ...) \
    int function(__VA_ARGS__ const char *path, int flags, ...) { \
        NEXT(int, "openat", int, const char *, int, mode_t); \
        char buffer[2 * PATH_MAX]; \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        const char *rest = (flags & (O_CREAT | O_TRUNC)) ? inside(buffer, FOLDER, path) : NULL; \
        if (!rest) return next(FOLDER, path, flags, mode); \
        LOCK; \
        int there = faccessat(FOLDER, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0; \
        int file = next(FOLDER, path, flags, mode); \
        opened(file, rest, flags, there); \
        UNLOCK(file); \
    }
#define NOTHING
OPENS(open, "openat", AT_FDCWD, NOTHING)
OPENS(open64, "openat", AT_FDCWD, NOTHING)
#define A_FOLDER int folder,
OPENS(openat, "openat", folder, A_FOLDER)
OPENS(openat64, "openat", folder, A_FOLDER)

ssize_t write(int file, const void *bytes, size_t count) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    char buffer[2 * PATH_MAX];
    struct stat about;
    if (!inside_file(buffer, file, &about)) return next(file, bytes, count);
    LOCK;
    ssize_t done = next(file, bytes, count);
    if (done > 0) {
        off_t end = lseek(file, 0, SEEK_CUR);
        note('W', about.st_ino, (uint64_t)(end - done), bytes, (size_t)done, "", 0);
    }
    UNLOCK(done);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    char buffer[2 * PATH_MAX];
    struct stat about;
    if (!inside_file(buffer, file, &about)) return next(file, parts, count);
    /* One part at a time: who calls goes on with the rest. */
    for (int at = 0; at < count; at++)
        if (parts[at].iov_len) return write(file, parts[at].iov_base, parts[at].iov_len);
    return 0;
}

#define PWRITES(function, type) \
    ssize_t function(int file, const void *bytes, size_t count, type at) { \
        NEXT(ssize_t, "pwrite64", int, const void *, size_t, type); \
        char buffer[2 * PATH_MAX]; \
        struct stat about; \
        if (!inside_file(buffer, file, &about)) return next(file, bytes, count, at); \
        LOCK; \
        ssize_t done = next(file, bytes, count, at); \
        if (done > 0) note('W', about.st_ino, (uint64_t)at, bytes, (size_t)done, "", 0); \
        UNLOCK(done); \
    }
PWRITES(pwrite, off_t)
PWRITES(pwrite64, off64_t)

#define TRUNCATES(function, type) \
    int function(int file, type length) { \
        NEXT(int, "ftruncate64", int, type); \
        char buffer[2 * PATH_MAX]; \
        struct stat about; \
        if (!inside_file(buffer, file, &about)) return next(file, length); \
        LOCK; \
        int done = next(file, length); \
        if (done == 0) note('T', about.st_ino, (uint64_t)length, "", 0, "", 0); \
        UNLOCK(done); \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

/* Those who copy files within the system do it with reads and writes. */
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t count, unsigned flags) {
    (void)in, (void)a, (void)out, (void)b, (void)count, (void)flags;
    errno = ENOSYS;
    return -1;
}

#define SYNCS(function, called) \
    int function(int file) { \
        NEXT(int, called, int); \
        char buffer[2 * PATH_MAX]; \
        struct stat about; \
        if (!inside_file(buffer, file, &about)) return next(file); \
        LOCK; \
        int done = next(file); \
        if (done == 0 && S_ISDIR(about.st_mode)) named('D', 0, buffer, ""); \
        else if (done == 0) note('S', about.st_ino, 0, "", 0, "", 0); \
        UNLOCK(done); \
    }
SYNCS(fsync, "fsync")
SYNCS(fdatasync, "fdatasync")

#define DONE(kind, called, one, two) \
    do { \
        LOCK; \
        int done = called; \
        if (done == 0) named(kind, 0, one, two); \
        UNLOCK(done); \
    } while (0)

int mkdir(const char *path, mode_t mode) {
    NEXT(int, "mkdir", const char *, mode_t);
    char buffer[2 * PATH_MAX];
    const char *rest = inside(buffer, AT_FDCWD, path);
    if (!rest) return next(path, mode);
    DONE('M', next(path, mode), rest, "");
}

int rename(const char *from, const char *to) {
    NEXT(int, "rename", const char *, const char *);
    char one[2 * PATH_MAX], two[2 * PATH_MAX];
    const char *before = inside(one, AT_FDCWD, from), *after = inside(two, AT_FDCWD, to);
    if (!before || !after) return next(from, to);
    DONE('R', next(from, to), before, after);
}

int linkat(int left, const char *from, int right, const char *to, int flags) {
    NEXT(int, "linkat", int, const char *, int, const char *, int);
    char one[2 * PATH_MAX], two[2 * PATH_MAX];
    const char *before = inside(one, left, from), *after = inside(two, right, to);
    if (!before || !after) return next(left, from, right, to, flags);
    DONE('L', next(left, from, right, to, flags), before, after);
}

int link(const char *from, const char *to) {
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlink(const char *to, const char *path) {
    NEXT(int, "symlink", const char *, const char *);
    char buffer[2 * PATH_MAX];
    const char *rest = inside(buffer, AT_FDCWD, path);
    if (!rest) return next(to, path);
    DONE('Y', next(to, path), rest, to);
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(int, "unlinkat", int, const char *, int);
    char buffer[2 * PATH_MAX];
    const char *rest = inside(buffer, folder, path);
    if (!rest) return next(folder, path, flags);
    DONE('U', next(folder, path, flags), rest, "");
}

int unlink(const char *path) {
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path) {
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
