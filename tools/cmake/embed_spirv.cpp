// Build-time tool: checks a SPIR-V module against its row of kernels.def and writes it as a C++ fragment: the words, the mask
// of its specialization constants and the size of its push constants.
// usage: kvant_embed_spirv <id> <needs> <bindings> <in.spv> <out.inc>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "params/types.h"
#include "spirv_module.hpp"

namespace {

using kvant::build::Module;

struct Capability {
  std::uint32_t id;
  const char* name;
};

// Capabilities that a row may use for each of its needs. All modules may use Shader and Matrix.
const std::map<std::string, std::vector<Capability>>& allowed_capabilities() {
  static const std::vector<Capability> subgroup = {
      {61, "GroupNonUniform"},        {62, "GroupNonUniformVote"},    {63, "GroupNonUniformArithmetic"},
      {64, "GroupNonUniformBallot"},  {65, "GroupNonUniformShuffle"}, {66, "GroupNonUniformShuffleRelative"},
      {67, "GroupNonUniformClustered"}};
  static const std::vector<Capability> fp16 = {{9, "Float16"}};
  static const std::vector<Capability> int_dot = {{6018, "DotProductInput4x8BitPacked"}, {6019, "DotProduct"}};
  static const std::vector<Capability> coopmat = {
      {6022, "CooperativeMatrixKHR"}, {9, "Float16"},  {4433, "StorageBuffer16BitAccess"},
      {5345, "VulkanMemoryModel"},    {22, "Int16"},   {61, "GroupNonUniform"}};
  static const std::vector<Capability> coopmat2 = [] {
    std::vector<Capability> all = coopmat;
    all.insert(all.end(), {{5430, "CooperativeMatrixReductionsNV"},
                           {5431, "CooperativeMatrixConversionsNV"},
                           {5432, "CooperativeMatrixPerElementOperationsNV"},
                           {5433, "CooperativeMatrixTensorAddressingNV"},
                           {5434, "CooperativeMatrixBlockLoadsNV"},
                           {5439, "TensorAddressingNV"}});
    return all;
  }();
  static const std::map<std::string, std::vector<Capability>> table = {{"none", {}},
                                                                       {"subgroup", subgroup},
                                                                       {"fp16", fp16},
                                                                       {"int_dot", int_dot},
                                                                       {"coopmat", coopmat},
                                                                       {"coopmat2", coopmat2}};
  return table;
}

std::string capability_name(std::uint32_t id) {
  static const Capability others[] = {{10, "Float64"},
                                      {11, "Int64"},
                                      {22, "Int16"},
                                      {39, "Int8"},
                                      {4433, "StorageBuffer16BitAccess"},
                                      {4434, "UniformAndStorageBuffer16BitAccess"},
                                      {4435, "StoragePushConstant16"},
                                      {4448, "StorageBuffer8BitAccess"},
                                      {4449, "UniformAndStorageBuffer8BitAccess"},
                                      {4450, "StoragePushConstant8"},
                                      {5347, "PhysicalStorageBufferAddresses"},
                                      {6016, "DotProductInputAll"},
                                      {6017, "DotProductInput4x8Bit"}};
  std::string name = "unnamed";
  for (const auto& [need, list] : allowed_capabilities())
    for (const Capability& capability : list)
      if (capability.id == id) name = capability.name;
  for (const Capability& capability : others)
    if (capability.id == id) name = capability.name;
  return name + " (" + std::to_string(id) + ")";
}

// Complaints about the module, one sentence each.
std::vector<std::string> check(const Module& module, const std::string& needs, std::uint32_t bindings) {
  std::vector<std::string> errors;
  std::set<std::uint32_t> allowed = {0, 1};
  std::istringstream list(needs);
  for (std::string need; std::getline(list, need, '|');) {
    const auto found = allowed_capabilities().find(need);
    if (found == allowed_capabilities().end()) {
      errors.push_back("the need '" + need + "' is not one that the build knows");
      continue;
    }
    for (const Capability& capability : found->second) allowed.insert(capability.id);
  }
  for (std::uint32_t capability : module.capabilities)
    if (!allowed.contains(capability))
      errors.push_back("the module declares " + capability_name(capability) + ", which needs (" + needs + ") do not allow");
  for (std::uint32_t binding : module.bindings)
    if (binding >= bindings)
      errors.push_back("binding " + std::to_string(binding) + " is not below the row's count (" + std::to_string(bindings) + ")");
  for (std::uint32_t set : module.descriptor_sets)
    if (set != 0) errors.push_back("descriptor set " + std::to_string(set) + " is not 0");
  for (std::uint32_t id : module.spec_ids)
    if (id >= KVANT_SPEC_COUNT)
      errors.push_back("specialization constant " + std::to_string(id) + " is not below KVANT_SPEC_COUNT (" +
                       std::to_string(KVANT_SPEC_COUNT) + ")");
  if (needs == "none" && module.barrier_in_loop) errors.push_back("a tier-0 module has a barrier inside of a loop");
  if (module.push_constant_bytes > 128)
    errors.push_back("push constants take " + std::to_string(module.push_constant_bytes) + " bytes, more than 128");
  return errors;
}

std::string embed(const std::string& id, const Module& module, const std::vector<std::uint32_t>& words) {
  std::uint32_t mask = 0;
  for (std::uint32_t spec : module.spec_ids) mask |= 1u << spec;
  std::ostringstream out;
  out << "constexpr std::uint32_t k_" << id << "_spec_mask = 0x" << std::hex << mask << "u;\n"
      << std::dec << "constexpr std::uint32_t k_" << id << "_push_bytes = " << module.push_constant_bytes << "u;\n"
      << "constexpr std::uint32_t k_" << id << "_words[] = {" << std::hex;
  for (std::size_t i = 0; i < words.size(); ++i) out << (i % 12 == 0 ? "\n  " : " ") << "0x" << words[i] << "u,";
  out << "\n};\n";
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s <id> <needs> <bindings> <in.spv> <out.inc>\n", argv[0]);
    return 2;
  }
  const std::string id = argv[1];
  std::ifstream input(argv[4], std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(input)), std::istreambuf_iterator<char>());
  std::vector<std::uint32_t> words(bytes.size() / 4);
  std::copy_n(bytes.data(), words.size() * 4, reinterpret_cast<char*>(words.data()));
  if (bytes.size() % 4 != 0 || words.size() < 5 || words[0] != 0x07230203u) {
    std::fprintf(stderr, "%s: not a SPIR-V module of this machine's byte order\n", argv[4]);
    return 1;
  }

  const Module module = kvant::build::reflect(words);
  const std::vector<std::string> errors = check(module, argv[2], static_cast<std::uint32_t>(std::stoul(argv[3])));
  for (const std::string& error : errors) std::fprintf(stderr, "module %s: %s\n", id.c_str(), error.c_str());
  if (!errors.empty()) return 1;

  std::ofstream output(argv[5], std::ios::binary);
  output << embed(id, module, words);
  output.close();
  if (!output) {
    std::fprintf(stderr, "%s: cannot be written\n", argv[5]);
    return 1;
  }
  return 0;
}
