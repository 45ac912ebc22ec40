// Threads of the caller that are cancelled (pthread_cancel) while they are in the library.
//
// A cancelled thread unwinds like by an exception that cannot be caught for good, through ONNX Runtime, which catches
// all. So cancellation waits until the library has returned.
#pragma once

#include <pthread.h>

namespace eptx::core {

// As long as one lives, its thread is not cancelled.
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

// As long as one lives, its thread may be cancelled if it could be before `outside`.
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
