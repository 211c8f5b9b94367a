/* What all of the plugin's parts share: verbs and their budgets, the runtime's variables, the one way to print an error, time. */
#ifndef BERTH_PLUGIN_H
#define BERTH_PLUGIN_H

#include <poll.h>
#include <stdarg.h>
#include <time.h>

#include "berth-wire.h"
#include "journal.h"
#include "text.h"

/* CNI specification, "Error"; from 100 our own. docs/reference/errors.md lists them all. */
enum code {
  CODE_VERSION = 1,
  CODE_ENVIRONMENT = 4,
  CODE_IO = 5,
  CODE_DECODING = 6,
  CODE_CONFIG = 7,
  CODE_NETNS = 8,
  CODE_TRY_AGAIN = 11,
  CODE_NOT_AVAILABLE = 50,
  CODE_PROTOCOL = 110
};

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
    {"ADD", true, true, 10000, 30000, "0.3.1"},
    {"DEL", true, false, 1500, 10000, "0.3.1"},
    {"CHECK", true, true, 2000, 10000, "0.4.0"},
    {"STATUS", false, false, 500, 1000, "1.1.0"},
    {"GC", false, false, 2000, 30000, "1.1.0"},
    {"VERSION", false, false, 0, 0, "0.3.1"},
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

#endif
