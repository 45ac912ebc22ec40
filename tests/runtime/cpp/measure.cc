// eptx_measure BASE.onnx BUNDLE TASK PAIRS: prints, in milliseconds,
//   the time from opening to the first answer, the bundle through libeptx and the base through ONNX Runtime alone;
//   what one run costs beside ONNX Runtime itself, in microseconds, of a 1x16 request and of a prepared call.
// Pairs alternate, and medians are shown: machines drift.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "eptx.hpp"

namespace {

constexpr int64_t kLength = 16;

const OrtApi& Api() { return *OrtGetApiBase()->GetApi(ORT_API_VERSION); }

void Check(OrtStatus* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", Api().GetErrorMessage(status));
  std::exit(1);
}

double Seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// A model through ONNX Runtime's own API, on one thread.
class Plain {
 public:
  Plain(const OrtEnv* env, const std::string& path, std::vector<std::string> inputs, std::string output)
      : inputs_(std::move(inputs)), output_(std::move(output)), ids_(kLength, 7), ones_(kLength, 1), zeros_(kLength) {
    OrtSessionOptions* options = nullptr;
    Check(Api().CreateSessionOptions(&options));
    Check(Api().SetIntraOpNumThreads(options, 1));
    Check(Api().CreateSession(env, path.c_str(), options, &session_));
    Api().ReleaseSessionOptions(options);
    OrtMemoryInfo* memory = nullptr;
    Check(Api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    for (const std::string& name : inputs_) {
      std::vector<int64_t>& data = name == "input_ids" ? ids_ : name == "attention_mask" ? ones_ : zeros_;
      const int64_t shape[] = {1, kLength};
      const size_t rank = name == "task_id" ? 1 : 2;
      OrtValue* value = nullptr;
      Check(Api().CreateTensorWithDataAsOrtValue(memory, data.data(), (rank == 1 ? 1 : kLength) * sizeof(int64_t),
                                                 shape, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value));
      values_.push_back(value);
      names_.push_back(name.c_str());
    }
    Api().ReleaseMemoryInfo(memory);
  }
  ~Plain() {
    for (OrtValue* value : values_) Api().ReleaseValue(value);
    Api().ReleaseSession(session_);
  }

  void Run() {
    const char* const output[] = {output_.c_str()};
    OrtValue* value = nullptr;
    Check(Api().Run(session_, nullptr, names_.data(), const_cast<const OrtValue* const*>(values_.data()),
                    values_.size(), output, 1, &value));
    Api().ReleaseValue(value);
  }

 private:
  std::vector<std::string> inputs_;
  std::string output_;
  std::vector<int64_t> ids_, ones_, zeros_;
  std::vector<OrtValue*> values_;
  std::vector<const char*> names_;
  OrtSession* session_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: eptx_measure BASE.onnx BUNDLE TASK PAIRS\n");
    return 2;
  }
  const std::string base = argv[1], bundle = argv[2], task = argv[3];
  const int pairs = std::atoi(argv[4]);
  OrtEnv* env = nullptr;
  Check(Api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "measure", &env));
  {
    const eptx::Environment environment;
    const std::vector<int64_t> ids(kLength, 7);
    const std::vector<eptx::Input> inputs = {{"input_ids", ids, {1, kLength}}};
    const std::vector<std::string> base_inputs = {"input_ids", "attention_mask", "token_type_ids"};

    std::vector<double> ours, theirs, ratios, unverified;
    for (int i = 0; i < pairs; ++i) {
      theirs.push_back(Seconds([&] { Plain(env, base, base_inputs, "last_hidden_state").Run(); }));
      ours.push_back(Seconds([&] { eptx::Session(environment, bundle, {1}).Run(inputs, {task}); }));
      unverified.push_back(Seconds([&] { eptx::Session(environment, bundle, {1, false}).Run(inputs, {task}); }));
      ratios.push_back(ours.back() / theirs.back());
    }
    std::printf("open to first answer: bundle %.1f ms (unverified %.1f), base %.1f ms, median ratio %.2f\n",
                1e3 * Median(ours), 1e3 * Median(unverified), 1e3 * Median(theirs), Median(ratios));

    const eptx::Session session(environment, bundle, {1, false, EPTX_KERNELS_OFF});
    std::vector<std::string> names;
    for (const auto& input : session.Inputs()) names.emplace_back(input.name);
    Plain plain(env, bundle + "/model.onnx", names, "logits");
    std::vector<float> logits(64);
    eptx::Call call(session, inputs, {task}, {{"logits", logits}});
    std::vector<double> run, into, prepared, alone;
    for (int i = 0; i < 20 * pairs; ++i) {
      alone.push_back(Seconds([&] { plain.Run(); }));
      into.push_back(Seconds([&] { session.RunInto(inputs, {task}, {{"logits", logits}}); }));
      prepared.push_back(Seconds([&] { call.Run(); }));
      run.push_back(Seconds([&] { session.Run(inputs, {task}); }));
    }
    std::printf("one run: ONNX Runtime %.1f us; libeptx %+.1f us, into buffers %+.1f us, prepared %+.1f us\n",
                1e6 * Median(alone), 1e6 * (Median(run) - Median(alone)), 1e6 * (Median(into) - Median(alone)),
                1e6 * (Median(prepared) - Median(alone)));
  }
  Api().ReleaseEnv(env);
  return 0;
}
