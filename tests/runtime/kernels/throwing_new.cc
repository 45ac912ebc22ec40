// operator new that throws where memory runs out. A sanitizer's operator new ends the process instead. Sanitizers still
// watch the memory, as it comes from malloc.
#include <cstdlib>
#include <new>

#define SHOWN __attribute__((visibility("default")))  // so that ONNX Runtime's library uses them too

// Short allocation traces and a small quarantine: three times as many cases a second.
extern "C" SHOWN const char* __asan_default_options() {
  return "allocator_may_return_null=1:malloc_context_size=3:quarantine_size_mb=16";
}

extern "C" SHOWN const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

constexpr std::size_t kMost = std::size_t{1} << 40;  // a sanitizer refuses more, with a line on stderr

void* Take(std::size_t size) noexcept { return size >= kMost ? nullptr : std::malloc(size == 0 ? 1 : size); }

void* Take(std::size_t size, std::align_val_t aligned) noexcept {
  const auto to = static_cast<std::size_t>(aligned);
  void* data = nullptr;
  if (size >= kMost) return data;
  return posix_memalign(&data, to < sizeof(void*) ? sizeof(void*) : to, size == 0 ? 1 : size) == 0 ? data : nullptr;
}

void* Taken(void* data) {
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

}  // namespace

using Size = std::size_t;
using To = std::align_val_t;
using NoThrow = const std::nothrow_t&;

SHOWN void* operator new(Size size) { return Taken(Take(size)); }
SHOWN void* operator new[](Size size) { return Taken(Take(size)); }
SHOWN void* operator new(Size size, To to) { return Taken(Take(size, to)); }
SHOWN void* operator new[](Size size, To to) { return Taken(Take(size, to)); }
SHOWN void* operator new(Size size, NoThrow) noexcept { return Take(size); }
SHOWN void* operator new[](Size size, NoThrow) noexcept { return Take(size); }
SHOWN void* operator new(Size size, To to, NoThrow) noexcept { return Take(size, to); }
SHOWN void* operator new[](Size size, To to, NoThrow) noexcept { return Take(size, to); }

SHOWN void operator delete(void* data) noexcept { std::free(data); }
SHOWN void operator delete[](void* data) noexcept { std::free(data); }
SHOWN void operator delete(void* data, Size) noexcept { std::free(data); }
SHOWN void operator delete[](void* data, Size) noexcept { std::free(data); }
SHOWN void operator delete(void* data, To) noexcept { std::free(data); }
SHOWN void operator delete[](void* data, To) noexcept { std::free(data); }
SHOWN void operator delete(void* data, Size, To) noexcept { std::free(data); }
SHOWN void operator delete[](void* data, Size, To) noexcept { std::free(data); }
SHOWN void operator delete(void* data, NoThrow) noexcept { std::free(data); }
SHOWN void operator delete[](void* data, NoThrow) noexcept { std::free(data); }
SHOWN void operator delete(void* data, To, NoThrow) noexcept { std::free(data); }
SHOWN void operator delete[](void* data, To, NoThrow) noexcept { std::free(data); }
