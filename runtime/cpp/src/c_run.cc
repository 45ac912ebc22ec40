// eptx.h: requests, results and prepared calls.
#include "handles.h"

using namespace eptx::core;

namespace {

const eptx_request& Checked(const eptx_request* request) {
  const eptx_request& checked = Require(request, "request");
  if (checked.input_count != 0) Require(checked.inputs, "request.inputs");
  if (checked.task_count != 0) Require(checked.tasks, "request.tasks");
  return checked;
}

}  // namespace

eptx_status eptx_session_run(const eptx_session* session, const eptx_request* request, eptx_result** result,
                             eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_result*& place = Clear(result, "result");
    place = new eptx_result{{Require(session, "session").session, Checked(request)}};
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

void eptx_result_free(eptx_result* result) noexcept { delete result; }

eptx_status eptx_session_run_into(const eptx_session* session, const eptx_request* request, eptx_output* outputs,
                                  size_t output_count, eptx_error** error) noexcept {
  return Guard(error, [&] {
    if (output_count != 0) Require(outputs, "outputs");
    Call(Require(session, "session").session, Checked(request), outputs, output_count).Run();
  });
}

eptx_status eptx_call_create(const eptx_session* session, const eptx_request* request, eptx_output* outputs,
                             size_t output_count, eptx_call** call, eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_call*& place = Clear(call, "call");
    if (output_count != 0) Require(outputs, "outputs");
    place = new eptx_call{{Require(session, "session").session, Checked(request), outputs, output_count}};
  });
}

eptx_status eptx_call_run(eptx_call* call, eptx_error** error) noexcept {
  return Guard(error, [&] { Require(call, "call").call.Run(); });
}

void eptx_call_free(eptx_call* call) noexcept { delete call; }
