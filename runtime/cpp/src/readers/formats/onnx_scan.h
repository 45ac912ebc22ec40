// What an .onnx file asks for, read without the onnx library and without trusting the file.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace eptx::core {

// A weight kept in another file: the name as written, first byte, number of bytes (none: to the end).
struct ExternalData {
  std::string location;
  uint64_t offset;
  std::optional<uint64_t> length;
};

struct OnnxScan {
  std::set<std::pair<std::string, int64_t>> opsets;        // (domain, version) that the model and its functions import
  std::set<std::pair<std::string, std::string>> operators;  // (domain, type) of every node
  std::set<std::pair<std::string, std::string>> functions;  // (domain, name) of the model's own functions
  std::vector<ExternalData> external;                       // every weight that is kept in another file
};

// Scans a model; `name` is the file's, to begin an error's line with.
//
// Walks the protocol-buffer encoding for the names of external data files, the operator domains and the local
// functions, in the main graph, nested graphs, attributes and functions alike. Weights are skipped, not read. The walk
// keeps its own stack, so nesting cannot exhaust the thread's, and it only moves forward, so it ends.
//
// ONNX Runtime reads the file with a protocol-buffer library, which takes more than honest writers write: it drops a
// field of another wire type than the schema has, takes the last of a number or text that comes twice, and merges a
// message that comes twice. A file with such a field that matters here is refused: nobody has to know which counts.
OnnxScan ScanOnnx(std::string_view data, const std::string& name);

}  // namespace eptx::core
