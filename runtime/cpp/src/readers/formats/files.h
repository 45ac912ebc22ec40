// Reads files that may be hostile, and checks that names stay inside their folder.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace eptx::core {

// An open file; closed with the object.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(other.value_) { other.value_ = -1; }
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor();

  int get() const { return value_; }

 private:
  int value_;
};

// Opens a regular file to read, and nothing else: links are not followed, and a FIFO does not block.
Descriptor OpenRegular(const std::string& path);

// Reads up to `size` bytes; 0 at the end. `path` names the file in an error.
size_t ReadSome(const Descriptor& file, void* buffer, size_t size, const std::string& path);

// The content of a regular file of at most `limit` bytes. The file is not mapped: reading a mapped file that somebody
// makes shorter ends the process.
std::string ReadFile(const std::string& path, size_t limit);

// The files below a folder: relative name -> size in bytes. Refuses links, FIFOs, sockets and devices.
std::map<std::string, uint64_t> ListFiles(const std::string& folder);

// Whether a relative POSIX name, as a file format gives it, stays inside its folder on every system.
bool IsContainedName(std::string_view name);

// The last part of a path.
std::string BaseName(const std::string& path);

// The path from the root, with links as they are.
std::string AbsolutePath(const std::string& path);

bool Exists(const std::string& path);    // also for a link to nothing
bool IsFolder(const std::string& path);  // also for a link to one

}  // namespace eptx::core
