// Field numbers are those of onnx.proto (https://github.com/onnx/onnx, Apache-2.0).
#include "onnx_scan.h"

#include "error.h"
#include "protobuf.h"
#include "text.h"

namespace eptx::core {
namespace {

constexpr int kFieldLimit = 2'000'000;  // fields visited; a graph of 10 000 nodes has about 300 000
constexpr size_t kStringLimit = 4096;
constexpr size_t kDepthLimit = 200;  // protocol-buffer readers stop at 100

enum class Kind { kNone, kModel, kTraining, kGraph, kNode, kAttribute, kSparse, kTensor, kFunction, kOpset, kEntry };

// The message to walk into in a field.
Kind ChildOf(Kind kind, uint64_t number) {
  switch (kind) {
    case Kind::kModel:
      return number == 7    ? Kind::kGraph
             : number == 8  ? Kind::kOpset
             : number == 20 ? Kind::kTraining
             : number == 25 ? Kind::kFunction
                            : Kind::kNone;
    case Kind::kTraining:
      return number == 1 || number == 2 ? Kind::kGraph : Kind::kNone;
    case Kind::kGraph:
      return number == 1 ? Kind::kNode : number == 5 ? Kind::kTensor : number == 15 ? Kind::kSparse : Kind::kNone;
    case Kind::kNode:
      return number == 5 ? Kind::kAttribute : Kind::kNone;
    case Kind::kAttribute:
      return number == 5 || number == 10    ? Kind::kTensor
             : number == 6 || number == 11  ? Kind::kGraph
             : number == 22 || number == 23 ? Kind::kSparse
                                            : Kind::kNone;
    case Kind::kSparse:
      return number == 1 || number == 2 ? Kind::kTensor : Kind::kNone;
    case Kind::kTensor:
      return number == 13 ? Kind::kEntry : Kind::kNone;
    case Kind::kFunction:
      return number == 7 ? Kind::kNode : number == 9 ? Kind::kOpset : number == 11 ? Kind::kAttribute : Kind::kNone;
    default:
      return Kind::kNone;
  }
}

// A scalar as the file gives it: a text, or an integer where a text should be.
struct Scalar {
  std::string text;
  uint64_t integer = 0;
  bool is_integer = false;

  std::string Text() const { return is_integer ? std::to_string(integer) : text; }
};

struct Entry {
  std::string key, value;
};

// A message whose fields are being read.
struct Message {
  Kind kind;
  FieldReader fields;
  Scalar name, domain, version;  // of those that have them: an operator's name is its type
  std::vector<Entry> entries;
};

// Where to keep a scalar of a field, or null.
Scalar* ScalarOf(Message& message, uint64_t number) {
  switch (message.kind) {
    case Kind::kOpset:
      return number == 1 ? &message.domain : number == 2 ? &message.version : nullptr;
    case Kind::kNode:
      return number == 4 ? &message.name : number == 7 ? &message.domain : nullptr;
    case Kind::kFunction:
      return number == 1 ? &message.name : number == 10 ? &message.domain : nullptr;
    default:
      return nullptr;
  }
}

std::string Text(std::string_view content) {
  if (content.size() > kStringLimit) throw Damaged{"a name is too long"};
  if (!IsUtf8(content)) throw Damaged{"a name is not UTF-8"};
  return std::string(content);
}

Entry ReadEntry(std::string_view data, std::string_view content) {
  if (content.size() > 2 * kStringLimit) throw Damaged{"a weight's file name is too long"};
  Entry entry;
  FieldReader reader(data, content);
  for (Field field; reader.Next(field);) {
    if (field.is_integer || field.number > 2) continue;
    (field.number == 1 ? entry.key : entry.value) = Text(field.content);
  }
  return entry;
}

uint64_t Number(const Entry& entry) {
  const bool digits = entry.value.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || entry.value.empty() || entry.value.size() > 19) {
    throw Damaged{"a weight's " + entry.key + " is not one number"};
  }
  return std::stoull(entry.value);
}

// One reference for each location given: readers differ on which of several counts.
void KeepExternal(const std::vector<Entry>& entries, OnnxScan& result) {
  std::optional<uint64_t> offset, length;
  for (const Entry& entry : entries) {
    if (entry.key != "offset" && entry.key != "length") continue;
    std::optional<uint64_t>& number = entry.key == "offset" ? offset : length;
    if (number) throw Damaged{"a weight's " + entry.key + " is not one number"};
    number = Number(entry);
  }
  bool located = false;
  for (const Entry& entry : entries) {
    if (entry.key != "location") continue;
    result.external.push_back({entry.value, offset.value_or(0), length});
    located = true;
  }
  if (!located) result.external.push_back({"", offset.value_or(0), length});
}

void Keep(const Message& message, OnnxScan& result) {
  const std::string domain = message.domain.Text();
  if (message.kind == Kind::kOpset) {
    result.opsets.emplace(domain, message.version.is_integer ? message.version.integer : 0);
  } else if (message.kind == Kind::kNode) {
    result.operators.emplace(domain, message.name.Text());
  } else if (message.kind == Kind::kFunction) {
    result.functions.emplace(domain, message.name.Text());
  } else if (message.kind == Kind::kTensor && !message.entries.empty()) {
    KeepExternal(message.entries, result);
  }
}

OnnxScan Scan(std::string_view data) {
  OnnxScan result;
  std::vector<Message> open;
  const auto push = [&](Kind kind, std::string_view content) {
    open.push_back({kind, FieldReader(data, content), {}, {}, {}, {}});
    if (open.size() > kDepthLimit) throw Damaged{"nested more than " + std::to_string(kDepthLimit) + " deep"};
  };
  push(Kind::kModel, data);
  bool has_graph = false;
  int budget = kFieldLimit;
  while (!open.empty()) {
    Message& message = open.back();
    Field field;
    if (!message.fields.Next(field)) {
      Keep(message, result);
      open.pop_back();
      continue;
    }
    if (--budget < 0) throw Damaged{"more than " + std::to_string(kFieldLimit) + " fields"};
    Scalar* scalar = ScalarOf(message, field.number);
    if (field.is_integer) {
      if (scalar != nullptr) *scalar = {{}, field.integer, true};
      continue;
    }
    const Kind child = ChildOf(message.kind, field.number);
    has_graph = has_graph || child == Kind::kGraph;
    if (child == Kind::kEntry) {
      message.entries.push_back(ReadEntry(data, field.content));
    } else if (child != Kind::kNone) {
      push(child, field.content);  // `message` is not valid after this
    } else if (scalar != nullptr) {
      *scalar = {Text(field.content), 0, false};
    }
  }
  if (!has_graph) throw Damaged{"it holds no graph"};
  return result;
}

}  // namespace

OnnxScan ScanOnnx(std::string_view data, const std::string& name) {
  try {
    return Scan(data);
  } catch (const Damaged& damaged) {
    throw BundleError(name + ": not an ONNX model: " + damaged.problem);
  }
}

}  // namespace eptx::core
