/* Rows of a header's layout, made by layout_table.inc. */
#ifndef KVANT_TESTS_ABI_LAYOUT_TABLE_H
#define KVANT_TESTS_ABI_LAYOUT_TABLE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct abi_layout_row {
  const char *type, *field;
  size_t value;
} abi_layout_row;

extern const abi_layout_row abi_layout_present[]; /* kvant.h, as C99 */
extern const abi_layout_row abi_layout_cpp17[];
extern const abi_layout_row abi_layout_cpp20[];
extern const abi_layout_row abi_layout_1_0[];     /* frozen/kvant_1_0.h */
extern const abi_layout_row abi_layout_1_1[];     /* frozen/1_1/ */

extern const abi_layout_row abi_layout_ext_present[]; /* the extension headers, as C99 */
extern const abi_layout_row abi_layout_ext_cpp17[];
extern const abi_layout_row abi_layout_ext_cpp20[];
extern const abi_layout_row abi_layout_ext_1_1[]; /* frozen/1_1/ */

/* A host compiled against frozen/kvant_1_0.h: goes through a whole session. 0: well; else the number of the step that failed.
 * 77: there is no device. */
int abi_frozen_host(const char* library);
/* The same of frozen/1_1/, with a prefix cache and the manager extension. */
int abi_frozen_host_1_1(const char* library);

#ifdef __cplusplus
}
#endif
#endif
