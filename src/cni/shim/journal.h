/* A DEL that finds no daemon is written down, so that the runtime can go on and the daemon can catch up when it starts.
 * One file for each sandbox: `berth-del/1 <FNV-1a of the next line>`, then the key as JSON. `src/store/journal.ts` reads it.
 * The daemon holds the folder's lock exclusively while it lives. Shims share it while they write: so nothing is written
 * between the daemon's reading and the opening of its socket. */
#ifndef BERTH_JOURNAL_H
#define BERTH_JOURNAL_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "berth-wire.h"
#include "text.h"

#define JOURNAL_RECORD_MAX 8192

/* JOURNAL_BUSY: a daemon holds the lock, so it is there and about to listen (or on its way out). */
enum journaled { JOURNAL_WRITTEN, JOURNAL_BUSY, JOURNAL_FULL, JOURNAL_FAILED };

static bool make_folders(const char *path) {
  char part[4096];
  size_t size = strlen(path);
  if (size == 0 || size >= sizeof part) return errno = ENAMETOOLONG, false;
  for (size_t at = 1; at <= size; at += 1) {
    if (path[at] != '/' && path[at] != '\0') continue;
    memcpy(part, path, at);
    part[at] = '\0';
    if (mkdir(part, 0700) != 0 && errno != EEXIST) return false;
  }
  return true;
}

static bool journal_is_full(int folder) {
  int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = again < 0 ? NULL : fdopendir(again);
  if (listing == NULL) {
    if (again >= 0) close(again);
    return false;
  }
  int count = 0;
  for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
    size_t size = strlen(entry->d_name);
    if (size > 4 && strcmp(entry->d_name + size - 4, ".del") == 0) count += 1;
  }
  closedir(listing);
  return count >= BERTH_JOURNAL_FILE_COUNT_MAX;
}

static bool write_whole(int fd, const char *bytes, size_t size) {
  while (size > 0) {
    ssize_t wrote = write(fd, bytes, size);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    bytes += wrote;
    size -= (size_t)wrote;
  }
  return true;
}

/* Aside, synced, renamed, folder synced: after a power cut there is the whole record or none. */
static bool put_record(int folder, const char *name, const struct text *record) {
  char aside[64];
  snprintf(aside, sizeof aside, "%.32s.%ld.tmp", name, (long)getpid());
  int fd = openat(folder, aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  bool done = write_whole(fd, record->bytes, record->size) && fsync(fd) == 0;
  int failure = errno;
  close(fd);
  if (done && renameat(folder, aside, folder, name) == 0) return fsync(folder) == 0;
  if (done) failure = errno;
  unlinkat(folder, aside, 0);
  errno = failure;
  return false;
}

static enum journaled journal_del(const char *folder_path, const char *network, const char *container, const char *interface) {
  char line_bytes[JOURNAL_RECORD_MAX], record_bytes[JOURNAL_RECORD_MAX + 64], head[64], key_bytes[JOURNAL_RECORD_MAX], name[48];
  struct text line = {line_bytes, 0, sizeof line_bytes, false}, key = {key_bytes, 0, sizeof key_bytes, false};
  const char *const parts[] = {network, container, interface};
  const char *const openings[] = {"{\"network\":", ",\"containerId\":", ",\"ifName\":"};
  for (int i = 0; i < 3; i += 1) {
    add(&line, openings[i]);
    add_json_string(&line, parts[i], strlen(parts[i]));
    add(&key, parts[i]);
    add(&key, "/");
  }
  add(&line, "}\n");
  if (line.cut || key.cut) return errno = ENAMETOOLONG, JOURNAL_FAILED;
  struct text record = {record_bytes, 0, sizeof record_bytes, false};
  snprintf(head, sizeof head, "berth-del/1 %016llx\n", (unsigned long long)fnv64(FNV_BASIS, line.bytes, line.size));
  add(&record, head);
  add_bytes(&record, line.bytes, line.size);
  /* Two hashes with different beginnings: 128 bits, so that no two sandboxes share a file. */
  snprintf(name, sizeof name, "%016llx%016llx.del", (unsigned long long)fnv64(FNV_BASIS, key.bytes, key.size),
           (unsigned long long)fnv64(~FNV_BASIS, key.bytes, key.size));

  if (!make_folders(folder_path)) return JOURNAL_FAILED;
  int folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return JOURNAL_FAILED;
  enum journaled result = JOURNAL_FAILED;
  int lock = openat(folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock >= 0) {
    if (flock(lock, LOCK_SH | LOCK_NB) != 0) result = errno == EWOULDBLOCK ? JOURNAL_BUSY : JOURNAL_FAILED;
    else if (faccessat(folder, name, F_OK, 0) != 0 && journal_is_full(folder)) result = JOURNAL_FULL;
    else if (put_record(folder, name, &record)) result = JOURNAL_WRITTEN;
  }
  int failure = errno;
  if (lock >= 0) close(lock);
  close(folder);
  errno = failure;
  return result;
}

#endif
