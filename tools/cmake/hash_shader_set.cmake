# Writes one hash over all modules, names and contents, in the order of kernels.def.
# cmake -D modules=<list of .spv> -D output=<file> -P hash_shader_set.cmake
set(text "")
foreach(module IN LISTS modules)
  get_filename_component(name ${module} NAME_WE)
  file(SHA256 ${module} hash)
  string(APPEND text "${name} ${hash}\n")
endforeach()
string(SHA256 hash "${text}")
file(WRITE ${output} "\"sha256:${hash}\"\n")
