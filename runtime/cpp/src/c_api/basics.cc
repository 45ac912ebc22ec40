// eptx.h: errors, environments, options.
#include "c_api/handles.h"
#include "readers/dtype.h"
#include "readers/text.h"

using namespace eptx::core;

namespace {

constexpr char kOutOfMemory[] = "not enough memory";

// The error for which there was no memory. It is never changed and never freed.
eptx_error* OutOfMemory() noexcept {
  static const eptx_error error{EPTX_LIMIT, {}};
  return const_cast<eptx_error*>(&error);
}

}  // namespace

eptx_status eptx::core::Fail(eptx_error** error, eptx_status status, const char* message) noexcept {
  if (error == nullptr) return status;
  *error = OutOfMemory();
  if (message == nullptr) return status;
  try {
    constexpr size_t kLongest = 2000;
    *error = new eptx_error{status, IsPrintable(message) ? message : OneLine(message, kLongest)};
    return status;
  } catch (...) {
    return EPTX_LIMIT;
  }
}

const char* eptx_version(void) noexcept { return EPTX_VERSION; }

size_t eptx_dtype_size(eptx_dtype dtype) noexcept { return DtypeSize(dtype); }

const char* eptx_error_message(const eptx_error* error) noexcept {
  if (error == nullptr) return "";
  return error == OutOfMemory() ? kOutOfMemory : error->message.c_str();
}

eptx_status eptx_error_status(const eptx_error* error) noexcept { return error == nullptr ? EPTX_OK : error->status; }

void eptx_error_free(eptx_error* error) noexcept {
  if (error != OutOfMemory()) delete error;
}

eptx_status eptx_environment_create(int32_t shared_threads, size_t arena_limit, eptx_environment** environment,
                                    eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_environment*& place = Clear(environment, "environment");
    place = new eptx_environment{std::make_shared<Environment>(shared_threads, arena_limit)};
  });
}

void eptx_environment_free(eptx_environment* environment) noexcept { Free(environment); }

eptx_status eptx_options_create(eptx_options** options, eptx_error** error) noexcept {
  return Guard(error, [&] {
    eptx_options*& place = Clear(options, "options");
    place = new eptx_options{};
  });
}

void eptx_options_free(eptx_options* options) noexcept { Free(options); }

void eptx_options_set_threads(eptx_options* options, int32_t threads) noexcept {
  if (options != nullptr) options->options.threads = threads;
}

void eptx_options_set_verify(eptx_options* options, int32_t verify) noexcept {
  if (options != nullptr) options->options.verify = verify != 0;
}

void eptx_options_set_kernels(eptx_options* options, eptx_kernels kernels) noexcept {
  if (options != nullptr) options->options.kernels = kernels;
}

void eptx_options_set_arena(eptx_options* options, int32_t arena) noexcept {
  if (options != nullptr) options->options.arena = arena != 0;
}
