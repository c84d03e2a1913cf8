/* Preloaded into a server under test: keeps a second copy of its data directory that holds only what was
 * synced, as a disk without power would.
 *
 * write and pwrite go through and note which bytes of a file are new. fsync and fdatasync go through, and
 * only then copy the new bytes, and the length, into POWER_CUT_SHADOW/inode-<number>. A sync of the directory
 * writes POWER_CUT_SHADOW/names: which name is which inode. So a name counts only after a sync of its
 * directory, and bytes only after a sync of their file.
 *
 * For machines whose off_t has 64 bits, where pwrite and pwrite64 are the same.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 256
#define PATH 4096

struct dirty {
    ino_t inode;
    off_t first, last; /* bytes first .. last - 1 are not synced */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct dirty files[FILES];
static const char *watched, *shadow;
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int);

__attribute__((constructor)) static void prepare(void) {
    watched = getenv("POWER_CUT_WATCHED");
    shadow = getenv("POWER_CUT_SHADOW");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
}

/* Whether a descriptor is the watched directory (2), a file below it (1), or neither (0). */
static int kind_of(int fd, struct stat *about) {
    char link[64], path[PATH];
    if (!watched || !shadow || fstat(fd, about)) return 0;
    if (!S_ISREG(about->st_mode) && !S_ISDIR(about->st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(watched);
    if (strncmp(path, watched, prefix)) return 0;
    if (path[prefix] == 0) return 2;
    return path[prefix] == '/' ? 1 : 0;
}

static struct dirty *entry(ino_t inode) {
    struct dirty *unused = NULL;
    for (int i = 0; i < FILES; i++) {
        if (files[i].inode == inode) return &files[i];
        if (!files[i].inode && !unused) unused = &files[i];
    }
    if (!unused) abort();
    unused->inode = inode;
    unused->first = unused->last = 0;
    return unused;
}

static void note(int fd, off_t first, off_t last) {
    struct stat about;
    if (last <= first || kind_of(fd, &about) != 1) return;
    pthread_mutex_lock(&lock);
    struct dirty *file = entry(about.st_ino);
    if (file->first == file->last) {
        file->first = first;
        file->last = last;
    } else {
        if (first < file->first) file->first = first;
        if (last > file->last) file->last = last;
    }
    pthread_mutex_unlock(&lock);
}

static void keep_file(int fd, const struct stat *about) {
    char path[PATH], buffer[65536];
    snprintf(path, sizeof path, "%s/inode-%lu", shadow, (unsigned long)about->st_ino);
    snprintf(buffer, sizeof buffer, "/proc/self/fd/%d", fd);
    int from = open(buffer, O_RDONLY), to = open(path, O_WRONLY | O_CREAT, 0600);
    if (from < 0 || to < 0) abort();
    struct dirty *file = entry(about->st_ino);
    off_t at = file->first;
    while (at < file->last) {
        size_t want = sizeof buffer;
        if ((off_t)want > file->last - at) want = (size_t)(file->last - at);
        ssize_t got = pread(from, buffer, want, at);
        if (got <= 0) break;
        if (real_pwrite(to, buffer, (size_t)got, at) != got) abort();
        at += got;
    }
    struct stat now;
    if (fstat(from, &now) || ftruncate(to, now.st_size)) abort();
    file->inode = 0;
    close(from);
    close(to);
}

static void keep_names(void) {
    char path[PATH], made[PATH];
    snprintf(path, sizeof path, "%s/names", shadow);
    snprintf(made, sizeof made, "%s/names.part", shadow);
    DIR *directory = opendir(watched);
    FILE *names = fopen(made, "w");
    if (!directory || !names) abort();
    for (struct dirent *one; (one = readdir(directory));)
        if (one->d_type == DT_REG) fprintf(names, "%lu %s\n", (unsigned long)one->d_ino, one->d_name);
    closedir(directory);
    fclose(names);
    if (rename(made, path)) abort();
}

static int synced(int fd, int result) {
    struct stat about;
    int kind = result ? 0 : kind_of(fd, &about);
    if (kind) {
        pthread_mutex_lock(&lock);
        if (kind == 1) keep_file(fd, &about);
        else keep_names();
        pthread_mutex_unlock(&lock);
    }
    return result;
}

ssize_t write(int fd, const void *data, size_t count) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t done = real_write(fd, data, count);
    if (done > 0 && at >= 0) note(fd, at, at + done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t at) {
    ssize_t done = real_pwrite(fd, data, count, at);
    if (done > 0) note(fd, at, at + done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { return pwrite64(fd, data, count, at); }

int fsync(int fd) { return synced(fd, real_fsync(fd)); }

int fdatasync(int fd) { return synced(fd, real_fdatasync(fd)); }
