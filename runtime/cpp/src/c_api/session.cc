// eptx.h: sessions, and what they say about their bundle.
#include "c_api/handles.h"

using namespace eptx::core;

namespace {

// The element of an index, or null.
template <typename T>
const T* At(const std::vector<T>& items, size_t index) {
  return index < items.size() ? &items[index] : nullptr;
}

}  // namespace

eptx_status eptx_session_open(const eptx_environment* environment, const char* bundle, const eptx_options* options,
                              eptx_session** session, eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_session*& place = Clear(session, "session");
    const auto& shared = Require(environment, "environment").environment;
    Require(bundle, "bundle");
    const Options wanted = options == nullptr ? Options{} : options->options;
    place = new eptx_session{std::make_shared<Session>(shared, bundle, wanted)};
  });
}

void eptx_session_close(eptx_session* session) noexcept { Free(session); }

const eptx_task* eptx_session_task(const eptx_session* session, size_t index) noexcept {
  return session == nullptr ? nullptr : At(session->session->description().tasks, index);
}

const eptx_tensor_info* eptx_session_input(const eptx_session* session, size_t index) noexcept {
  return session == nullptr ? nullptr : At(session->session->description().inputs, index);
}

const eptx_tensor_info* eptx_session_output(const eptx_session* session, size_t index) noexcept {
  return session == nullptr ? nullptr : At(session->session->description().outputs, index);
}

const char* eptx_session_info(const eptx_session* session) noexcept {
  return session == nullptr ? "" : session->session->info().c_str();
}
