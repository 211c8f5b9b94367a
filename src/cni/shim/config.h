/* Reads what the shim needs of the network configuration: a strict JSON scanner that keeps a few strings of the top level.
 * The daemon parses the whole; here it is only made sure that there is one well-formed object, as the CNI skeleton would. */
#ifndef BERTH_CONFIG_H
#define BERTH_CONFIG_H

#include "text.h"

#define CONFIG_STRING_MAX 1024
#define CONFIG_DEPTH_MAX 128

enum kind { KIND_ABSENT, KIND_STRING, KIND_NULL, KIND_OTHER };

/* A value of the top level. `bytes` ends with a NUL; `size` tells the truth where the string holds one itself. */
struct value {
  const char *key;
  enum kind kind;
  bool too_long;
  size_t size;
  char bytes[CONFIG_STRING_MAX + 1];
};

enum { CONFIG_NAME, CONFIG_VERSION, CONFIG_SOCKET, CONFIG_JOURNAL, CONFIG_COUNT };

struct config {
  struct value values[CONFIG_COUNT];
};

struct scanner {
  const char *start, *at, *end;
  const char *fault; /* Why the text is no JSON; NULL while it is. */
};

static bool scan_value(struct scanner *scan, int depth, struct value *keep);

static bool refuse(struct scanner *scan, const char *fault) {
  if (scan->fault == NULL) scan->fault = fault;
  return false;
}

static void skip_space(struct scanner *scan) {
  while (scan->at < scan->end && *scan->at != '\0' && strchr(" \t\n\r", *scan->at) != NULL) scan->at += 1;
}

static bool next_is(struct scanner *scan, char wanted) {
  if (scan->at == scan->end || *scan->at != wanted) return false;
  scan->at += 1;
  return true;
}

static void keep_byte(struct value *keep, unsigned byte) {
  if (keep == NULL) return;
  if (keep->size == CONFIG_STRING_MAX) {
    keep->too_long = true;
    return;
  }
  keep->bytes[keep->size++] = (char)byte;
}

static void keep_character(struct value *keep, uint32_t c) {
  if (c < 0x80) return keep_byte(keep, c);
  if (c < 0x800) {
    keep_byte(keep, 0xc0 | c >> 6);
  } else {
    if (c < 0x10000) {
      keep_byte(keep, 0xe0 | c >> 12);
    } else {
      keep_byte(keep, 0xf0 | c >> 18);
      keep_byte(keep, 0x80 | (c >> 12 & 0x3f));
    }
    keep_byte(keep, 0x80 | (c >> 6 & 0x3f));
  }
  keep_byte(keep, 0x80 | (c & 0x3f));
}

static bool scan_hex4(struct scanner *scan, uint32_t *value) {
  *value = 0;
  for (int digit = 0; digit < 4; digit += 1) {
    if (scan->at == scan->end) return refuse(scan, "it ends inside a string");
    static const char digits[] = "0123456789abcdefABCDEF";
    char c = *scan->at++;
    const char *found = c == '\0' ? NULL : strchr(digits, c);
    if (found == NULL) return refuse(scan, "a \\u escape without four hexadecimal digits");
    uint32_t nibble = (uint32_t)(found - digits);
    *value = *value << 4 | (nibble < 16 ? nibble : nibble - 6);
  }
  return true;
}

/* After `\u`. A surrogate without its other half becomes U+FFFD, as in Go. */
static bool scan_unicode_escape(struct scanner *scan, struct value *keep) {
  uint32_t c, low;
  if (!scan_hex4(scan, &c)) return false;
  if (c >= 0xd800 && c <= 0xdbff && scan->end - scan->at >= 6 && scan->at[0] == '\\' && scan->at[1] == 'u') {
    struct scanner ahead = *scan;
    ahead.at += 2;
    if (!scan_hex4(&ahead, &low)) return refuse(scan, ahead.fault);
    if (low >= 0xdc00 && low <= 0xdfff) {
      scan->at = ahead.at;
      c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
  }
  keep_character(keep, c >= 0xd800 && c <= 0xdfff ? 0xfffd : c);
  return true;
}

/* `keep` may be NULL: the string is then only checked. */
static bool scan_string(struct scanner *scan, struct value *keep) {
  if (!next_is(scan, '"')) return refuse(scan, "a string was expected");
  if (keep != NULL) keep->size = 0, keep->too_long = false;
  while (scan->at < scan->end) {
    unsigned char c = (unsigned char)*scan->at++;
    if (c == '"') {
      if (keep != NULL) keep->bytes[keep->size] = '\0';
      return true;
    }
    if (c < 0x20) return refuse(scan, "a control character inside a string");
    if (c != '\\') {
      keep_byte(keep, c);
      continue;
    }
    if (scan->at == scan->end) break;
    char escape = *scan->at++;
    if (escape == 'u') {
      if (!scan_unicode_escape(scan, keep)) return false;
      continue;
    }
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *found = escape == '\0' ? NULL : strchr(escapes, escape);
    if (found == NULL) return refuse(scan, "an unknown escape inside a string");
    keep_byte(keep, (unsigned char)meanings[found - escapes]);
  }
  return refuse(scan, "it ends inside a string");
}

static bool scan_digits(struct scanner *scan) {
  const char *first = scan->at;
  while (scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9') scan->at += 1;
  return scan->at > first || refuse(scan, "a digit was expected");
}

static bool scan_number(struct scanner *scan) {
  next_is(scan, '-');
  if (!next_is(scan, '0') && !scan_digits(scan)) return false;
  if (next_is(scan, '.') && !scan_digits(scan)) return false;
  if (next_is(scan, 'e') || next_is(scan, 'E')) {
    if (!next_is(scan, '+')) next_is(scan, '-');
    return scan_digits(scan);
  }
  return true;
}

static bool scan_word(struct scanner *scan, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(scan->end - scan->at) < size || memcmp(scan->at, word, size) != 0) return refuse(scan, "a value was expected");
  scan->at += size;
  return true;
}

/* `config` is NULL but at the top level. A key that comes twice: the last one counts, as in Go and JavaScript. */
static bool scan_object(struct scanner *scan, int depth, struct config *config) {
  skip_space(scan);
  if (next_is(scan, '}')) return true;
  for (;;) {
    struct value key, *keep = NULL;
    skip_space(scan);
    if (!scan_string(scan, config == NULL ? NULL : &key)) return false;
    for (int i = 0; config != NULL && i < CONFIG_COUNT; i += 1) {
      const char *wanted = config->values[i].key;
      if (!key.too_long && key.size == strlen(wanted) && memcmp(key.bytes, wanted, key.size) == 0) keep = &config->values[i];
    }
    skip_space(scan);
    if (!next_is(scan, ':')) return refuse(scan, "a colon was expected");
    if (!scan_value(scan, depth, keep)) return false;
    skip_space(scan);
    if (next_is(scan, '}')) return true;
    if (!next_is(scan, ',')) return refuse(scan, "a comma or the object's end was expected");
  }
}

static bool scan_array(struct scanner *scan, int depth) {
  skip_space(scan);
  if (next_is(scan, ']')) return true;
  for (;;) {
    if (!scan_value(scan, depth, NULL)) return false;
    skip_space(scan);
    if (next_is(scan, ']')) return true;
    if (!next_is(scan, ',')) return refuse(scan, "a comma or the list's end was expected");
  }
}

static bool scan_value(struct scanner *scan, int depth, struct value *keep) {
  skip_space(scan);
  if (scan->at == scan->end) return refuse(scan, "it ends too early");
  if (depth >= CONFIG_DEPTH_MAX) return refuse(scan, "it is nested too deep");
  char c = *scan->at;
  if (keep != NULL) {
    keep->kind = c == '"' ? KIND_STRING : c == 'n' ? KIND_NULL : KIND_OTHER;
    keep->size = 0;
    keep->bytes[0] = '\0';
  }
  switch (c) {
    case '"': return scan_string(scan, keep);
    case '{': return scan->at += 1, scan_object(scan, depth + 1, NULL);
    case '[': return scan->at += 1, scan_array(scan, depth + 1);
    case 't': return scan_word(scan, "true");
    case 'f': return scan_word(scan, "false");
    case 'n': return scan_word(scan, "null");
    default: return scan_number(scan);
  }
}

/* True when `bytes` is one JSON object and nothing else. Otherwise `fault` tells why, and `fault_at` the byte where it was seen. */
static bool read_config(struct config *config, const char *bytes, size_t size, const char **fault, size_t *fault_at) {
  static const char *const keys[CONFIG_COUNT] = {"name", "cniVersion", "berthSocket", "berthJournal"};
  memset(config, 0, sizeof *config);
  for (int i = 0; i < CONFIG_COUNT; i += 1) config->values[i].key = keys[i];
  struct scanner scan = {bytes, bytes, bytes + size, NULL};
  skip_space(&scan);
  bool whole;
  if (scan.at == scan.end) whole = refuse(&scan, "it is empty");
  else if (!next_is(&scan, '{')) whole = refuse(&scan, "it is no object");
  else whole = scan_object(&scan, 1, config);
  skip_space(&scan);
  if (whole && scan.at != scan.end) whole = refuse(&scan, "something follows the object");
  *fault = scan.fault;
  *fault_at = (size_t)(scan.at - scan.start);
  return whole;
}

#endif
