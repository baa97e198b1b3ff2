// The device as kvant tune sees it from inside: which configs of an attention call it can run, and the file that the library reads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace kvant::tools {

// An attention call, formats by id.
struct TuneCall {
  uint32_t format_k = 0, format_v = 0;
  uint32_t head_dim = 128;
  uint32_t kv_heads = 8;
  uint32_t group = 4;
  uint32_t page_tokens = 16;
  uint32_t tokens = 4096;
  uint32_t queries = 1;
};

class TuneDevice {
 public:
  // `index`: as `kvant info` numbers devices, -1 for the best. Null on failure, with the reason.
  static std::unique_ptr<TuneDevice> open(int index, const std::string& capabilities, const std::string& quirks, std::string& reason);
  // Of this program; a library of another takes no file from it.
  static std::string shader_set();
  ~TuneDevice();
  TuneDevice(const TuneDevice&) = delete;
  TuneDevice& operator=(const TuneDevice&) = delete;

  // Makes the list of what can run the call: candidate 0 is what tuning chooses. Returns how many.
  size_t list(const TuneCall& call);
  // The same configs as `candidate`, with items cut for other numbers of workgroups. Returns the numbers of the new candidates.
  std::vector<size_t> vary(size_t candidate);
  std::string name(size_t candidate) const;
  // Writes a file with this candidate alone. "" or the reason why not.
  std::string write_alone(size_t candidate, const std::string& path) const;

  // Remembers the candidate as the call's, until the next save.
  void keep(size_t candidate, double microseconds, double default_microseconds);
  // Remembers that the call is to be left to tuning.
  void leave();
  // Adds what was kept to the file, in place of what it says of the same calls, and takes out what was left. "" or the reason why not.
  std::string save(const std::string& path) const;
  // The file of this device in a folder of pipelines.
  std::string path_in(const std::string& folder) const;

 private:
  TuneDevice();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kvant::tools
