#include "validate/compare.h"

#include <cmath>
#include <limits>
#include <set>

#include "readers/error.h"
#include "readers/text.h"
#include "validate/fit.h"
#include "validate/routes.h"

namespace eptx::core {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Adds the error of the sampled numbers to the spread of each row's task, and all numbers that should not be there.
void AddErrors(Spreads& spreads, Kind kind, const std::string& name, const ProvedBatch& batch, const Sample& exact,
               const Fitted& fitted) {
  std::vector<Spread*> of_row;
  for (const std::string& task : batch.tasks) of_row.push_back(&spreads[{task, kind, name}]);
  const Places& places = exact.places;
  const size_t width = places.width, columns = exact.columns;
  const size_t extra = fitted.more.data.size() / std::max<size_t>(1, batch.rows() * places.positions);
  for (size_t place = 0; place < places.count(); ++place) {
    if (!batch.compared[places.row(place)]) continue;
    Spread& spread = *of_row[places.row(place)];
    const double* const found = fitted.same.data.data() + places.index[place] * width;
    const double* const wanted = exact.values.data() + place * columns;
    for (size_t j = 0; j < columns; ++j) {
      const size_t feature = columns == width ? j : (place * columns + j) % width;
      if (std::isnan(wanted[j])) continue;  // the proof leaves it out
      spread.Add(found[feature] - wanted[j]);
    }
    for (size_t i = 0; i < extra; ++i) spread.Add(fitted.more.data[places.index[place] * extra + i]);
  }
}

void Compare(Spreads& spreads, Kind kind, const ProvedBatch& batch, const Arrays& found, const Samples& exact,
             Results& results) {
  for (const auto& [name, sample] : exact) {
    const auto array = found.find(name);
    if (array == found.end()) continue;
    const auto fitted =
        kind == Kind::kOutput ? FitOutput(array->second, sample.shape) : FitModule(array->second, sample.shape);
    if (fitted) {
      AddErrors(spreads, kind, name, batch, sample, *fitted);
      continue;
    }
    const std::string message = "has shape " + ShapeText(array->second.shape.data(), array->second.rank()) +
                                "; the trained model gives " + ShapeText(sample.shape.data(), sample.shape.size());
    for (const std::string& task : batch.tasks) results.complaints.emplace(std::pair(task, name), message);
  }
}

void CompareOutputs(Spreads& spreads, const ProvedBatch& batch, const Arrays& outputs, Results& results) {
  Compare(spreads, Kind::kOutput, batch, outputs, batch.outputs, results);
  Compare(spreads, Kind::kOutput, batch, outputs, batch.inner, results);
}

// A batch that cannot be compared has an infinite error; the other batches are still compared.
template <typename Function>
void NoteFailures(const ProvedBatch& batch, Results& results, Function function) {
  try {
    function();
  } catch (const Error& error) {
    if (error.status() != EPTX_BAD_INPUT) throw;
    for (const std::string& task : std::set<std::string>(batch.tasks.begin(), batch.tasks.end())) {
      results.broken.emplace(task, "on the batch " + Repr(batch.name) + ", " + error.what());
      for (const auto& [name, sample] : batch.outputs) results.error[{task, Kind::kOutput, name}].Add(kInfinity);
    }
  }
}

void RunOutputs(const Opener& opener, const BundleModel& model, const Proof& proof, Results& results) {
  for (const ProvedBatch& batch : proof.batches) {
    for (size_t row = 0; row < batch.rows(); ++row) {
      Results::Rows& rows = results.rows[batch.tasks[row]];
      ++(batch.compared[row] ? rows.compared : rows.aside);
    }
    NoteFailures(batch, results, [&] {
      const Arrays outputs = model.Run(batch).outputs;
      CompareOutputs(results.error, batch, outputs, results);
      CheckTasks(batch, outputs, results);
      results.answers.Add(batch, outputs, opener.bundle.manifest());
    });
  }
}

// As it is shipped, with activations rounded to 8 bits: reported, but without an influence on the verdict.
void RunRounded(const Opener& opener, const BundleModel& model, const Proof& proof, Results& results) {
  for (const ProvedBatch& batch : proof.batches) {
    NoteFailures(batch, results, [&] {
      const Arrays outputs = model.Run(batch).outputs;
      CompareOutputs(results.rounded_error, batch, outputs, results);
      results.rounded_answers.Add(batch, outputs, opener.bundle.manifest());
    });
  }
}

void RunVisible(const BundleModel& model, const Proof& proof, Results& results) {
  for (const ProvedBatch& batch : proof.batches) {
    if (!batch.inside) continue;
    NoteFailures(batch, results, [&] {
      const Observation seen = model.Run(batch);
      CompareOutputs(results.visible_error, batch, seen.outputs, results);
      Compare(results.error, Kind::kModule, batch, seen.modules, batch.modules, results);
      CheckExperts(proof, batch, seen, results);
      CheckGroups(batch, seen, results);
    });
  }
}

}  // namespace

Results CompareWith(const Proof& proof, const Opener& opener) {
  Results results;
  const bool rounds = proof.model.float_activations || (proof.encoder && proof.encoder->float_activations);
  if (rounds) RunOutputs(opener, BundleModel::WithFloatActivations(opener, proof), proof, results);
  const BundleModel shipped = BundleModel::Shipped(opener);
  if (rounds) {
    RunRounded(opener, shipped, proof, results);
  } else {
    RunOutputs(opener, shipped, proof, results);
  }
  RunVisible(BundleModel::Visible(opener, proof), proof, results);
  return results;
}

}  // namespace eptx::core
