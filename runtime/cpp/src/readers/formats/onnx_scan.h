// What an .onnx file refers to, read without the onnx library and without trusting the file.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace eptx::core {

// A weight in another file: the file's name as written, the first byte, the number of bytes (none: to the end).
struct ExternalData {
  std::string location;
  uint64_t offset;
  std::optional<uint64_t> length;
};

struct OnnxScan {
  std::set<std::pair<std::string, int64_t>> opsets;         // (domain, version) that the model and its functions import
  std::set<std::pair<std::string, std::string>> operators;  // (domain, type) of every node
  std::set<std::pair<std::string, std::string>> functions;  // (domain, name) of the model's own functions
  std::vector<ExternalData> external;                       // every weight that is kept in another file
};

// Scans a model. Errors begin with `name`, the file's.
//
// Finds the names of external data files, the operator domains and the local functions in the protocol-buffer encoding:
// in the main graph, nested graphs, attributes and functions. It skips weights. The scan keeps its own stack, so
// nesting cannot exhaust the thread's stack. It only moves forward, so it ends.
//
// ONNX Runtime reads the file with a protocol-buffer library, which accepts files that no honest writer writes. It
// drops a field whose wire type is not the schema's, takes the last of a number or text that comes twice, and merges
// messages that come twice. The scan refuses a file with such a field, if the field matters here.
OnnxScan ScanOnnx(std::string_view data, const std::string& name);

}  // namespace eptx::core
