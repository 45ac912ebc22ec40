// Answers one request, into the library's memory or into the caller's.
#pragma once

#include <memory>
#include <vector>

#include "session/session.h"

namespace eptx::core {

// The outputs of a request, in memory of the library.
class Answer {
 public:
  Answer(std::shared_ptr<const Session> session, const eptx_request& request);
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  const std::vector<eptx_tensor>& outputs() const { return outputs_; }
  const std::vector<int>& rows() const { return rows_; }  // each row's task, -1 where unknown
  const Session& session() const { return *session_; }

 private:
  void Describe(size_t index);

  std::shared_ptr<const Session> session_;
  std::vector<Owned<OrtValue>> values_;
  std::vector<std::vector<int64_t>> shapes_;
  std::vector<eptx_tensor> outputs_;
  std::vector<int> rows_;
};

// A request with its outputs, prepared to be run into the caller's memory.
class Call {
 public:
  // Sets the sizes in `outputs`; throws when one is too small.
  Call(std::shared_ptr<const Session> session, const eptx_request& request, eptx_output* outputs, size_t count);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Checks the values of the inputs and runs. One thread at a time may call it.
  void Run();

 private:
  std::shared_ptr<const Session> session_;
  Feeds feeds_;
  std::vector<const char*> names_;
  std::vector<Owned<OrtValue>> inputs_, outputs_;
};

}  // namespace eptx::core
