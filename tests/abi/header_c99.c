/* The public headers as C99, with every pedantic warning an error. */
#include <kvant/kvant_ext_manager.h>
#include <kvant/kvant_ext_vulkan.h>

#define LAYOUT_NAME abi_layout_present
#include "layout_table.inc"
#define LAYOUT_EXT_NAME abi_layout_ext_present
#include "layout_table_ext.inc"
