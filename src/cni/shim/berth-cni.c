/* The CNI plugin that the runtime runs: a static program that starts in a tenth of a millisecond and relays to the daemon.
 * It answers by itself what needs no daemon: VERSION, the banner, and every check of the environment and of stdin that the CNI
 * skeleton makes, in its order and with its codes. The rest goes in one frame over a Unix socket; the answer's bytes are printed.
 * Every way out prints one JSON object on stdout, or nothing where CNI asks for nothing. Nothing is ever logged there.
 *
 * Environment beside CNI's own, all optional: BERTH_SOCKET, BERTH_JOURNAL (paths; the keys berthSocket and berthJournal of the
 * network configuration say the same), BERTH_CONNECT_BUDGET_MS and BERTH_TOTAL_BUDGET_MS (how long to wait for the daemon to be
 * there, and for its answer; the table below holds for a runtime that sets neither). */
#define _GNU_SOURCE
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>

#include "berth-wire.h"
#include "config.h"
#include "journal.h"
#include "text.h"

#define NSFS_MAGIC_NUMBER 0x6e736673 /* linux/magic.h */
#define NS_GET_NSTYPE_REQUEST _IO(0xb7, 3) /* linux/nsfs.h */

/* CNI specification, "Error"; from 100 our own. docs/reference/errors.md lists them all. */
enum code { CODE_VERSION = 1, CODE_ENVIRONMENT = 4, CODE_IO = 5, CODE_DECODING = 6, CODE_CONFIG = 7, CODE_NETNS = 8, CODE_TRY_AGAIN = 11, CODE_NOT_AVAILABLE = 50, CODE_PROTOCOL = 110 };

enum variable { COMMAND, CONTAINERID, NETNS, IFNAME, ARGS, PATH };

/* What each verb needs, and how long it may take, counted from exec. Kubelet tries an ADD again after some 12 s anyway, a hang
 * blocks the runtime's CNI lock, and a node's shutdown leaves 30 s in all. `since` is the first CNI version that has the verb. */
struct verb {
  const char *name;
  bool of_sandbox, needs_netns;
  int connect_ms, total_ms;
  const char *since;
};

static const struct verb verbs[] = {
    {"ADD", true, true, 10000, 30000, "0.3.1"},   {"DEL", true, false, 1500, 10000, "0.3.1"}, {"CHECK", true, true, 2000, 10000, "0.4.0"},
    {"STATUS", false, false, 500, 1000, "1.1.0"}, {"GC", false, false, 2000, 30000, "1.1.0"}, {"VERSION", false, false, 0, 0, "0.3.1"},
};

static const char *const spec_versions[] = BERTH_SPEC_VERSIONS;
#define SPEC_VERSION_COUNT (int)(sizeof spec_versions / sizeof spec_versions[0])

static const char *variables[BERTH_VARIABLE_COUNT];
static const char *answer_version; /* The caller's, once it is known to be one of ours. */
static const char *socket_path = BERTH_SOCKET_PATH_DEFAULT;
static const char *journal_path = BERTH_JOURNAL_FOLDER_DEFAULT;
static int64_t started_ms;

/* --- Answers ------------------------------------------------------------------------------------------------------------- */

/* Prints a CNI error and gives the exit code. `message` is never empty and says what to do; `details` may be. */
static int fail(enum code code, const char *details, const char *message_format, ...) {
  char message[1024], buffer[8192], number[16];
  va_list arguments;
  va_start(arguments, message_format);
  vsnprintf(message, sizeof message, message_format, arguments);
  va_end(arguments);
  struct text out = {buffer, 0, sizeof buffer, false};
  add(&out, "{\"cniVersion\":");
  add_json_string(&out, answer_version, strlen(answer_version));
  snprintf(number, sizeof number, "%d", (int)code);
  add(&out, ",\"code\":");
  add(&out, number);
  add(&out, ",\"msg\":");
  add_json_string(&out, message, strlen(message));
  add(&out, ",\"details\":");
  add_json_string(&out, details, strnlen(details, 512));
  add(&out, "}\n");
  write_whole(STDOUT_FILENO, out.bytes, out.size);
  return 1;
}

static void add_version_list(struct text *out, const char *quote) {
  for (int i = 0; i < SPEC_VERSION_COUNT; i += 1) {
    if (i > 0) add(out, *quote == '\0' ? ", " : ",");
    add(out, quote);
    add(out, spec_versions[i]);
    add(out, quote);
  }
}

static int print_version(void) {
  char buffer[256];
  struct text out = {buffer, 0, sizeof buffer, false};
  add(&out, "{\"cniVersion\":\"");
  add(&out, spec_versions[SPEC_VERSION_COUNT - 1]);
  add(&out, "\",\"supportedVersions\":[");
  add_version_list(&out, "\"");
  add(&out, "]}\n");
  return write_whole(STDOUT_FILENO, out.bytes, out.size) ? 0 : 1;
}

/* For a person who runs the file by hand. */
static int print_banner(void) {
  char buffer[256];
  struct text out = {buffer, 0, sizeof buffer, false};
  add(&out, "Berth CNI plugin: it relays to the berth daemon on this node, and is run by the container runtime.\nCNI versions: ");
  add_version_list(&out, "");
  add(&out, "\n");
  write_whole(STDERR_FILENO, out.bytes, out.size);
  return 0;
}

/* --- Time ---------------------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t earlier(int64_t left, int64_t right) { return left < right ? left : right; }

/* True when the descriptor is ready before `end`; also on its error, which the next call on it will tell. */
static bool ready(int fd, short events, int64_t end) {
  for (;;) {
    int64_t left = end - now_ms();
    if (left <= 0) return false;
    struct pollfd waiting = {fd, events, 0};
    int count = poll(&waiting, 1, (int)left);
    if (count > 0) return true;
    if (count < 0 && errno != EINTR) return false;
  }
}

static void pause_ms(int64_t ms) {
  if (ms > 0) poll(NULL, 0, (int)ms);
}

/* An override of a budget; what is no number of 1 to 600000 is left aside. */
static int64_t budget_ms(const char *variable, int otherwise) {
  const char *text = getenv(variable);
  char *end = NULL;
  long value = text == NULL ? 0 : strtol(text, &end, 10);
  return value >= 1 && value <= 600000 && *end == '\0' ? value : otherwise;
}

/* --- The environment ----------------------------------------------------------------------------------------------------- */

/* ^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$, for container ids and network names. */
static bool is_identifier(const char *bytes, size_t size) {
  for (size_t at = 0; at < size; at += 1) {
    char c = bytes[at];
    bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!alphanumeric && (at == 0 || (c != '_' && c != '.' && c != '-'))) return false;
  }
  return size > 0;
}

static bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

/* NULL when the name can be a link's. */
static const char *interface_name_fault(const char *name) {
  size_t size = strlen(name);
  if (size > 15) return "it is longer than 15 bytes";
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return "it is . or ..";
  for (size_t at = 0; at < size;) {
    uint32_t c = 0;
    size_t length = utf8_character((const unsigned char *)name + at, size - at, &c);
    if (length == 0) return "it is not UTF-8";
    if (c == '/' || c == ':') return "it holds / or :";
    if (is_space(c)) return "it holds white space";
    at += length;
  }
  return NULL;
}

/* In the order of the variables: a bad value is told at once, missing ones are told together. 0 when all is well. */
static int check_environment(const struct verb *verb) {
  bool of_sandbox = verb != NULL && verb->of_sandbox;
  bool needed[] = {
      [COMMAND] = true, [CONTAINERID] = of_sandbox, [NETNS] = verb != NULL && verb->needs_netns, [IFNAME] = of_sandbox, [ARGS] = false, [PATH] = verb != NULL && verb->total_ms > 0};
  static const char *const names[] = BERTH_VARIABLES;
  char missing_bytes[256] = "";
  struct text missing = {missing_bytes, 0, sizeof missing_bytes - 1, false};
  for (int i = COMMAND; i <= PATH; i += 1) {
    if (!needed[i]) continue;
    if (*variables[i] == '\0') {
      if (missing.size > 0) add(&missing, ", ");
      add(&missing, names[i]);
    } else if (i == CONTAINERID && !is_identifier(variables[i], strlen(variables[i]))) {
      return fail(CODE_ENVIRONMENT, variables[i], "CNI_CONTAINERID is no container id: letters and digits, after the first also _ . and -");
    } else if (i == IFNAME && interface_name_fault(variables[i]) != NULL) {
      return fail(CODE_ENVIRONMENT, variables[i], "CNI_IFNAME cannot name an interface: %s", interface_name_fault(variables[i]));
    }
  }
  missing_bytes[missing.size] = '\0';
  if (missing.size == 0) return 0;
  return fail(CODE_ENVIRONMENT, "", "%s needs %s in the environment, and the runtime left it empty", variables[COMMAND], missing_bytes);
}

/* CNI_NETNS must be a network namespace, and not the one that we run in: there is no pod in the host's. 0 when all is well. */
static int check_netns(void) {
  const char *path = variables[NETNS];
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail(CODE_NETNS, path, "CNI_NETNS cannot be opened (%s): the sandbox's namespace is gone, or the path is wrong", strerror(errno));
  struct statfs system;
  struct stat theirs, ours;
  bool is_namespace = fstatfs(fd, &system) == 0 && system.f_type == NSFS_MAGIC_NUMBER && ioctl(fd, NS_GET_NSTYPE_REQUEST) == CLONE_NEWNET;
  bool is_own = fstat(fd, &theirs) == 0 && stat("/proc/self/ns/net", &ours) == 0 && theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
  close(fd);
  if (!is_namespace) return fail(CODE_NETNS, path, "CNI_NETNS is not a network namespace: the runtime must hand over one that it made for the pod");
  if (is_own) return fail(CODE_NETNS, path, "CNI_NETNS is the host's own network namespace: a pod with hostNetwork must not be given to CNI");
  return 0;
}

/* --- Standard input ------------------------------------------------------------------------------------------------------ */

/* Reads to the end, also past the limit: a runtime that is still writing must not be met by a broken pipe. */
static int read_stdin(char *bytes, size_t *size, int64_t end) {
  static char rest[65536];
  *size = 0;
  bool too_long = false;
  for (;;) {
    if (!ready(STDIN_FILENO, POLLIN, end)) return fail(CODE_IO, "", "the network configuration did not come to its end on stdin in time");
    bool full = *size == BERTH_STDIN_SIZE_MAX;
    ssize_t got = read(STDIN_FILENO, full ? rest : bytes + *size, full ? sizeof rest : BERTH_STDIN_SIZE_MAX - *size);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return fail(CODE_IO, strerror(errno), "stdin cannot be read, where the network configuration should be");
    if (got == 0) break;
    if (full) too_long = true;
    else *size += (size_t)got;
  }
  if (too_long) return fail(CODE_IO, "", "the network configuration on stdin is longer than %d bytes: make it smaller", BERTH_STDIN_SIZE_MAX);
  return 0;
}

static bool is_set(const struct value *value) { return value->kind == KIND_STRING && value->size > 0; }

/* The checks of stdin in the skeleton's order, then the verb against the version. 0 when all is well. */
static int check_config(const struct config *config, const struct verb *verb) {
  const struct value *name = &config->values[CONFIG_NAME], *version = &config->values[CONFIG_VERSION];
  if (name->kind == KIND_OTHER) return fail(CODE_DECODING, "", "the network configuration's name is no string");
  if (!is_set(name)) return fail(CODE_CONFIG, "", "the network configuration has no name: give it one in the conflist");
  if (name->too_long || !is_identifier(name->bytes, name->size))
    return fail(CODE_CONFIG, name->bytes, "the network's name is invalid: letters and digits, after the first also _ . and -, at most %d", CONFIG_STRING_MAX);
  if (version->kind == KIND_OTHER) return fail(CODE_DECODING, "", "the network configuration's cniVersion is no string");
  const char *asked = is_set(version) && strlen(version->bytes) == version->size ? version->bytes : "0.1.0"; /* Empty means 0.1.0. */
  int found = 0, since = 0;
  while (found < SPEC_VERSION_COUNT && strcmp(spec_versions[found], asked) != 0) found += 1;
  if (found == SPEC_VERSION_COUNT) {
    char list[128] = "";
    struct text versions = {list, 0, sizeof list - 1, false};
    add_version_list(&versions, "");
    return fail(CODE_VERSION, asked, "this cniVersion is not served: set one of %s in the conflist", list);
  }
  answer_version = spec_versions[found];
  if (verb == NULL) return fail(CODE_ENVIRONMENT, variables[COMMAND], "CNI_COMMAND is unknown: ADD, DEL, CHECK, STATUS, GC and VERSION are served");
  while (strcmp(spec_versions[since], verb->since) != 0) since += 1;
  if (found < since) return fail(CODE_VERSION, asked, "this cniVersion has no %s: it came with %s", verb->name, verb->since);
  return 0;
}

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
  if (answer->version == 0 || answer->version + 1 < BERTH_PROTOCOL_VERSION || answer->version > BERTH_PROTOCOL_VERSION + 1) return EXCHANGE_UNREADABLE;
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

static int fail_absent(enum code code, const char *cause) { return fail(code, cause, "the berth daemon is not there (%s); " CHECK_DAEMON, socket_path); }

/* Nobody listens. The verb decides what that means; a DEL may find that a daemon is just starting, and then goes on waiting. */
enum absent { ABSENT_FAILED, ABSENT_FINE, ABSENT_WAIT };
static enum absent daemon_absent(const struct verb *verb, const struct config *config, const char *cause) {
  if (strcmp(verb->name, "STATUS") == 0) return within_grace() ? ABSENT_FINE : (fail_absent(CODE_NOT_AVAILABLE, cause), ABSENT_FAILED);
  if (strcmp(verb->name, "DEL") != 0) return fail_absent(CODE_TRY_AGAIN, cause), ABSENT_FAILED;
  switch (journal_del(journal_path, config->values[CONFIG_NAME].bytes, variables[CONTAINERID], variables[IFNAME])) {
    case JOURNAL_WRITTEN: return ABSENT_FINE;
    case JOURNAL_BUSY: return ABSENT_WAIT;
    case JOURNAL_FULL:
      return fail(CODE_TRY_AGAIN, cause, "the berth daemon is away and its journal %s is full (%d DELs); " CHECK_DAEMON, journal_path, BERTH_JOURNAL_FILE_COUNT_MAX), ABSENT_FAILED;
    case JOURNAL_FAILED: break;
  }
  return fail(CODE_TRY_AGAIN, strerror(errno), "the berth daemon is away and this DEL cannot be written to %s; " CHECK_DAEMON, journal_path), ABSENT_FAILED;
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
        return fail(CODE_PROTOCOL, socket_path, "what listens there does not speak this plugin's protocol (%d; it said %u): plugin and daemon must be neighbours in version; install both again", BERTH_PROTOCOL_VERSION,
                    answer.version);
      case EXCHANGE_AGAIN:
      case EXCHANGE_LOST: break;
    }
    if (now_ms() >= end) return fail_silent(verb, total_ms);
    connect_end = earlier(now_ms() + connect_ms, end);
    pause_ms(earlier(20, end - now_ms()));
  }
}

/* --- Main ---------------------------------------------------------------------------------------------------------------- */

/* The environment goes before the configuration: it is set by whoever runs the plugin, for this run. */
static const char *path_from(const char *variable, const struct value *value, const char *otherwise) {
  const char *given = getenv(variable);
  if (given != NULL && *given != '\0') return given;
  return is_set(value) && !value->too_long ? value->bytes : otherwise;
}

int main(void) {
  started_ms = now_ms();
  answer_version = spec_versions[SPEC_VERSION_COUNT - 1];
  static const char *const names[] = BERTH_VARIABLES;
  for (int i = 0; i < BERTH_VARIABLE_COUNT; i += 1) {
    const char *value = getenv(names[i]);
    variables[i] = value == NULL ? "" : value;
  }
  if (*variables[COMMAND] == '\0') return print_banner();
  const struct verb *verb = NULL;
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i += 1) {
    if (strcmp(verbs[i].name, variables[COMMAND]) == 0) verb = &verbs[i];
  }
  int failed = check_environment(verb);
  if (failed) return failed;
  if (verb != NULL && verb->total_ms == 0) return print_version();

  static char input[BERTH_STDIN_SIZE_MAX];
  static struct config config;
  size_t input_size, fault_at;
  const char *fault;
  failed = read_stdin(input, &input_size, started_ms + budget_ms("BERTH_TOTAL_BUDGET_MS", verb == NULL ? 1000 : verb->total_ms));
  if (failed) return failed;
  if (!read_config(&config, input, input_size, &fault, &fault_at)) return fail(CODE_DECODING, fault, "stdin holds no network configuration: its JSON is broken at byte %zu", fault_at);
  failed = check_config(&config, verb);
  if (failed) return failed;
  if (verb->needs_netns && (failed = check_netns()) != 0) return failed;

  socket_path = path_from("BERTH_SOCKET", &config.values[CONFIG_SOCKET], socket_path);
  journal_path = path_from("BERTH_JOURNAL", &config.values[CONFIG_JOURNAL], journal_path);
  if (strlen(socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path)
    return fail(CODE_CONFIG, socket_path, "the daemon's socket path is longer than the %zu bytes that a Unix socket may have", sizeof((struct sockaddr_un *)0)->sun_path - 1);
  size_t frame_size;
  char *frame = make_frame(input, input_size, &frame_size);
  if (frame == NULL) return fail(CODE_TRY_AGAIN, strerror(errno), "there is no memory for the request");
  return relay(verb, &config, frame, frame_size);
}
