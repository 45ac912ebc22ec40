// eptx.h: generation.
#include "c_api/cancellation.h"
#include "c_api/handles.h"
#include "readers/request/versioned.h"

using namespace eptx::core;

namespace {

eptx_prompts Checked(const eptx_prompts* given) {
  const eptx_prompts prompts = Known(Require(given, "prompts"), "prompts");
  CheckArray(prompts.ids, prompts.id_count, sizeof *prompts.ids, "prompts.ids");
  CheckArray(prompts.lengths, prompts.row_count, sizeof *prompts.lengths, "prompts.lengths");
  CheckArray(prompts.tasks, prompts.task_count, sizeof *prompts.tasks, "prompts.tasks");
  return prompts;
}

// Calls the caller's on_token, in which the thread may be cancelled if the caller allows it.
struct Listener {
  static int32_t Call(void* context, size_t row, int64_t token) {
    const auto& listener = *static_cast<const Listener*>(context);
    const Cancellable here(listener.outside);
    return listener.on_token(listener.context, row, token);
  }

  eptx_on_token on_token;
  void* context;
  const Uncancelled& outside;
};

}  // namespace

eptx_status eptx_session_generate(const eptx_session* session, const eptx_prompts* prompts,
                                  const eptx_generate_options* options, eptx_generation** generation,
                                  eptx_error** error) {
  const Uncancelled outside;
  return Guard(error, [&] {
    eptx_generation*& place = Clear(generation, "generation");
    const auto& opened = Require(session, "session").session;
    const eptx_prompts checked = Checked(prompts);
    eptx_generate_options wanted = Known(Require(options, "options"), "options");
    CheckArray(wanted.stop, wanted.stop_count, sizeof *wanted.stop, "options.stop");
    Listener listener{wanted.on_token, wanted.context, outside};
    if (wanted.on_token != nullptr) {
      wanted.on_token = Listener::Call;
      wanted.context = &listener;
    }
    place = new eptx_generation{{opened, checked, wanted}};
  });
}

const eptx_generated* eptx_generation_row(const eptx_generation* generation, size_t row) noexcept {
  if (generation == nullptr || row >= generation->generation.rows().size()) return nullptr;
  return &generation->generation.rows()[row];
}

void eptx_generation_free(eptx_generation* generation) noexcept { Free(generation); }
