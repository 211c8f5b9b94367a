/* The CNI plugin that the runtime runs: a static program that starts in a tenth of a millisecond and relays to the daemon.
 * It answers by itself what needs no daemon: VERSION, the banner, and every check of the environment and of stdin that the CNI
 * skeleton makes, in its order and with its codes. The rest goes in one frame over a Unix socket; the answer's bytes are printed.
 * Every way out prints one JSON object on stdout, or nothing where CNI asks for nothing. Nothing is ever logged there.
 *
 * Environment beside CNI's own, all optional: BERTH_SOCKET, BERTH_JOURNAL (paths; the keys berthSocket and berthJournal of the
 * network configuration say the same), BERTH_CONNECT_BUDGET_MS and BERTH_TOTAL_BUDGET_MS (how long to wait for the daemon to be
 * there, and for its answer; the table in plugin.h holds for a runtime that sets neither). */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include "config.h"
#include "plugin.h"
#include "relay.h"

#define NSFS_MAGIC_NUMBER 0x6e736673 /* linux/magic.h */
#define NS_GET_NSTYPE_REQUEST _IO(0xb7, 3) /* linux/nsfs.h */

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
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
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
      [COMMAND] = true,      [CONTAINERID] = of_sandbox, [NETNS] = verb != NULL && verb->needs_netns,
      [IFNAME] = of_sandbox, [ARGS] = false,             [PATH] = verb != NULL && verb->total_ms > 0,
  };
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
  if (fd < 0) {
    return fail(CODE_NETNS, path, "CNI_NETNS cannot be opened (%s): the sandbox's namespace is gone, or the path is wrong",
                strerror(errno));
  }
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
    return fail(CODE_CONFIG, name->bytes,
                "the network's name is invalid: letters and digits, after the first also _ . and -, at most %d",
                CONFIG_STRING_MAX);
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
  if (!read_config(&config, input, input_size, &fault, &fault_at))
    return fail(CODE_DECODING, fault, "stdin holds no network configuration: its JSON is broken at byte %zu", fault_at);
  failed = check_config(&config, verb);
  if (failed) return failed;
  if (verb->needs_netns && (failed = check_netns()) != 0) return failed;

  socket_path = path_from("BERTH_SOCKET", &config.values[CONFIG_SOCKET], socket_path);
  journal_path = path_from("BERTH_JOURNAL", &config.values[CONFIG_JOURNAL], journal_path);
  if (strlen(socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path)
    return fail(CODE_CONFIG, socket_path, "the daemon's socket path is longer than the %zu bytes that a Unix socket may have",
                sizeof((struct sockaddr_un *)0)->sun_path - 1);
  size_t frame_size;
  char *frame = make_frame(input, input_size, &frame_size);
  if (frame == NULL) return fail(CODE_TRY_AGAIN, strerror(errno), "there is no memory for the request");
  return relay(verb, &config, frame, frame_size);
}
