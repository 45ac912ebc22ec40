// A module's router: p = softmax(G tau + g), the K largest of p, and softmax of those again.
//
// A route depends only on the task, so the router computes the routes of all tasks when it is made. In a bundle the
// weights are constants, so this happens once for a session.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/ort.h"
#include "ops/softmax.h"

namespace eptx::ops {

// One module's router, and the routes of its tasks.
struct Router {
  Weights embedding;  // [tasks, in]
  size_t tasks, in, top_k;
  std::vector<int64_t> experts;  // [tasks, top_k]
  std::vector<float> weights;    // [tasks, top_k]
  std::vector<float> lengths;    // of the embeddings

  Router(const Tensor* own, size_t k) : embedding(own[0].weights("task_embedding", 2)), top_k(k) {
    tasks = own[0].dim(0);
    in = own[0].dim(1);
    const Weights gate = own[1].weights("gate_weight", 2), bias = own[2].weights("gate_bias", 1);
    const size_t count = own[1].dim(0);
    if (own[1].dim(1) != in || own[2].dim(0) != count) Refuse("the gate does not fit the task embeddings");
    if (tasks == 0 || top_k == 0 || top_k > count) Refuse("the %zu best of %zu experts for %zu tasks", k, count, tasks);
    std::vector<float> tau(in), p(count);
    for (size_t task = 0; task < tasks; ++task) {
      for (size_t i = 0; i < in; ++i) tau[i] = Number(embedding, task * in + i);
      for (size_t e = 0; e < count; ++e) p[e] = BestSimd().dot(in, tau.data(), gate.row(e)) + Number(bias, e);
      Softmax(p.data(), count);
      Choose(p);
      lengths.push_back(std::sqrt(BestSimd().dot(in, tau.data(), {tau.data(), false, in})));
    }
  }

  // The cosine of x and each task's embedding.
  void Compare(const float* x, float* similarity) const {
    constexpr float kTiny = 1e-12f;
    const float length = std::max(std::sqrt(BestSimd().dot(in, x, {x, false, in})), kTiny);
    for (size_t task = 0; task < tasks; ++task) {
      const float product = BestSimd().dot(in, x, embedding.row(task));
      similarity[task] = product / std::max(lengths[task], kTiny) / length;
    }
  }

  // The task of a row: the given id, or for a negative id the most similar task.
  size_t Task(int64_t id, const float* similarity) const {
    if (id >= 0) return static_cast<size_t>(id);
    return static_cast<size_t>(std::max_element(similarity, similarity + tasks) - similarity);
  }

 private:
  void Choose(const std::vector<float>& p) {
    std::vector<int64_t> order(p.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
    });
    std::vector<float> mixing;
    for (size_t k = 0; k < top_k; ++k) mixing.push_back(p[static_cast<size_t>(order[k])]);
    Softmax(mixing.data(), top_k);
    experts.insert(experts.end(), order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top_k));
    weights.insert(weights.end(), mixing.begin(), mixing.end());
  }
};

}  // namespace eptx::ops
