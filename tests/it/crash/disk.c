/* A disk that refuses, loaded before the C library (LD_PRELOAD): what a process asks of files under one folder is refused
 * with a chosen error, from the n-th time on and as often as wanted. Tests change their mind while the process runs, in the
 * file that HYDROMESH_TEST_DISK names; see disk.rs, which has the same layout. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, OPEN = 2, WRITE = 4, NAME = 8, SYNC = 16 };

struct control {
    uint32_t kinds;   /* which operations are refused; 0: none */
    int32_t error;    /* with which error */
    uint32_t pass;    /* so many are let through before */
    uint32_t times;   /* so many are refused; 0: all that follow */
    uint32_t seen;    /* so many were asked for */
    uint32_t refused; /* so many were refused */
    char places[1000]; /* beginnings of paths, each with a newline behind it */
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HYDROMESH_TEST_DISK");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED) control = shared;
}

static int concerned(const char *path) {
    const char *place = control->places, *end;
    for (; (end = strchr(place, '\n')); place = end + 1)
        if (strncmp(path, place, (size_t)(end - place)) == 0) return 1;
    return 0;
}

/* Returns whether an operation is refused; errno says why. */
static int refused(uint32_t kind, const char *path) {
    if (!control || !(__atomic_load_n(&control->kinds, __ATOMIC_ACQUIRE) & kind)) return 0;
    if (!concerned(path)) return 0;
    uint32_t seen = __atomic_fetch_add(&control->seen, 1, __ATOMIC_ACQ_REL);
    if (seen < control->pass) return 0;
    if (control->times && seen - control->pass >= control->times) return 0;
    __atomic_fetch_add(&control->refused, 1, __ATOMIC_ACQ_REL);
    errno = control->error;
    return 1;
}

static int active(uint32_t kind) {
    return control && (__atomic_load_n(&control->kinds, __ATOMIC_ACQUIRE) & kind);
}

static int refused_fd(uint32_t kind, int file) {
    char link[64], path[PATH_MAX];
    if (!active(kind)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return refused(kind, path);
}

static int refused_at(uint32_t kind, int folder, const char *name) {
    char link[64], path[PATH_MAX * 2];
    if (!active(kind)) return 0;
    if (folder == AT_FDCWD || name[0] == '/') return refused(kind, name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length < 0) return 0;
    snprintf(path + length, PATH_MAX, "/%s", name);
    return refused(kind, path);
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int refused_open(int folder, const char *path, int flags) {
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    if (writes && refused_at(OPEN, folder, path)) return 1;
    if (!(flags & O_CREAT) || !active(CREATE)) return 0;
    return faccessat(folder, path, F_OK, 0) != 0 && refused_at(CREATE, folder, path);
}

#define OPENS(function, called) \
    int function(const char *path, int flags, ...) { \
        NEXT(int, called, const char *, int, mode_t); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return refused_open(AT_FDCWD, path, flags) ? -1 : next(path, flags, mode); \
    }
OPENS(open, "open")
OPENS(open64, "open64")

#define OPENS_AT(function, called) \
    int function(int folder, const char *path, int flags, ...) { \
        NEXT(int, called, int, const char *, int, mode_t); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return refused_open(folder, path, flags) ? -1 : next(folder, path, flags, mode); \
    }
OPENS_AT(openat, "openat")
OPENS_AT(openat64, "openat64")

ssize_t write(int file, const void *bytes, size_t count) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    return refused_fd(WRITE, file) ? -1 : next(file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    return refused_fd(WRITE, file) ? -1 : next(file, parts, count);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) {
    NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t);
    return refused_fd(WRITE, file) ? -1 : next(file, bytes, count, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return refused_fd(WRITE, file) ? -1 : next(file, bytes, count, at);
}

int fsync(int file) {
    NEXT(int, "fsync", int);
    return refused_fd(SYNC, file) ? -1 : next(file);
}

int fdatasync(int file) {
    NEXT(int, "fdatasync", int);
    return refused_fd(SYNC, file) ? -1 : next(file);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(int, "mkdir", const char *, mode_t);
    return access(path, F_OK) != 0 && refused(CREATE, path) ? -1 : next(path, mode);
}

int rename(const char *from, const char *to) {
    NEXT(int, "rename", const char *, const char *);
    return refused(NAME, to) ? -1 : next(from, to);
}

int link(const char *from, const char *to) {
    NEXT(int, "link", const char *, const char *);
    return refused(CREATE, to) ? -1 : next(from, to);
}

int linkat(int left, const char *from, int right, const char *to, int flags) {
    NEXT(int, "linkat", int, const char *, int, const char *, int);
    return refused_at(CREATE, right, to) ? -1 : next(left, from, right, to, flags);
}

int symlink(const char *to, const char *path) {
    NEXT(int, "symlink", const char *, const char *);
    return refused(CREATE, path) ? -1 : next(to, path);
}

int unlink(const char *path) {
    NEXT(int, "unlink", const char *);
    return refused(NAME, path) ? -1 : next(path);
}

int unlinkat(int folder, const char *path, int flags) {
    NEXT(int, "unlinkat", int, const char *, int);
    return refused_at(NAME, folder, path) ? -1 : next(folder, path, flags);
}

int rmdir(const char *path) {
    NEXT(int, "rmdir", const char *);
    return refused(NAME, path) ? -1 : next(path);
}
