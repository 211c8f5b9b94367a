/* Printed from the tables of ../wire.ts, and held equal by a test. Do not edit: vitest -u test/cni/wire.test.ts */
#ifndef BERTH_WIRE_H
#define BERTH_WIRE_H

#define BERTH_PROTOCOL_VERSION 1
#define BERTH_MAGIC "BRTH"
#define BERTH_STDIN_SIZE_MAX 1048576
#define BERTH_VARIABLE_SIZE_MAX 131072
#define BERTH_ANSWER_SIZE_MAX 2097152
#define BERTH_SPEC_VERSIONS { "0.3.1", "0.4.0", "1.0.0", "1.1.0" }
#define BERTH_SOCKET_PATH_DEFAULT "/run/berth/berth.sock"
#define BERTH_JOURNAL_FOLDER_DEFAULT "/var/lib/berth/journal"
#define BERTH_HEARTBEAT_SUFFIX ".alive"
#define BERTH_JOURNAL_FILE_COUNT_MAX 8192

#define BERTH_REQUEST_MAGIC_AT 0
#define BERTH_REQUEST_VERSION_AT 4
#define BERTH_REQUEST_ID_AT 8
#define BERTH_REQUEST_DEADLINE_MS_AT 24
#define BERTH_REQUEST_BODY_SIZE_AT 28
#define BERTH_REQUEST_HEAD_SIZE 32

#define BERTH_ANSWER_MAGIC_AT 0
#define BERTH_ANSWER_VERSION_AT 4
#define BERTH_ANSWER_KIND_AT 6
#define BERTH_ANSWER_EXIT_CODE_AT 8
#define BERTH_ANSWER_BODY_SIZE_AT 12
#define BERTH_ANSWER_HEAD_SIZE 16
#define BERTH_ANSWER_KIND_DONE 1
#define BERTH_ANSWER_KIND_AGAIN 2

/* Environment variables that travel, in this order; stdin is the field after them. */
#define BERTH_VARIABLES \
  { "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "TRACEPARENT", "TRACESTATE", "BAGGAGE" }
#define BERTH_VARIABLE_COUNT 9

#endif
