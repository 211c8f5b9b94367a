/* Round trips of a UDP packet between two network namespaces. Both ends are sockets of this one thread: veth carries a packet to the
 * other end's socket before the send returns, so that no scheduler stands in the figure, only the packet's way.
 *
 * pingpong CLIENT_NETNS SERVER_NETNS SERVER_IP PORT BATCHES BATCH_SIZE
 * stdout: a line for each batch, nanoseconds a round trip. A packet that is lost ends the program with 1. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int socket_in(const char *netns) {
  int fd = open(netns, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) die(netns);
  close(fd);
  int made = socket(AF_INET, SOCK_DGRAM, 0);
  if (made < 0) die("socket");
  struct timeval limit = {.tv_sec = 1};
  setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return made;
}

static void round_trip(int client, int server) {
  char payload[64] = {0};
  struct sockaddr_in from;
  socklen_t size = sizeof from;
  if (send(client, payload, sizeof payload, 0) != sizeof payload) die("send");
  if (recvfrom(server, payload, sizeof payload, 0, (struct sockaddr *)&from, &size) != sizeof payload) die("no request came");
  if (sendto(server, payload, sizeof payload, 0, (struct sockaddr *)&from, size) != sizeof payload) die("sendto");
  if (recv(client, payload, sizeof payload, 0) != sizeof payload) die("no answer came");
}

int main(int count, char **arguments) {
  if (count != 7) {
    fprintf(stderr, "usage: pingpong CLIENT_NETNS SERVER_NETNS SERVER_IP PORT BATCHES BATCH_SIZE\n");
    return 2;
  }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(arguments[4]))};
  if (inet_pton(AF_INET, arguments[3], &address.sin_addr) != 1) die(arguments[3]);
  int batches = atoi(arguments[5]), size = atoi(arguments[6]);
  int server = socket_in(arguments[2]), client = socket_in(arguments[1]);
  if (bind(server, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  if (connect(client, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
  for (int i = 0; i < size; i += 1) round_trip(client, server); /* Neighbours are found, connection tracking has begun. */
  for (int batch = 0; batch < batches; batch += 1) {
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int i = 0; i < size; i += 1) round_trip(client, server);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double took = (double)(ended.tv_sec - began.tv_sec) * 1e9 + (double)(ended.tv_nsec - began.tv_nsec);
    printf("%.1f\n", took / size);
  }
  return 0;
}
