#include "validate/bundle_model.h"

#include <algorithm>
#include <set>

#include "readers/error.h"
#include "readers/formats/files.h"
#include "readers/text.h"
#include "session/session.h"

namespace eptx::core {
namespace {

constexpr size_t kModelLimit = INT32_MAX;  // of protocol buffers

// The encoder's file, which the bundle must list.
std::string EncoderFile(const Manifest& manifest) {
  const std::string& file = manifest.encoder->file;
  if (manifest.files.count(file) == 0) throw ManifestError("does not list the encoder's file");
  return file;
}

Graph Open(const Opener& opener, const std::string& file, const std::string* bytes) {
  return Graph(LoadModel(opener.environment, opener.bundle, opener.options, opener.kernels,
                         {opener.bundle.path() + "/" + file, bytes}));
}

// The graph that rounds no activations: the proof's where it has one.
Graph OpenFloat(const Opener& opener, const std::string& file, const Observed& observed) {
  return Open(opener, file, observed.float_activations ? &*observed.float_activations : nullptr);
}

Graph OpenVisible(const Opener& opener, const std::string& file, const Observed& observed) {
  const std::string model = (observed.float_activations ? *observed.float_activations
                                                        : ReadFile(opener.bundle.path() + "/" + file, kModelLimit)) +
                            observed.added;
  return Open(opener, file, &model);
}

// Expert numbers of the adapter, given numbers among the experts that the model kept.
void Renumber(Array& choice, const std::vector<int64_t>& unused) {
  if (unused.empty()) return;
  const std::set<int64_t> left_out(unused.begin(), unused.end());
  std::vector<int64_t> kept;
  const double most = choice.data.empty() ? 0 : *std::max_element(choice.data.begin(), choice.data.end());
  for (int64_t expert = 0; expert <= static_cast<int64_t>(most) + static_cast<int64_t>(unused.size()); ++expert) {
    if (left_out.count(expert) == 0) kept.push_back(expert);
  }
  for (double& number : choice.data) {
    if (number < 0 || number >= static_cast<double>(kept.size())) throw BundleError("a router chooses no expert");
    number = static_cast<double>(kept[static_cast<size_t>(number)]);
  }
}

Arrays RoutesOf(const Values& values, const Observed& observed, const ModulePlaces& places) {
  constexpr double kMostExperts = 1 << 20;
  Arrays routes;
  for (const auto& [module, names] : observed.routes) {
    if (values.count(names.first) == 0 || values.count(names.second) == 0) continue;
    Array choice = ReadArray(Find(values, names.first));
    if (std::any_of(choice.data.begin(), choice.data.end(),
                    [](double n) { return !(n < kMostExperts && n > -kMostExperts); })) {
      throw BundleError("a router chooses no expert");
    }
    const auto place = places.find(module);
    if (place != places.end()) Renumber(choice, place->second.unused);
    routes.emplace(module, std::move(choice));
  }
  return routes;
}

Columns ColumnsOf(const ModulePlace& place) { return {place.first, place.last}; }

}  // namespace

BundleModel BundleModel::Shipped(const Opener& opener) {
  const Manifest& m = opener.bundle.manifest();
  Graph model = Open(opener, kModelFile, nullptr);
  CheckSignature(model.session(), m);
  std::unique_ptr<Graph> encoder;
  if (m.encoder) encoder = std::make_unique<Graph>(Open(opener, EncoderFile(m), nullptr));
  return {m, std::move(model), std::move(encoder), nullptr};
}

BundleModel BundleModel::WithFloatActivations(const Opener& opener, const Proof& proof) {
  const Manifest& m = opener.bundle.manifest();
  std::unique_ptr<Graph> encoder;
  if (m.encoder && proof.encoder) {
    encoder = std::make_unique<Graph>(OpenFloat(opener, EncoderFile(m), *proof.encoder));
  }
  return {m, OpenFloat(opener, kModelFile, proof.model), std::move(encoder), nullptr};
}

BundleModel BundleModel::Visible(const Opener& opener, const Proof& proof) {
  const Manifest& m = opener.bundle.manifest();
  std::unique_ptr<Graph> encoder;
  if (m.encoder && proof.encoder) {
    encoder = std::make_unique<Graph>(OpenVisible(opener, EncoderFile(m), *proof.encoder));
  }
  return {m, OpenVisible(opener, kModelFile, proof.model), std::move(encoder), &proof};
}

Observation BundleModel::Run(const ProvedBatch& batch) const {
  DecodeLoop loop(manifest_, batch);
  loop.Run(model_, encoder_.get());
  Observation found;
  for (const TensorSpec& spec : manifest_.outputs) {
    if (loop.calls()[0].count(spec.name) != 0) found.outputs.emplace(spec.name, loop.Joined(spec.name));
  }
  for (const auto& [name, value] : loop.encoded()) {
    if (EndsWith(name, kUsed)) found.outputs[name] = ReadArray(value.get());
  }
  if (visible_ == nullptr) return found;
  for (const auto& [name, place] : manifest_.modules) {
    const Columns columns = ColumnsOf(place);
    found.modules.emplace(name, loop.Joined(place.output, &columns));
  }
  for (const Values& call : loop.calls()) {
    found.routes.push_back(RoutesOf(call, visible_->model, manifest_.modules));
  }
  if (!visible_->encoder || !manifest_.encoder) return found;
  for (const auto& [name, place] : manifest_.encoder->modules) {
    const Columns columns = ColumnsOf(place);
    found.modules[name] = ReadArray(Find(loop.encoded(), place.output), &columns);
  }
  Arrays first = RoutesOf(loop.encoded(), *visible_->encoder, manifest_.encoder->modules);
  for (auto& [name, choice] : first) found.routes[0][name] = std::move(choice);
  return found;
}

}  // namespace eptx::core
