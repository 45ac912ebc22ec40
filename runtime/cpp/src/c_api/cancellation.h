// Threads that the caller cancels (pthread_cancel) while they are in the library.
//
// Cancellation unwinds the stack with an exception that must be rethrown. ONNX Runtime catches every exception and does
// not rethrow this one. So cancellation waits until the library has returned.
#pragma once

#include <pthread.h>

namespace eptx::core {

// The thread cannot be cancelled while this object lives.
class Uncancelled {
 public:
  Uncancelled() { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  Uncancelled(const Uncancelled&) = delete;
  Uncancelled& operator=(const Uncancelled&) = delete;
  ~Uncancelled() { pthread_setcancelstate(before_, nullptr); }

 private:
  friend class Cancellable;
  int before_ = PTHREAD_CANCEL_ENABLE;
};

// The thread can be cancelled while this object lives, if it could be before `outside` was made.
class Cancellable {
 public:
  explicit Cancellable(const Uncancelled& outside) { pthread_setcancelstate(outside.before_, &before_); }
  Cancellable(const Cancellable&) = delete;
  Cancellable& operator=(const Cancellable&) = delete;
  ~Cancellable() { pthread_setcancelstate(before_, nullptr); }

 private:
  int before_ = PTHREAD_CANCEL_DISABLE;
};

}  // namespace eptx::core
