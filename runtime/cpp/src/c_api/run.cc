// eptx.h: requests, results and prepared calls.
#include "c_api/handles.h"
#include "readers/request/versioned.h"

using namespace eptx::core;

namespace {

class Request {
 public:
  explicit Request(const eptx_request* given)
      : request_(Known(Require(given, "request"), "request")),
        inputs_(request_.inputs, request_.input_count, "request.inputs") {
    CheckArray(request_.tasks, request_.task_count, sizeof *request_.tasks, "request.tasks");
    request_.inputs = inputs_.items().data();
  }

  const eptx_request& get() const { return request_; }

 private:
  eptx_request request_;
  KnownArray<const eptx_input> inputs_;
};

// Prepares a request with its outputs. The caller gets the sizes of the outputs also where this fails.
std::unique_ptr<Call> Prepare(const eptx_session* session, const eptx_request* given, eptx_output* outputs,
                              size_t output_count) {
  const Request request(given);
  KnownArray<eptx_output> known(outputs, output_count, "outputs");
  try {
    auto call =
        std::make_unique<Call>(Require(session, "session").session, request.get(), known.items().data(), output_count);
    known.GiveBack();
    return call;
  } catch (...) {
    known.GiveBack();
    throw;
  }
}

}  // namespace

eptx_status eptx_session_run(const eptx_session* session, const eptx_request* request, eptx_result** result,
                             eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_result*& place = Clear(result, "result");
    const Request known(request);
    place = new eptx_result{{Require(session, "session").session, known.get()}};
  });
}

const eptx_tensor* eptx_result_output(const eptx_result* result, size_t index) noexcept {
  if (result == nullptr || index >= result->answer.outputs().size()) return nullptr;
  return &result->answer.outputs()[index];
}

const eptx_task* eptx_result_task(const eptx_result* result, size_t row) noexcept {
  if (result == nullptr || row >= result->answer.rows().size()) return nullptr;
  const int task = result->answer.rows()[row];
  return task < 0 ? nullptr : &result->answer.session().description().tasks[static_cast<size_t>(task)];
}

void eptx_result_free(eptx_result* result) noexcept { Free(result); }

eptx_status eptx_session_run_into(const eptx_session* session, const eptx_request* request, eptx_output* outputs,
                                  size_t output_count, eptx_error** error) noexcept {
  return Guard(error, [&] { Prepare(session, request, outputs, output_count)->Run(); });
}

eptx_status eptx_call_create(const eptx_session* session, const eptx_request* request, eptx_output* outputs,
                             size_t output_count, eptx_call** call, eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_call*& place = Clear(call, "call");
    place = new eptx_call{Prepare(session, request, outputs, output_count)};
  });
}

eptx_status eptx_call_run(eptx_call* call, eptx_error** error) noexcept {
  return Guard(error, [&] { Require(call, "call").call->Run(); });
}

void eptx_call_free(eptx_call* call) noexcept { Free(call); }
