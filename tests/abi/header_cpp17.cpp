// The public headers as C++17.
#include <kvant/kvant_ext_manager.h>
#include <kvant/kvant_ext_vulkan.h>
static_assert(__cplusplus == 201703L);

#define LAYOUT_NAME abi_layout_cpp17
#include "layout_table.inc"
#define LAYOUT_EXT_NAME abi_layout_ext_cpp17
#include "layout_table_ext.inc"
