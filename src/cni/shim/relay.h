/* One request to the daemon and its answer, within the verb's budgets; what to do when there is no daemon. */
#ifndef BERTH_RELAY_H
#define BERTH_RELAY_H

#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "config.h"
#include "plugin.h"

/* --- The frame ----------------------------------------------------------------------------------------------------------- */

static void put16(char *at, unsigned value) { at[0] = (char)value, at[1] = (char)(value >> 8); }
static void put32(char *at, uint32_t value) { put16(at, value & 0xffff), put16(at + 2, value >> 16); }
static unsigned get16(const char *at) { return (unsigned char)at[0] | (unsigned)(unsigned char)at[1] << 8; }
static uint32_t get32(const char *at) { return get16(at) | (uint32_t)get16(at + 2) << 16; }

static char *put_field(char *at, const char *bytes, size_t size) {
  put32(at, (uint32_t)size);
  memcpy(at + 4, bytes, size);
  return at + 4 + size;
}

/* The deadline is put in at each sending. NULL when there is no memory. */
static char *make_frame(const char *input, size_t input_size, size_t *size) {
  size_t body_size = 4 + input_size;
  for (int i = 0; i < BERTH_VARIABLE_COUNT; i += 1) body_size += 4 + strlen(variables[i]);
  *size = BERTH_REQUEST_HEAD_SIZE + body_size;
  char *frame = calloc(1, *size);
  if (frame == NULL) return NULL;
  memcpy(frame + BERTH_REQUEST_MAGIC_AT, BERTH_MAGIC, 4);
  put16(frame + BERTH_REQUEST_VERSION_AT, BERTH_PROTOCOL_VERSION);
  if (getrandom(frame + BERTH_REQUEST_ID_AT, 16, 0) != 16) return NULL;
  put32(frame + BERTH_REQUEST_BODY_SIZE_AT, (uint32_t)body_size);
  char *at = frame + BERTH_REQUEST_HEAD_SIZE;
  for (int i = 0; i < BERTH_VARIABLE_COUNT; i += 1) at = put_field(at, variables[i], strlen(variables[i]));
  put_field(at, input, input_size);
  return frame;
}

/* --- The daemon ---------------------------------------------------------------------------------------------------------- */

/* Connects, and waits while there is no socket yet or nobody behind it. -1 with errno when `end` has come, or for other reasons. */
static int connect_until(int64_t end) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, socket_path); /* Its length was checked. */
  for (int64_t wait = 2;; wait = earlier(wait * 2, 100)) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    int failure = errno;
    close(fd);
    errno = failure;
    bool may_come = failure == ENOENT || failure == ECONNREFUSED || failure == EAGAIN || failure == EINTR;
    if (!may_come || now_ms() >= end) return -1;
    pause_ms(earlier(wait, end - now_ms()));
  }
}

/* EXCHANGE_LOST: the connection ended before the answer did. EXCHANGE_AGAIN: the daemon is on its way out and did nothing. */
enum exchange { EXCHANGE_DONE, EXCHANGE_AGAIN, EXCHANGE_LOST, EXCHANGE_SILENT, EXCHANGE_UNREADABLE };

/* The daemon may answer and close before it has read all (it is full, or speaks another version): then the answer counts. */
static bool send_frame(int fd, const char *bytes, size_t size, int64_t end) {
  while (size > 0) {
    ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes += sent;
      size -= (size_t)sent;
    } else if (sent < 0 && errno == EAGAIN) {
      if (!ready(fd, POLLOUT, end)) return false;
    } else if (sent < 0 && errno != EINTR) {
      return true;
    }
  }
  return true;
}

static enum exchange receive(int fd, char *bytes, size_t size, int64_t end) {
  while (size > 0) {
    ssize_t got = recv(fd, bytes, size, 0);
    if (got > 0) {
      bytes += got;
      size -= (size_t)got;
    } else if (got < 0 && errno == EAGAIN) {
      if (!ready(fd, POLLIN, end)) return EXCHANGE_SILENT;
    } else if (got == 0 || errno != EINTR) {
      return EXCHANGE_LOST;
    }
  }
  return EXCHANGE_DONE;
}

struct answer {
  int exit_code;
  unsigned version;
  size_t size;
  char *bytes;
};

static enum exchange exchange(int fd, const char *frame, size_t frame_size, int64_t end, struct answer *answer) {
  char head[BERTH_ANSWER_HEAD_SIZE];
  if (!send_frame(fd, frame, frame_size, end)) return EXCHANGE_SILENT;
  /* Magic and version stand where they are in every version; the rest is read once they are understood. */
  enum exchange got = receive(fd, head, BERTH_ANSWER_VERSION_AT + 2, end);
  if (got != EXCHANGE_DONE) return got;
  if (memcmp(head + BERTH_ANSWER_MAGIC_AT, BERTH_MAGIC, 4) != 0) return EXCHANGE_UNREADABLE;
  answer->version = get16(head + BERTH_ANSWER_VERSION_AT);
  int distance = (int)answer->version - BERTH_PROTOCOL_VERSION;
  if (answer->version == 0 || distance < -1 || distance > 1) return EXCHANGE_UNREADABLE;
  got = receive(fd, head + BERTH_ANSWER_VERSION_AT + 2, sizeof head - BERTH_ANSWER_VERSION_AT - 2, end);
  if (got != EXCHANGE_DONE) return got;
  unsigned kind = get16(head + BERTH_ANSWER_KIND_AT);
  if (kind == BERTH_ANSWER_KIND_AGAIN) return EXCHANGE_AGAIN;
  answer->exit_code = (int)get32(head + BERTH_ANSWER_EXIT_CODE_AT);
  answer->size = get32(head + BERTH_ANSWER_BODY_SIZE_AT);
  if (kind != BERTH_ANSWER_KIND_DONE || answer->size > BERTH_ANSWER_SIZE_MAX) return EXCHANGE_UNREADABLE;
  answer->bytes = malloc(answer->size + 1);
  return answer->bytes == NULL ? EXCHANGE_UNREADABLE : receive(fd, answer->bytes, answer->size, end);
}

/* True while the daemon's absence is short enough to be a restart: by when it last touched its heartbeat, and what it allows. */
static bool within_grace(void) {
  char path[sizeof(struct sockaddr_un) + sizeof BERTH_HEARTBEAT_SUFFIX], text[32] = "";
  snprintf(path, sizeof path, "%s%s", socket_path, BERTH_HEARTBEAT_SUFFIX);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat file;
  struct timeval now;
  if (fd < 0) return false;
  bool seen = fstat(fd, &file) == 0 && gettimeofday(&now, NULL) == 0 && read(fd, text, sizeof text - 1) >= 0;
  close(fd);
  if (!seen) return false;
  long grace_ms = strtol(text, NULL, 10);
  int64_t age_ms = ((int64_t)now.tv_sec - file.st_mtim.tv_sec) * 1000 + (now.tv_usec / 1000 - file.st_mtim.tv_nsec / 1000000);
  return age_ms <= grace_ms && age_ms >= -grace_ms; /* A wall clock that jumped back must not make it young for ever. */
}

#define CHECK_DAEMON "check the berth pod of this node: kubectl -n kube-system get pods -o wide, then its logs"

static int fail_absent(enum code code, const char *cause) {
  return fail(code, cause, "the berth daemon is not there (%s); " CHECK_DAEMON, socket_path);
}

/* Nobody listens. The verb decides what that means; a DEL may find that a daemon is just starting, and then goes on waiting. */
enum absent { ABSENT_FAILED, ABSENT_FINE, ABSENT_WAIT };
static enum absent daemon_absent(const struct verb *verb, const struct config *config, const char *cause) {
  bool is_status = strcmp(verb->name, "STATUS") == 0;
  if (is_status && within_grace()) return ABSENT_FINE;
  if (strcmp(verb->name, "DEL") != 0) return fail_absent(is_status ? CODE_NOT_AVAILABLE : CODE_TRY_AGAIN, cause), ABSENT_FAILED;
  switch (journal_del(journal_path, config->values[CONFIG_NAME].bytes, variables[CONTAINERID], variables[IFNAME])) {
    case JOURNAL_WRITTEN: return ABSENT_FINE;
    case JOURNAL_BUSY: return ABSENT_WAIT;
    case JOURNAL_FULL:
      fail(CODE_TRY_AGAIN, cause, "the berth daemon is away and its journal %s is full (%d DELs); " CHECK_DAEMON, journal_path,
           BERTH_JOURNAL_FILE_COUNT_MAX);
      return ABSENT_FAILED;
    case JOURNAL_FAILED:
      fail(CODE_TRY_AGAIN, strerror(errno), "the berth daemon is away and this DEL cannot be written to %s; " CHECK_DAEMON,
           journal_path);
      return ABSENT_FAILED;
  }
  return ABSENT_FAILED;
}

static int fail_silent(const struct verb *verb, int64_t total_ms) {
  enum code code = strcmp(verb->name, "STATUS") == 0 ? CODE_NOT_AVAILABLE : CODE_TRY_AGAIN;
  if (code == CODE_NOT_AVAILABLE && within_grace()) return 0;
  return fail(code, socket_path, "the berth daemon has not answered %s within %lld ms; " CHECK_DAEMON, verb->name, (long long)total_ms);
}

/* One request, carried to whichever daemon answers first within the budgets. Its id stays the same, so that a daemon which did
 * the work and lost the connection answers from its records instead of doing it twice. */
static int relay(const struct verb *verb, const struct config *config, char *frame, size_t frame_size) {
  int64_t connect_ms = budget_ms("BERTH_CONNECT_BUDGET_MS", verb->connect_ms), total_ms = budget_ms("BERTH_TOTAL_BUDGET_MS", verb->total_ms);
  int64_t end = started_ms + total_ms, connect_end = earlier(started_ms + connect_ms, end);
  for (;;) {
    int fd = connect_until(connect_end);
    if (fd < 0) {
      const char *cause = strerror(errno);
      enum absent absent = daemon_absent(verb, config, cause);
      if (absent != ABSENT_WAIT) return absent == ABSENT_FINE ? 0 : 1;
      if (now_ms() >= end) return fail_absent(CODE_TRY_AGAIN, cause);
      connect_end = earlier(now_ms() + 100, end);
      continue;
    }
    /* The daemon is told a little less than we have, so that its reason arrives before our patience ends. */
    int64_t left = end - now_ms();
    put32(frame + BERTH_REQUEST_DEADLINE_MS_AT, left <= 0 ? 0 : (uint32_t)(left - earlier(left / 10, 500)));
    struct answer answer = {0};
    enum exchange got = exchange(fd, frame, frame_size, end, &answer);
    close(fd);
    switch (got) {
      case EXCHANGE_DONE: return write_whole(STDOUT_FILENO, answer.bytes, answer.size) ? answer.exit_code : 1;
      case EXCHANGE_SILENT: return fail_silent(verb, total_ms);
      case EXCHANGE_UNREADABLE:
        return fail(CODE_PROTOCOL, socket_path,
                    "what listens there does not speak this plugin's protocol (%d; it said %u): plugin and daemon must be "
                    "neighbours in version; install both again",
                    BERTH_PROTOCOL_VERSION, answer.version);
      case EXCHANGE_AGAIN:
      case EXCHANGE_LOST: break;
    }
    if (now_ms() >= end) return fail_silent(verb, total_ms);
    connect_end = earlier(now_ms() + connect_ms, end);
    pause_ms(earlier(20, end - now_ms()));
  }
}

#endif
