#include "fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "readers/bundle/bundle.h"
#include "readers/dtype.h"
#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/proof/proof.h"
#include "readers/request/feeds.h"
#include "readers/request/tasks.h"
#include "readers/text.h"

namespace eptx::fuzz {
namespace {

using namespace eptx::core;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

struct Scene {
  Manifest manifest;
  std::unique_ptr<TaskChooser> tasks;
};

Scene& TheScene() {
  static Scene scene;
  return scene;
}

// Takes decisions from bytes; zeros when they run out.
class Choices {
 public:
  explicit Choices(std::string_view bytes) : bytes_(bytes) {}

  uint32_t Next(uint32_t below) {
    uint32_t value = 0;
    for (int i = 0; i < 2 && at_ < bytes_.size(); ++i) value = value << 8 | static_cast<unsigned char>(bytes_[at_++]);
    return value % below;
  }

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

// Exactly as many bytes as an input says, so that a sanitizer sees a read past the end.
std::unique_ptr<char[]> Content(Choices& choose, const eptx_input& input) {
  auto data = std::make_unique<char[]>(input.bytes);
  const bool small = choose.Next(4) != 0;
  const size_t width = std::max<size_t>(DtypeSize(input.dtype), 1);
  for (size_t i = 0; i < input.bytes; ++i) {
    const bool first = i % width == 0;  // the byte of a small integer that is not 0
    data[i] = static_cast<char>(small ? (first ? choose.Next(5) : 0) : choose.Next(256));
  }
  return data;
}

struct Made {
  std::vector<std::vector<int64_t>> shapes;
  std::vector<std::unique_ptr<char[]>> data;
  std::vector<eptx_input> inputs;
  std::vector<const char*> tasks;
};

int64_t OddSize(Choices& choose) {
  const int64_t odd[] = {0, -1, INT64_MAX, INT64_MIN, int64_t{1} << 33, 17, 5};
  return odd[choose.Next(7)];
}

Made MakeRequest(Choices& choose) {
  static const char* const names[] = {"input_ids", "attention_mask", "token_type_ids", "task_id", "x", "", "\xff\n"};
  static const char* const tasks[] = {"sst2", "mnli", "stsb", "base", "auto", "", "\x1b[2J\xc3"};
  Made made;
  const int64_t batch = 1 + choose.Next(4), length = 1 + choose.Next(6);
  const size_t count = choose.Next(5);
  made.shapes.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t name = choose.Next(8) == 0 ? choose.Next(7) : i;
    std::vector<int64_t>& shape = made.shapes.emplace_back();
    shape.push_back(batch);
    if (name != 3) shape.push_back(length);
    if (choose.Next(16) == 0) shape.push_back(1);
    if (choose.Next(16) == 0) shape[choose.Next(static_cast<uint32_t>(shape.size()))] = OddSize(choose);
    const auto dtype = static_cast<eptx_dtype>(choose.Next(16) == 0 ? choose.Next(300) : int{EPTX_INT64});
    const size_t bytes = TensorBytes(dtype, shape.data(), shape.size()).value_or(0);
    eptx_input input{sizeof(eptx_input),      names[name], dtype, shape.size(), shape.data(), nullptr,
                     bytes > 4096 ? 8 : bytes};
    if (choose.Next(32) == 0) input.bytes = choose.Next(64);
    made.data.push_back(Content(choose, input));
    input.data = made.data.back().get();
    made.inputs.push_back(input);
  }
  const size_t rows = choose.Next(3) == 0 ? choose.Next(5) : 1;
  for (size_t i = 0; i < rows; ++i) made.tasks.push_back(tasks[choose.Next(8) == 0 ? choose.Next(7) : i % 4]);
  return made;
}

// Checks that every tensor for ONNX Runtime is as long as its shape says.
void CheckFeeds(const Feeds& feeds, const Manifest& manifest) {
  for (size_t i = 0; i < feeds.tensors.size(); ++i) {
    const TensorView& tensor = feeds.tensors[i];
    const auto bytes = TensorBytes(tensor.dtype, tensor.shape, tensor.rank);
    if (!bytes || *bytes != tensor.bytes || tensor.data == nullptr) Fail("a feed is not what its shape says");
    if (tensor.dtype != manifest.inputs[i].dtype || tensor.shape[0] != feeds.batch)
      Fail("a feed does not fit the model");
  }
}

void ReadRequest(std::string_view bytes) {
  const Manifest& manifest = TheScene().manifest;
  Choices choose(bytes);
  const Made made = MakeRequest(choose);
  const eptx_request request{sizeof(eptx_request), made.inputs.data(), made.inputs.size(), made.tasks.data(),
                             made.tasks.size()};
  const Limits limits{manifest.vocab_size, 2, manifest.max_length};
  Feeds feeds = ReadInputs(request, manifest, limits);
  CheckValues(feeds, manifest, limits);
  TheScene().tasks->Choose(request, feeds);
  TheScene().tasks->CheckIds(feeds);
  CheckFeeds(feeds, manifest);
  if (choose.Next(2) == 0) feeds.OwnShapes();
  CheckFeeds(feeds, manifest);
  if (TheScene().tasks->Rows(feeds, nullptr).size() != static_cast<size_t>(feeds.batch)) Fail("rows are missing");
}

void ReadModel(std::string_view bytes) {
  const Manifest& manifest = TheScene().manifest;
  const OnnxScan scan = ScanOnnx(bytes, "model.onnx");
  CheckModel("model.onnx", scan, manifest);
  for (const ExternalData& data : scan.external) {
    if (manifest.files.count(data.location) == 0 || !IsContainedName(data.location)) Fail("a weight is elsewhere");
  }
}

void ReadManifest(std::string_view bytes) {
  const Manifest manifest = ParseManifest(bytes);
  for (const auto& [name, entry] : manifest.files) {
    if (!IsContainedName(name) || entry.sha256.size() != 64) Fail("a file's entry is not sound");
  }
  if (manifest.tasks.empty() || manifest.inputs.empty()) Fail("a manifest has no tasks or inputs");
  TaskChooser chooser(manifest);
}

// Checks that every sample has the numbers of its places, inside of the value.
void CheckSamples(const Samples& samples, const ProvedBatch& batch) {
  for (const auto& [name, sample] : samples) {
    const Places& places = sample.places;
    const size_t all = batch.rows() * places.positions;
    if (CountOf(sample.shape) != all * places.width) Fail("a value is larger than its rows");
    if (sample.values.size() != places.count() * sample.columns) Fail("a sample is not of its places");
    if (sample.largest.size() != places.count() * sample.most) Fail("the largest are not of their places");
    for (const size_t index : places.index) {
      if (index >= all) Fail("a place is outside of the value");
    }
    for (const int64_t index : sample.largest) {
      if (index < 0 || static_cast<size_t>(index) >= places.width) Fail("a largest number is outside of its place");
    }
  }
}

void ReadProofBytes(std::string_view bytes) {
  const Proof proof = ParseProof(bytes, "a.proof", false);
  if (proof.batches.empty()) Fail("a proof has no batches");
  for (const ProvedBatch& batch : proof.batches) {
    if (batch.compared.size() != batch.rows() || batch.ids.size() != batch.rows()) Fail("rows are missing");
    for (const Samples* samples : {&batch.outputs, &batch.inner, &batch.modules}) CheckSamples(*samples, batch);
  }
  for (const ExpertTable& table : proof.experts) {
    if (table.experts.size() != table.tasks * table.chosen || table.tied.size() != table.tasks) {
      Fail("a table of experts is not of its tasks");
    }
  }
}

}  // namespace

void SetManifest(std::string_view text) {
  Scene& scene = TheScene();
  scene.tasks.reset();
  scene.manifest = ParseManifest(text);
  scene.tasks = std::make_unique<TaskChooser>(scene.manifest);
}

void Read(Target target, std::string_view bytes) {
  try {
    if (target == Target::kManifest) ReadManifest(bytes);
    if (target == Target::kModel) ReadModel(bytes);
    if (target == Target::kConfig) ReadTokenTypes(bytes, "config.json");
    if (target == Target::kRequest) ReadRequest(bytes);
    if (target == Target::kProof) ReadProofBytes(bytes);
  } catch (const Error& error) {
    if (!IsUtf8(error.what()) || error.what()[0] == 0) Fail("an error does not say what is wrong");
    if (error.status() != EPTX_BAD_INPUT && error.status() != EPTX_USAGE && error.status() != EPTX_LIMIT) {
      Fail("an error of another status");
    }
  }
}

}  // namespace eptx::fuzz
