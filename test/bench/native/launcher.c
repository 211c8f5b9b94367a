/* Starts plugins as a container runtime does (fork, exec, stdin, stdout, wait) and takes the time of each. It is a process of its
 * own because Node.js needs milliseconds to fork, more than the plugin takes that we want to measure.
 *
 * stdin: batches. One is a u32 count, and for each process: u32 length and command (path and arguments, strings that end in NUL);
 * u32 length and environment (strings that end in
 * NUL); u32 length and stdin. All of a batch are started at once, or as near to it as one thread gets.
 * stdout, a batch: for each process u64 nanoseconds from fork to its end, i32 exit status, u32 length and its stdout; then u64
 * nanoseconds of the whole batch. Native byte order. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OUTPUT_MAX 65536
#define VARIABLES_MAX 256
#define ARGUMENTS_MAX 16
#define JOBS_MAX 4096

struct job {
  char *command, *environment, *input;
  uint32_t command_size, environment_size, input_size, output_size;
  char *output;
  int out;
  pid_t pid;
  uint64_t began, took;
  int32_t status;
};

static void die(const char *what) {
  fprintf(stderr, "launcher: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* False at the end of the input, where a batch may begin. */
static int read_whole(void *into, size_t size) {
  for (size_t have = 0; have < size;) {
    ssize_t got = read(STDIN_FILENO, (char *)into + have, size - have);
    if (got == 0 && have == 0) return 0;
    if (got <= 0) die("stdin is cut");
    have += (size_t)got;
  }
  return 1;
}

static void write_whole(int fd, const void *from, size_t size) {
  for (size_t sent = 0; sent < size;) {
    ssize_t put = write(fd, (const char *)from + sent, size - sent);
    if (put < 0) {
      if (fd != STDOUT_FILENO && errno == EPIPE) return; /* The plugin answered before it read all. */
      die("write");
    }
    sent += (size_t)put;
  }
}

static char *read_text(uint32_t *size) {
  if (!read_whole(size, sizeof *size)) die("stdin is cut");
  char *text = malloc(*size + 1u);
  if (text == NULL) die("malloc");
  if (*size > 0 && !read_whole(text, *size)) die("stdin is cut");
  text[*size] = '\0';
  return text;
}

/* Pointers to the strings in a text, and NULL after the last. */
static void split(char *text, uint32_t size, char **into, int most) {
  int count = 0;
  for (uint32_t at = 0; at < size && count < most; at += strlen(text + at) + 1) into[count++] = text + at;
  into[count] = NULL;
}

static void start(struct job *job) {
  char *environment[VARIABLES_MAX + 1], *arguments[ARGUMENTS_MAX + 1];
  split(job->environment, job->environment_size, environment, VARIABLES_MAX);
  split(job->command, job->command_size, arguments, ARGUMENTS_MAX);
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) die("pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawnattr_t attributes; /* We ignore SIGPIPE; a plugin is born with it as usual. */
  sigset_t usual;
  sigemptyset(&usual);
  sigaddset(&usual, SIGPIPE);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  job->began = now();
  int failed = posix_spawn(&job->pid, job->command, &actions, &attributes, arguments, environment);
  if (failed != 0) {
    errno = failed;
    die(job->command);
  }
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(in[0]);
  close(out[1]);
  write_whole(in[1], job->input, job->input_size); /* Configurations are far smaller than a pipe. */
  close(in[1]);
  job->out = out[0];
}

static void read_output(struct job *job) {
  char beyond[4096];
  int full = job->output_size == OUTPUT_MAX;
  ssize_t got = full ? read(job->out, beyond, sizeof beyond)
                     : read(job->out, job->output + job->output_size, OUTPUT_MAX - job->output_size);
  if (got < 0) die("read");
  if (got > 0) {
    if (!full) job->output_size += (uint32_t)got;
    return;
  }
  int status;
  if (waitpid(job->pid, &status, 0) != job->pid) die("waitpid");
  job->took = now() - job->began;
  job->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  close(job->out);
  job->out = -1; /* poll passes over it. */
}

int main(void) {
  static struct job jobs[JOBS_MAX];
  static struct pollfd polls[JOBS_MAX];
  uint32_t count;
  signal(SIGPIPE, SIG_IGN); /* A plugin may end before it has read its stdin. */
  while (read_whole(&count, sizeof count)) {
    if (count == 0 || count > JOBS_MAX) die("a batch has 1 to 4096 processes");
    for (uint32_t i = 0; i < count; i += 1) {
      struct job *job = &jobs[i];
      memset(job, 0, sizeof *job);
      job->command = read_text(&job->command_size);
      job->environment = read_text(&job->environment_size);
      job->input = read_text(&job->input_size);
      job->output = malloc(OUTPUT_MAX);
      if (job->output == NULL) die("malloc");
    }
    uint64_t began = now();
    for (uint32_t i = 0; i < count; i += 1) start(&jobs[i]);
    for (uint32_t left = count; left > 0;) {
      for (uint32_t i = 0; i < count; i += 1) polls[i] = (struct pollfd){jobs[i].out, POLLIN, 0};
      if (poll(polls, count, -1) < 0) die("poll");
      for (uint32_t i = 0; i < count; i += 1) {
        if (polls[i].revents == 0) continue;
        read_output(&jobs[i]);
        if (jobs[i].out < 0) left -= 1;
      }
    }
    uint64_t took = now() - began;
    for (uint32_t i = 0; i < count; i += 1) {
      struct job *job = &jobs[i];
      write_whole(STDOUT_FILENO, &job->took, sizeof job->took);
      write_whole(STDOUT_FILENO, &job->status, sizeof job->status);
      write_whole(STDOUT_FILENO, &job->output_size, sizeof job->output_size);
      write_whole(STDOUT_FILENO, job->output, job->output_size);
      free(job->command);
      free(job->environment);
      free(job->input);
      free(job->output);
    }
    write_whole(STDOUT_FILENO, &took, sizeof took);
  }
  return 0;
}
