/* Small text tools of the shim: a bounded builder that prints JSON, UTF-8, a hash. No allocation. */
#ifndef BERTH_TEXT_H
#define BERTH_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* What does not fit is dropped and `cut` is set; callers that must be exact look at it. */
struct text {
  char *bytes;
  size_t size, room;
  bool cut;
};

static void add_bytes(struct text *text, const char *bytes, size_t size) {
  if (size > text->room - text->size) {
    text->cut = true;
    return;
  }
  memcpy(text->bytes + text->size, bytes, size);
  text->size += size;
}

static void add(struct text *text, const char *words) { add_bytes(text, words, strlen(words)); }

/* Reads one character of UTF-8 and tells its size, or 0 where the bytes are none (overlong forms and surrogates included). */
static size_t utf8_character(const unsigned char *bytes, size_t size, uint32_t *character) {
  if (size == 0) return 0;
  if (bytes[0] < 0x80) return *character = bytes[0], 1;
  size_t length = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
  uint32_t least = length == 4 ? 0x10000 : length == 3 ? 0x800 : 0x80;
  if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || length > size) return 0;
  uint32_t value = bytes[0] & (0x7f >> length);
  for (size_t at = 1; at < length; at += 1) {
    if ((bytes[at] & 0xc0) != 0x80) return 0;
    value = value << 6 | (bytes[at] & 0x3f);
  }
  if (value < least || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return 0;
  *character = value;
  return length;
}

/* A JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD: stdout must stay JSON whatever the environment held. */
static void add_json_string(struct text *text, const char *string, size_t size) {
  add(text, "\"");
  for (size_t at = 0; at < size;) {
    uint32_t character = 0;
    size_t length = utf8_character((const unsigned char *)string + at, size - at, &character);
    if (length == 0) {
      add(text, "\xef\xbf\xbd");
      at += 1;
      continue;
    }
    if (character < 0x20 || character == 0x7f) {
      char escaped[8];
      snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)character);
      add(text, escaped);
    } else {
      if (character == '"' || character == '\\') add(text, "\\");
      add_bytes(text, string + at, length);
    }
    at += length;
  }
  add(text, "\"");
}

/* FNV-1a, 64 bit. `hash` is the offset basis, or the hash of what went before. */
#define FNV_BASIS 0xcbf29ce484222325ull
static uint64_t fnv64(uint64_t hash, const char *bytes, size_t size) {
  for (size_t at = 0; at < size; at += 1) hash = (hash ^ (unsigned char)bytes[at]) * 0x100000001b3ull;
  return hash;
}

#endif
