/* Long JSON values that nobody decodes: where they end, and that they are JSON.
 *
 * The answer is sure or none: what is not written as JSON.stringify would write it (without space, without `\u`,
 * without an exponent) is left to a decoder, and so is everything on a processor without AVX2.
 * Source: RFC 8259; docs/experiments/uncut-data.md has what it is worth. */
#ifndef HW_JSONVALUE_H
#define HW_JSONVALUE_H

#include <stddef.h>
#include <stdint.h>

enum { HW_JSON_HEAD_MOST = 512 }; /* bytes in which hw_json_data looks for its key */

/* Measures the object or array that the n bytes at p, which are UTF-8, begin with.
 * Returns its length; 0 if it is none, goes deeper than max_depth (at most 64 count), or would have to be decoded
 * to know. */
size_t hw_json_container(const uint8_t *p, size_t n, unsigned max_depth);

/* Looks for an object or array that is the member "data" of an object, behind a member "action". The rest of the
 * text need not be JSON: where the value stands, another one could stand.
 * Returns where it begins, and its length in *len; 0 as hw_json_container. */
size_t hw_json_data(const uint8_t *p, size_t n, unsigned max_depth, size_t *len);

#endif
