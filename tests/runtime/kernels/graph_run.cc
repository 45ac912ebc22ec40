#include "graph_run.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "ops/domain.h"
#include "ops/register.h"

namespace eptx::graph_fuzz {
namespace {

constexpr size_t kArenaLimit = size_t{512} << 20;

const OrtApi& Api() {
  static const OrtApi* const api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  return *api;
}

// Ends the program where a call fails that does not depend on what was drawn.
void Must(OrtStatus* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "graph_fuzz: %s\n", Api().GetErrorMessage(status));
  std::abort();
}

std::optional<std::string> Failed(OrtStatus* status) {
  if (status == nullptr) return {};
  std::string text = Api().GetErrorMessage(status);
  Api().ReleaseStatus(status);
  return text;
}

OrtEnv* Environment() {
  static OrtEnv* const environment = [] {
    OrtEnv* made = nullptr;
    Must(Api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "graph_fuzz", &made));
    OrtMemoryInfo* memory = nullptr;
    Must(Api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    const char* const keys[] = {"max_mem", "arena_extend_strategy"};
    const size_t values[] = {kArenaLimit, 1};
    OrtArenaCfg* config = nullptr;
    Must(Api().CreateArenaCfgV2(keys, values, 2, &config));
    Must(Api().CreateAndRegisterAllocator(made, memory, config));
    Api().ReleaseArenaCfg(config);
    Api().ReleaseMemoryInfo(memory);
    return made;
  }();
  return environment;
}

// The encoding of protocol buffers; field numbers are those of onnx.proto.
std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}
std::string Int(uint64_t field, int64_t value) { return Varint(field << 3) + Varint(static_cast<uint64_t>(value)); }
std::string Text(uint64_t field, const std::string& text) {
  return Varint(field << 3 | 2) + Varint(text.size()) + text;
}

std::string Value(const std::string& name, Type type) {
  return Text(1, name) + Text(2, Text(1, Int(1, type)));
}

// Exactly as many bytes as the numbers take. Large tensors are zeros, for which the system gives memory when they are
// read.
struct Memory {
  explicit Memory(const Array& array, Type type) : size(array.count * TypeSize(type)) {
    data = std::calloc(std::max<size_t>(size, 1), 1);
    if (data == nullptr) std::abort();
    std::memcpy(data, array.bytes.data(), array.bytes.size());
  }
  ~Memory() { std::free(data); }
  Memory(Memory&& other) noexcept : size(other.size), data(std::exchange(other.data, nullptr)) {}
  size_t size;
  void* data;
};

std::string Tensor(const Operand& operand, const Array& array) {
  std::string bytes;
  for (const int64_t dim : array.dims) bytes += Int(1, dim);
  const Memory memory(array, operand.type);
  return bytes + Int(2, operand.type) + Text(8, operand.name) + Text(9, {static_cast<char*>(memory.data), memory.size});
}

Output Read(OrtValue* value) {
  Output output;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Must(Api().GetTensorTypeAndShape(value, &info));
  size_t rank = 0, count = 0;
  ONNXTensorElementDataType type;
  Must(Api().GetDimensionsCount(info, &rank));
  output.dims.resize(rank);
  Must(Api().GetDimensions(info, output.dims.data(), rank));
  Must(Api().GetTensorShapeElementCount(info, &count));
  Must(Api().GetTensorElementType(info, &type));
  Api().ReleaseTensorTypeAndShapeInfo(info);
  void* data = nullptr;
  Must(Api().GetTensorMutableData(value, &data));
  if (type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) {
    output.floats.assign(static_cast<float*>(data), static_cast<float*>(data) + count);
  } else {
    output.integers.assign(static_cast<int64_t*>(data), static_cast<int64_t*>(data) + count);
  }
  return output;
}

}  // namespace

std::string ModelBytes(const Node& node, const Case& drawn, const std::string& functions) {
  std::string call, graph;
  for (size_t i = 0; i < node.operands.size(); ++i) {
    const Operand& operand = node.operands[i];
    std::string name = operand.name;
    graph += operand.constant ? Text(5, Tensor(operand, drawn.arrays[i])) : Text(11, Value(name, operand.type));
    // Kernels never overwrite an input of the graph, so a base output gets a value of its own.
    if (name[0] == 'y') {
      graph += Text(1, Text(1, name) + Text(2, "negative_" + name) + Text(4, "Neg"));
      name = "negative_" + name;
    }
    if (i < node.inputs) call += Text(1, name);
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const std::string name = "out_" + std::to_string(i);
    call += Text(2, name);
    graph += Text(12, Value(name, node.outputs[i]));
  }
  call += Text(4, node.op) + Text(7, kOperatorDomain);
  for (const auto& [name, value] : node.attributes) call += Text(5, Text(1, name) + Int(3, value) + Int(20, 2));
  graph += Text(1, call) + Text(2, "node");
  const std::string standard = Text(1, "") + Int(2, 20), own = Text(1, kOperatorDomain) + Int(2, kOperatorVersion);
  return Int(1, 10) + Text(7, graph) + Text(8, standard) + Text(8, own) + functions;
}

Session::Session(const Node& node, const std::string& model, bool kernels) : node_(node) {
  OrtSessionOptions* options = nullptr;
  Must(Api().CreateSessionOptions(&options));
  Must(Api().SetIntraOpNumThreads(options, 1));
  if (kernels) {
    const std::set<std::string> only{node.op};
    domain_ = ops::MakeDomain(Api(), &only);
    if (domain_ == nullptr) std::abort();
    Must(Api().AddCustomOpDomain(options, domain_));
    Must(Api().DisableCpuMemArena(options));
    Must(Api().DisableMemPattern(options));
    Must(Api().AddSessionConfigEntry(options, "session.disable_aot_function_inlining", "1"));
  } else {
    Must(Api().AddSessionConfigEntry(options, "session.use_env_allocators", "1"));
    Must(Api().AddSessionConfigEntry(options, "optimization.constant_folding_max_output_size_in_bytes", "67108864"));
  }
  refused_ = Failed(Api().CreateSessionFromArray(Environment(), model.data(), model.size(), options, &session_));
  Api().ReleaseSessionOptions(options);
}

Session::~Session() {
  if (session_ != nullptr) Api().ReleaseSession(session_);
  if (domain_ != nullptr) Api().ReleaseCustomOpDomain(domain_);
}

Answer Session::Run(const Case& drawn) const {
  Answer answer;
  OrtMemoryInfo* info = nullptr;
  Must(Api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &info));
  std::vector<Memory> memory;
  std::vector<OrtValue*> values;
  std::vector<const char*> names, wanted;
  for (size_t i = 0; i < node_.operands.size() && !answer.refused; ++i) {
    const Operand& operand = node_.operands[i];
    if (operand.constant) continue;
    memory.emplace_back(drawn.arrays[i], operand.type);
    const std::vector<int64_t>& dims = drawn.arrays[i].dims;
    OrtValue* value = nullptr;
    answer.refused = Failed(Api().CreateTensorWithDataAsOrtValue(
        info, memory.back().data, memory.back().size, dims.data(), dims.size(),
        static_cast<ONNXTensorElementDataType>(operand.type), &value));
    values.push_back(value);
    names.push_back(operand.name.c_str());
  }
  Api().ReleaseMemoryInfo(info);
  std::vector<std::string> texts;
  for (size_t i = 0; i < node_.outputs.size(); ++i) texts.push_back("out_" + std::to_string(i));
  for (const std::string& text : texts) wanted.push_back(text.c_str());
  std::vector<OrtValue*> outputs(wanted.size());
  if (!answer.refused) {
    answer.refused = Failed(Api().Run(session_, nullptr, names.data(), values.data(), values.size(), wanted.data(),
                                      wanted.size(), outputs.data()));
  }
  for (OrtValue* output : outputs) {
    if (!answer.refused) answer.outputs.push_back(Read(output));
    if (output != nullptr) Api().ReleaseValue(output);
  }
  for (OrtValue* value : values) {
    if (value != nullptr) Api().ReleaseValue(value);
  }
  return answer;
}

}  // namespace eptx::graph_fuzz
