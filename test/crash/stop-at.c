/* Runs a program and kills it at its N-th system call, before the kernel carries it out: so that it dies between two effects, at
 * each pair of neighbours in turn. With N = 0 it runs to its end. Prints "calls: M" on stderr, M being how many it came to.
 * Usage: stop-at N PROGRAM [ARGUMENT ...] */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  long wanted = strtol(argv[1], NULL, 10), calls = 0;
  pid_t child = fork();
  if (child < 0) return 2;
  if (child == 0) {
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    execv(argv[2], argv + 2);
    _exit(127);
  }
  int status, deliver = 0;
  bool entering = true;
  if (waitpid(child, &status, 0) < 0 || WIFEXITED(status)) return 2; /* It stops once it is the new program. */
  ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)(long)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
  for (;;) {
    ptrace(PTRACE_SYSCALL, child, NULL, (void *)(long)deliver); /* Refused when it is dead: waitpid tells how it ended. */
    if (waitpid(child, &status, 0) < 0) return 2;
    if (WIFEXITED(status) || WIFSIGNALED(status)) break;
    deliver = 0;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      deliver = WSTOPSIG(status);
    } else if (entering) {
      entering = false;
      calls += 1;
      if (calls == wanted) kill(child, SIGKILL);
    } else {
      entering = true;
    }
  }
  fprintf(stderr, "calls: %ld\n", calls);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
