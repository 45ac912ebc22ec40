// eptx.h: generation.
#include "handles.h"

using namespace eptx::core;

namespace {

const eptx_prompts& Checked(const eptx_prompts* prompts) {
  const eptx_prompts& checked = Require(prompts, "prompts");
  if (checked.task_count != 0) Require(checked.tasks, "prompts.tasks");
  return checked;
}

}  // namespace

eptx_status eptx_session_generate(const eptx_session* session, const eptx_prompts* prompts,
                                  const eptx_generate_options* options, eptx_generation** generation,
                                  eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_generation*& place = Clear(generation, "generation");
    const auto& opened = Require(session, "session").session;
    place = new eptx_generation{{opened, Checked(prompts), Require(options, "options")}};
  });
}

const eptx_generated* eptx_generation_row(const eptx_generation* generation, size_t row) noexcept {
  if (generation == nullptr || row >= generation->generation.rows().size()) return nullptr;
  return &generation->generation.rows()[row];
}

void eptx_generation_free(eptx_generation* generation) noexcept { delete generation; }
