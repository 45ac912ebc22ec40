// What goes wrong, as one class with the exit code that the command line would give it.
#pragma once

#include <cerrno>
#include <exception>
#include <string>
#include <utility>

#include "eptx.h"

namespace eptx::core {

// An error raised on purpose. The message is one printable line that names what is wrong.
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

// The errors of the system (errno) that mean that the machine has no more of something, whatever was asked of it.
constexpr int kExhausted[] = {ENOMEM, EMFILE, ENFILE, EAGAIN};

inline bool IsExhausted(int code) {
  for (const int known : kExhausted) {
    if (code == known) return true;
  }
  return false;
}

}  // namespace eptx::core
