// Errors: one class, with a status that is also the exit code of the command line.
#pragma once

#include <cerrno>
#include <exception>
#include <string>
#include <utility>

#include "eptx.h"

namespace eptx::core {

// An error that libeptx raises on purpose. Its message is one printable line that names what is wrong.
class Error : public std::exception {
 public:
  Error(eptx_status status, std::string message) : status_(status), message_(std::move(message)) {}

  eptx_status status() const noexcept { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  eptx_status status_;
  std::string message_;
};

inline Error UsageError(std::string message) { return {EPTX_USAGE, std::move(message)}; }
inline Error BundleError(std::string message) { return {EPTX_BAD_INPUT, std::move(message)}; }
inline Error RequestError(std::string message) { return {EPTX_BAD_INPUT, std::move(message)}; }
inline Error NotSupportedError(std::string message) { return {EPTX_NOT_SUPPORTED, std::move(message)}; }
inline Error LimitError(std::string message) { return {EPTX_LIMIT, std::move(message)}; }

// Errors of the system (errno) that say that the machine ran out of something.
constexpr int kExhausted[] = {ENOMEM, EMFILE, ENFILE, EAGAIN};

inline bool IsExhausted(int code) {
  for (const int known : kExhausted) {
    if (code == known) return true;
  }
  return false;
}

}  // namespace eptx::core
