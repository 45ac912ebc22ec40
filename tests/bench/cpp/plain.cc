// bench_plain MODEL.onnx THREADS RUNS: runs the base model through ONNX Runtime's C API.
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <vector>

#include "process.h"

namespace {

const OrtApi& Api() { return *OrtGetApiBase()->GetApi(ORT_API_VERSION); }

void Check(OrtStatus* status) {
  if (status == nullptr) return;
  std::fprintf(stderr, "%s\n", Api().GetErrorMessage(status));
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int threads = std::atoi(argv[2]), runs = std::atoi(argv[3]);
  const Clock clock;
  OrtEnv* env = nullptr;
  Check(Api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "bench", &env));
  OrtSessionOptions* options = nullptr;
  Check(Api().CreateSessionOptions(&options));
  Check(Api().SetIntraOpNumThreads(options, threads));
  OrtSession* session = nullptr;
  Check(Api().CreateSession(env, argv[1], options, &session));
  OrtMemoryInfo* memory = nullptr;
  Check(Api().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
  const int64_t shape[] = {kRows, kLength};
  std::vector<int64_t> ids(kRows * kLength, 7), ones(kRows * kLength, 1), zeros(kRows * kLength, 0);
  OrtValue* inputs[3] = {};
  std::vector<int64_t>* data[] = {&ids, &ones, &zeros};
  for (int i = 0; i < 3; ++i) {
    Check(Api().CreateTensorWithDataAsOrtValue(memory, data[i]->data(), data[i]->size() * sizeof(int64_t), shape, 2,
                                               ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &inputs[i]));
  }
  const char* input_names[] = {"input_ids", "attention_mask", "token_type_ids"};
  const char* output_names[] = {"last_hidden_state"};
  const auto run = [&] {
    OrtValue* output = nullptr;
    Check(Api().Run(session, nullptr, input_names, inputs, 3, output_names, 1, &output));
    Api().ReleaseValue(output);
  };
  run();
  const double first = clock.Milliseconds();
  const Clock all;
  for (int i = 0; i < runs; ++i) run();
  Report(first, all.Milliseconds() / runs);
}
