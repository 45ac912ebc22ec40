#include "validate/answers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace eptx::core {
namespace {

// The reference's numbers of one place; where a sample has only the largest, the others are minus infinity.
std::vector<double> NumbersOf(const Sample& sample, size_t place) {
  if (!sample.has_largest()) {
    const double* const first = sample.values.data() + place * sample.columns;
    return {first, first + sample.columns};
  }
  std::vector<double> wide(sample.places.width, -std::numeric_limits<double>::infinity());
  for (size_t i = place * sample.most; i < (place + 1) * sample.most; ++i) {
    wide[static_cast<size_t>(sample.largest[i])] = sample.largest_values[i];
  }
  return wide;
}

// The place of a row's position that is compared; the logits of a row are one place.
std::optional<size_t> PlaceOf(const Sample& sample, size_t row, size_t position) {
  return sample.places.Find(row, sample.places.has_positions ? position : 0);
}

}  // namespace

void Answers::Add(const ProvedBatch& batch, const Arrays& outputs, const Manifest& manifest) {
  const auto exact = batch.outputs.find(std::string(kLogits));
  const auto found = outputs.find(std::string(kLogits));
  if (exact == batch.outputs.end() || found == outputs.end()) return;
  const Sample& sample = exact->second;
  const Array& array = found->second;
  const size_t rank = sample.shape.size();
  const bool same = array.rank() == rank && (rank == 2 || rank == 3) &&
                    std::equal(sample.shape.begin(), sample.shape.end() - 1, array.shape.begin());
  if (!same) return;  // the comparison of outputs reports the shape
  const auto width = static_cast<size_t>(array.last());
  for (size_t row = 0; row < batch.rows(); ++row) {
    if (!batch.compared[row]) continue;
    for (size_t position = 0; position < sample.places.positions; ++position) {
      const auto place = PlaceOf(sample, row, position);
      if (!place) continue;
      const size_t at = row * sample.places.positions + position;
      AddAnswer(batch.tasks[row], manifest, array.data.data() + at * width, width, sample, *place);
    }
    if (batch.greedy && rank == 3) AddTokens(batch, array, sample, row);
  }
}

void Answers::AddAnswer(const std::string& task, const Manifest& manifest, const double* found, size_t width,
                        const Sample& exact, size_t place) {
  const auto spec =
      std::find_if(manifest.tasks.begin(), manifest.tasks.end(), [&](const Task& each) { return each.name == task; });
  const bool known = spec != manifest.tasks.end();
  const bool sets = known && spec->problem_type == EPTX_MULTI_LABEL;
  const size_t own = known && spec->labels ? static_cast<size_t>(*spec->labels) : width;
  const std::vector<double> wanted = NumbersOf(exact, place);
  const size_t reference = std::min(own, wanted.size()), bundle = std::min(own, width);
  if (bundle == 0 || reference == 0 || (reference < 2 && !sets)) return;
  bool equal = true;
  if (sets) {
    for (size_t i = 0; i < std::min(reference, bundle); ++i) equal = equal && (found[i] > 0) == (wanted[i] > 0);
  } else {
    equal = LargestOf(found, bundle) == LargestOf(wanted.data(), reference);
  }
  Count& count = counts_[task];
  ++count.answers;
  count.equal += equal ? 1 : 0;
}

void Answers::AddTokens(const ProvedBatch& batch, const Array& found, const Sample& exact, size_t row) {
  const auto prompt = static_cast<size_t>(*batch.prompt), length = static_cast<size_t>(batch.length);
  const auto width = static_cast<size_t>(found.last());
  size_t position = prompt - 1;
  // an answer begins with as many tokens in every row; of a prompt, padding may be behind it
  if (batch.mask && batch.inputs.count(std::string(kAnswerIds)) == 0) {
    while (position > 0 && !batch.mask->kept[row * batch.mask->length + position]) --position;
  }
  Greedy& count = greedy_[batch.tasks[row]];
  const size_t tokens = width == 0 ? 0 : std::max<size_t>(length - prompt, 1);
  for (size_t token = 0; token < tokens; ++token) {
    if (token != 0) position = prompt + token - 1;
    const auto place = exact.places.Find(row, position);
    if (!place) continue;
    const std::vector<double> wanted = NumbersOf(exact, *place);
    if (wanted.empty()) continue;
    const size_t own = LargestOf(wanted.data(), wanted.size());
    const size_t other = LargestOf(found.data.data() + (row * length + position) * width, width);
    ++count.tokens;
    count.equal += own == other ? 1 : 0;
    if (own == other || count.first) continue;
    const double preferred = other < wanted.size() ? wanted[own] - wanted[other] : 0.0;
    count.first =
        Disagreement{batch.name, row, token, static_cast<int64_t>(own), static_cast<int64_t>(other), preferred};
  }
}

std::optional<double> Answers::Agreement(const std::string& task) const {
  const auto found = counts_.find(task);
  if (found == counts_.end()) return {};
  return static_cast<double>(found->second.equal) / static_cast<double>(found->second.answers);
}

std::optional<Greedy> Answers::GreedyOf(const std::string& task) const {
  const auto found = greedy_.find(task);
  if (found == greedy_.end() || found->second.tokens == 0) return {};
  return found->second;
}

}  // namespace eptx::core
