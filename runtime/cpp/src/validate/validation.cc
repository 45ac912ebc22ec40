#include "validate/validation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "readers/bundle/bundle.h"
#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/proof/proof.h"
#include "readers/text.h"
#include "validate/binding.h"
#include "validate/compare.h"
#include "validate/report.h"

namespace eptx::core {
namespace {

// Adds the time since it was made to a stage.
class Watch {
 public:
  Watch(Found& found, std::string stage) : found_(found), stage_(std::move(stage)) {}
  ~Watch() {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start_;
    found_.seconds.emplace_back(stage_, std::round(took.count() * 1000) / 1000);
  }

 private:
  Found& found_;
  std::string stage_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What a proof adds to a model may refer to nothing that the bundle may not refer to.
void CheckAdded(const std::string& name, const Observed& observed, const Manifest& manifest) {
  CheckModelPart(name, ScanOnnx(observed.added, name), manifest);
  if (observed.float_activations) CheckModel(name, ScanOnnx(*observed.float_activations, name), manifest);
}

// The tasks, in the order in which the batches have them.
std::vector<std::string> TasksOf(const Proof& proof) {
  std::vector<std::string> tasks;
  for (const ProvedBatch& batch : proof.batches) {
    for (const std::string& task : batch.tasks) {
      if (std::find(tasks.begin(), tasks.end(), task) == tasks.end()) tasks.push_back(task);
    }
  }
  return tasks;
}

BackendReport RunBackend(const std::string& operators, const Opener& opener, const Proof& proof) {
  const Results results = CompareWith(proof, opener);
  BackendReport report{operators, {}};
  for (const std::string& task : TasksOf(proof)) {
    report.tasks.push_back(ReportOf(task, opener.bundle.manifest(), proof, results));
  }
  return report;
}

void RunBackends(const Environment& environment, const Bundle& bundle, const Options& options, const Proof& proof,
                 Found& found) {
  const Kernels kernels = ChooseKernels(options.kernels, bundle), none;
  const bool own = !bundle.operators().own.empty();
  {
    const std::string operators = own ? "functions" : "standard";
    const Watch watch(found, own ? "running the bundle (cpu, functions)" : "running the bundle (cpu)");
    found.backends.push_back(RunBackend(operators, {environment, bundle, options, none}, proof));
  }
  if (!own || !kernels.domain) return;
  const Watch watch(found, "running the bundle (cpu, kernels)");
  try {
    found.backends.push_back(RunBackend("kernels", {environment, bundle, options, kernels}, proof));
  } catch (const Error& error) {
    // the model may still run by its functions, which know types that the kernels do not
    if (error.status() != EPTX_BAD_INPUT || options.kernels == EPTX_KERNELS_ON) throw;
    found.warnings.push_back("cpu, kernels: not validated; the bundle runs by its functions: " +
                             std::string(error.what()));
  }
}

}  // namespace

Validation::Validation(const std::shared_ptr<const Environment>& environment, const std::string& path,
                       const std::string& proof_path, Options options) {
  options.verify = true;  // a changed weight is seen by the hashes that the proof is bound to
  CheckedOptions(options, *environment);
  Found found;
  const auto bundle = [&] {
    const Watch watch(found, "checking the bundle");
    auto opened = std::make_unique<Bundle>(path, true);
    opened->FinishVerifying();
    return opened;
  }();
  const Proof proof = [&] {
    const Watch watch(found, "reading the proof");
    Proof read = ReadProof(proof_path);
    found.manifest = ParseJson(ReadFile(bundle->path() + "/" + kManifestFile, kJsonLimit), kManifestFile);
    found.checks = read.checks;
    const std::string name = OneLine(BaseName(proof_path), 100);
    for (auto& check : CheckSame(name, read.bundle, found.manifest)) found.checks.push_back(std::move(check));
    CheckAdded(name, read.model, bundle->manifest());
    if (read.encoder) CheckAdded(name, *read.encoder, bundle->manifest());
    return read;
  }();
  RunBackends(*environment, *bundle, options, proof, found);
  const Report report = MakeReport(found, proof);
  passed_ = report["passed"].get<bool>();
  report_ = report.dump(2, ' ', false, Report::error_handler_t::replace);
}

}  // namespace eptx::core
