// eptx.h: validation by a proof.
#include "c_api/handles.h"

using namespace eptx::core;

eptx_status eptx_validate(const eptx_environment* environment, const char* bundle, const char* proof,
                          const eptx_options* options, eptx_validation** validation, eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_validation*& place = Clear(validation, "validation");
    const auto& shared = Require(environment, "environment").environment;
    Require(bundle, "bundle");
    Require(proof, "proof");
    const Options wanted = options == nullptr ? Options{} : options->options;
    place = new eptx_validation{{shared, bundle, proof, wanted}};
  });
}

int32_t eptx_validation_passed(const eptx_validation* validation) noexcept {
  return validation != nullptr && validation->validation.passed() ? 1 : 0;
}

const char* eptx_validation_report(const eptx_validation* validation) noexcept {
  return validation == nullptr ? "" : validation->validation.report().c_str();
}

void eptx_validation_free(eptx_validation* validation) noexcept { Free(validation); }
