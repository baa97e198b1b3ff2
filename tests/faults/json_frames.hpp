// Whether a call stack is inside code that works on nlohmann::json. Its destructor allocates and its operator[] breaks its own
// invariant when an allocation fails: the program ends. Such allocations are no events for the injector (docs/faults.md).
#pragma once

namespace faults {

// Reads the symbols of the library under test; before that nothing is found.
void find_json_frames(const char* library_path);
bool inside_json();

}  // namespace faults
