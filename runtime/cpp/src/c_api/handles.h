// The handles of eptx.h, and the boundary that no exception crosses.
#pragma once

#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>

#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "c_api/cancellation.h"
#include "eptx.h"
#include "generate/generation.h"
#include "readers/error.h"
#include "session/answer.h"
#include "session/environment.h"
#include "session/session.h"
#include "validate/validation.h"

struct eptx_error {
  eptx_status status;
  std::string message;
};

struct eptx_environment {
  std::shared_ptr<const eptx::core::Environment> environment;
};

struct eptx_options {
  eptx::core::Options options;
};

struct eptx_session {
  std::shared_ptr<const eptx::core::Session> session;
};

struct eptx_result {
  eptx::core::Answer answer;
};

struct eptx_call {
  std::unique_ptr<eptx::core::Call> call;
};

struct eptx_generation {
  eptx::core::Generation generation;
};

struct eptx_validation {
  eptx::core::Validation validation;
};

namespace eptx::core {

// Stores an error for the caller, and returns its status.
eptx_status Fail(eptx_error** error, eptx_status status, const char* message) noexcept;

// Runs a function and turns what it throws into an error. A forced unwind, which ends the thread, passes: only a
// caller's on_token starts one.
template <typename Function>
eptx_status Guard(eptx_error** error, Function function) {
  const Uncancelled here;
  if (error != nullptr) *error = nullptr;
  try {
    function();
    return EPTX_OK;
  } catch (const Error& e) {
    return Fail(error, e.status(), e.what());
  } catch (const std::bad_alloc&) {
    return Fail(error, EPTX_LIMIT, nullptr);
  } catch (const std::length_error&) {
    return Fail(error, EPTX_LIMIT, nullptr);
  } catch (const std::system_error& e) {
    return Fail(error, EPTX_LIMIT, e.what());
  } catch (const std::exception& e) {
    return Fail(error, EPTX_INTERNAL, e.what());
#ifdef __GLIBCXX__
  } catch (const abi::__forced_unwind&) {
    throw;
#endif
  } catch (...) {
    return Fail(error, EPTX_INTERNAL, "unknown error");
  }
}

// Frees a handle. Freeing may wait for threads, so the thread is not cancelled meanwhile.
template <typename T>
void Free(T* handle) noexcept {
  const Uncancelled here;
  delete handle;
}

template <typename T>
T& Require(T* pointer, const char* name) {
  if (pointer == nullptr) throw UsageError(std::string(name) + " is NULL");
  return *pointer;
}

// Where to store an output handle; set to NULL first.
template <typename T>
T*& Clear(T** handle, const char* name) {
  T*& place = Require(handle, name);
  place = nullptr;
  return place;
}

}  // namespace eptx::core
