// The handles of eptx.h, and the border that no exception crosses.
#pragma once

#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "answer.h"
#include "environment.h"
#include "eptx.h"
#include "error.h"
#include "generation.h"
#include "session.h"

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
  eptx::core::Call call;
};

struct eptx_generation {
  eptx::core::Generation generation;
};

namespace eptx::core {

// Stores an error for the caller, and returns its status.
eptx_status Fail(eptx_error** error, eptx_status status, const char* message) noexcept;

// Runs a function that may throw.
template <typename Function>
eptx_status Guard(eptx_error** error, Function function) noexcept {
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
  } catch (const std::exception& e) {
    return Fail(error, EPTX_INTERNAL, e.what());
  } catch (...) {
    return Fail(error, EPTX_INTERNAL, "unknown error");
  }
}

template <typename T>
T& Require(T* pointer, const char* name) {
  if (pointer == nullptr) throw UsageError(std::string(name) + " is NULL");
  return *pointer;
}

// The place of an output handle, set to NULL.
template <typename T>
T*& Clear(T** handle, const char* name) {
  T*& place = Require(handle, name);
  place = nullptr;
  return place;
}

}  // namespace eptx::core
