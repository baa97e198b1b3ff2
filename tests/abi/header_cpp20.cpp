// The public headers as C++20.
#include <kvant/kvant_ext_manager.h>
#include <kvant/kvant_ext_vulkan.h>
static_assert(__cplusplus == 202002L);

#define LAYOUT_NAME abi_layout_cpp20
#include "layout_table.inc"
#define LAYOUT_EXT_NAME abi_layout_ext_cpp20
#include "layout_table_ext.inc"
