// Field numbers are those of onnx.proto (https://github.com/onnx/onnx, Apache-2.0).
#include "readers/formats/onnx_scan.h"

#include "readers/error.h"
#include "readers/formats/protobuf.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

constexpr int kFieldLimit = 2'000'000;  // fields visited; a graph of 10 000 nodes has about 300 000
constexpr size_t kStringLimit = 4096;
constexpr size_t kDepthLimit = 200;  // protocol-buffer readers stop at 100
// Byte 4 on of a file in ONNX Runtime's own format, which it reads without a protocol-buffer library.
constexpr std::string_view kOrtFormat = "ORTM";

enum class Kind { kNone, kModel, kTraining, kGraph, kNode, kAttribute, kSparse, kTensor, kFunction, kOpset, kEntry };

// The kind of message that a field holds, if the scan reads it.
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

const char* NameOf(Kind kind) {
  constexpr const char* names[] = {"",       "Model",  "Training", "Graph", "Node", "Attribute",
                                   "Sparse", "Tensor", "Function", "Opset", "Entry"};
  return names[static_cast<size_t>(kind)];
}

// Whether a field holds one message, not a list of messages.
bool IsSingle(Kind kind, uint64_t number) {
  if (kind == Kind::kModel) return number == 7;
  if (kind == Kind::kAttribute) return number == 5 || number == 6 || number == 22;
  return kind == Kind::kTraining || kind == Kind::kSparse;
}

struct Entry {
  std::string key, value;
};

// A message whose fields are being read.
struct Message {
  Kind kind;
  FieldReader fields;
  std::string name, domain;  // empty where the message has none; the name of a node is its operator's type
  int64_t version = 0;
  std::vector<Entry> entries;
  uint32_t seen = 0;  // bits of the fields that came and may come once
};

bool IsVersion(Kind kind, uint64_t number) { return kind == Kind::kOpset && number == 2; }

// Where to store the text of a field, or null.
std::string* TextOf(Message& message, uint64_t number) {
  switch (message.kind) {
    case Kind::kOpset:
      return number == 1 ? &message.domain : nullptr;
    case Kind::kNode:
      return number == 4 ? &message.name : number == 7 ? &message.domain : nullptr;
    case Kind::kFunction:
      return number == 1 ? &message.name : number == 10 ? &message.domain : nullptr;
    default:
      return nullptr;
  }
}

// Refuses a field that protocol-buffer libraries would drop, overwrite or merge.
void CheckField(Kind kind, const Field& field, bool single, uint32_t& seen) {
  const std::string about = "field " + std::to_string(field.number) + " of a message " + NameOf(kind);
  const uint64_t wanted = IsVersion(kind, field.number) ? kNumber : kBytes;
  if (field.wire != wanted) {
    throw Damaged{about + " has wire type " + std::to_string(field.wire) + ", not " + std::to_string(wanted)};
  }
  if (!single) return;
  const uint32_t bit = uint32_t{1} << field.number;
  if ((seen & bit) != 0) throw Damaged{about + " comes twice"};
  seen |= bit;
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
  uint32_t seen = 0;
  for (Field field; reader.Next(field);) {
    if (field.number > 2) continue;
    CheckField(Kind::kEntry, field, true, seen);
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

// Keeps every location that is given, as readers differ on which one counts.
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
  if (message.kind == Kind::kOpset) {
    result.opsets.emplace(message.domain, message.version);
  } else if (message.kind == Kind::kNode) {
    result.operators.emplace(message.domain, message.name);
  } else if (message.kind == Kind::kFunction) {
    result.functions.emplace(message.domain, message.name);
  } else if (message.kind == Kind::kTensor && !message.entries.empty()) {
    KeepExternal(message.entries, result);
  }
}

OnnxScan Scan(std::string_view data) {
  if (data.size() >= 8 && data.substr(4, 4) == kOrtFormat) throw Damaged{"it is in the format of ONNX Runtime"};
  OnnxScan result;
  std::vector<Message> open;
  const auto push = [&](Kind kind, std::string_view content) {
    open.push_back({kind, FieldReader(data, content), {}, {}, 0, {}, 0});
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
    const Kind child = ChildOf(message.kind, field.number);
    const bool is_version = IsVersion(message.kind, field.number);
    std::string* const text = TextOf(message, field.number);
    if (child == Kind::kNone && !is_version && text == nullptr) continue;
    CheckField(message.kind, field, child == Kind::kNone || IsSingle(message.kind, field.number), message.seen);
    has_graph = has_graph || child == Kind::kGraph;
    if (is_version) {
      message.version = static_cast<int64_t>(field.integer);
    } else if (text != nullptr) {
      *text = Text(field.content);
    } else if (child == Kind::kEntry) {
      message.entries.push_back(ReadEntry(data, field.content));
    } else {
      push(child, field.content);  // `message` is not valid after this
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
