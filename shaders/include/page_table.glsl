// From a sequence's logical tokens to the planes of their page. Needs attend_bindings.glsl.
#ifndef KVANT_PAGE_TABLE_GLSL
#define KVANT_PAGE_TABLE_GLSL

const uint PAGE_UNMAPPED = 0xFFFFFFFFu;

AttendSeq load_seq(uint index) {
  const uint w = params.seqs_offset + index * 8u;
  return AttendSeq(meta[w], meta[w + 1u], meta[w + 2u], meta[w + 3u], int(meta[w + 4u]),
                   meta[w + 5u], meta[w + 6u], meta[w + 7u]);
}

AttendItem load_item(uint index) {
  const uint w = params.items_offset + index * 8u;
  return AttendItem(meta[w], meta[w + 1u], meta[w + 2u], meta[w + 3u], meta[w + 4u], meta[w + 5u], 0u, 0u);
}

// Page id of the page that holds `token`; PAGE_UNMAPPED if the engine gave none.
uint page_of(AttendSeq seq, uint token) { return meta[params.pages_offset + seq.page_begin + token / PAGE_TOKENS]; }

// Index of the page among those of the bound slab. An unmapped page becomes page 0, whose data are then selected away.
uint local_page(uint page) { return page == PAGE_UNMAPPED ? 0u : page - params.page_begin; }
#endif
