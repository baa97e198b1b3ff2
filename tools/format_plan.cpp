// The JSON of a plan, both ways.
#include "format_plan.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace kvant::tools {

namespace {

using nlohmann::ordered_json;

constexpr const char* kSides[] = {"k", "v"};

Failure bad_plan(const std::string& path, const std::string& why) { return Failure{path + ": " + why, Exit::kUsage}; }

}  // namespace

std::string side_name(const Library& library, uint32_t format, uint32_t transform) {
  return (format < library.formats().size() ? library.formats()[format].name : "?") + suffix(transform, false);
}

Outcome<FormatPair> read_plan(const Library& library, const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    return bad_plan(path, std::string("cannot be opened: ") + std::strerror(errno));
  }
  const ordered_json json = ordered_json::parse(stream, nullptr, false);
  if (!json.is_object() || !json.contains("layers") || !json["layers"].is_array() || json["layers"].empty()) {
    return bad_plan(path, "is no plan: an object with a list \"layers\" is expected (kvant plan-formats writes one)");
  }
  FormatPair plan;
  for (const ordered_json& layer : json["layers"]) {
    const std::string where = "layers[" + std::to_string(plan.by_layer.size()) + "]";
    LayerFormats formats;
    for (uint32_t side = 0; side < 2; ++side) {
      const std::string key = kSides[side];
      if (!layer.is_object() || !layer.contains(key) || !layer[key].is_string()) {
        return bad_plan(path, where + " has no \"" + key + "\", the name of a format");
      }
      const std::string name = layer[key].get<std::string>();
      if (name.empty() || name.find_first_of("/,@") != std::string::npos) {
        return bad_plan(path, where + "." + key + " (\"" + name + "\") is not one format");
      }
      const auto pairs = parse_pairs(library, name);
      if (!pairs.ok()) {
        return bad_plan(path, where + "." + key + ": " + pairs.failure().message);
      }
      if (pairs->size() != 1 || !(pairs->front().k.id == pairs->front().v.id)) {
        return bad_plan(path, where + "." + key + " (\"" + name + "\") is not one format");
      }
      const FormatPair& found = pairs->front();
      (side == 0 ? formats.format_k : formats.format_v) = found.k.id;
      (side == 0 ? formats.transform_k : formats.transform_v) = found.transform_k;
      plan.protect |= found.protect & (side == 0 ? KVANT_PROTECT_K : KVANT_PROTECT_V);
      if (plan.by_layer.empty()) {
        (side == 0 ? plan.k : plan.v) = found.k;
        (side == 0 ? plan.transform_k : plan.transform_v) = found.transform_k;
      }
      const std::string weight = "weight_" + key;
      if (layer.contains(weight)) {
        if (!layer[weight].is_number()) {
          return bad_plan(path, where + "." + weight + " is not a number");
        }
        (side == 0 ? formats.weight_k : formats.weight_v) = layer[weight].get<double>();
      }
    }
    plan.by_layer.push_back(formats);
  }
  plan.label = "@" + path;
  return plan;
}

std::string plan_text(const Library& library, const FormatPair& plan, const std::string& model, double bits_per_element) {
  ordered_json layers = ordered_json::array();
  for (const LayerFormats& layer : plan.by_layer) {
    layers.push_back({{"k", side_name(library, layer.format_k, layer.transform_k)},
                      {"v", side_name(library, layer.format_v, layer.transform_v)},
                      {"weight_k", layer.weight_k},
                      {"weight_v", layer.weight_v}});
  }
  return ordered_json{{"plan", 1}, {"model", model}, {"bits_per_element", bits_per_element}, {"layers", std::move(layers)}}.dump(2) + "\n";
}

}  // namespace kvant::tools
