// A model that is loaded, and called with tensors by name.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "eptx.h"
#include "session/ort.h"

namespace eptx::core {

using Values = std::map<std::string, std::shared_ptr<OrtValue>>;

// A tensor with a copy of these elements.
std::shared_ptr<OrtValue> MakeTensor(eptx_dtype dtype, const std::vector<int64_t>& shape, const void* data,
                                     size_t bytes);
std::shared_ptr<OrtValue> MakeTensor(const std::vector<int64_t>& shape, const std::vector<int64_t>& numbers);

class Graph {
 public:
  explicit Graph(Owned<OrtSession> session);

  // All outputs. Throws EPTX_BAD_INPUT where the model does not run.
  Values Run(const Values& feeds) const;

  const OrtSession& session() const { return *session_; }

 private:
  Owned<OrtSession> session_;
  std::vector<std::string> outputs_;
};

}  // namespace eptx::core
