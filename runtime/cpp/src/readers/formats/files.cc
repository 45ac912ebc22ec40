#include "readers/formats/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>
#include <vector>

#include "readers/error.h"
#include "readers/text.h"

namespace eptx::core {
namespace {

std::string Reason(int code) { return std::generic_category().message(code); }

// The error for an errno: the bundle's fault, unless the machine ran out of something.
Error Refused(const std::string& what, int code) {
  const std::string text = what + ": " + Reason(code);
  return IsExhausted(code) ? LimitError(text) : BundleError(text);
}

Error Unreadable(const std::string& path, int code) {
  return Refused(OneLine(BaseName(path)) + ": cannot be read", code);
}

Error Unlistable(const std::string& folder, int code) {
  return Refused(OneLine(BaseName(folder)) + ": cannot be listed", code);
}

struct CloseFolder {
  void operator()(DIR* folder) const { closedir(folder); }
};

}  // namespace

Descriptor::~Descriptor() {
  if (value_ >= 0) close(value_);
}

Descriptor OpenRegular(const std::string& path) {
  Descriptor file(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  if (file.get() < 0) throw Unreadable(path, errno);
  struct stat status;
  if (fstat(file.get(), &status) != 0) throw Unreadable(path, errno);
  if (!S_ISREG(status.st_mode)) throw BundleError(OneLine(BaseName(path)) + ": not a regular file");
  return file;
}

size_t ReadSome(const Descriptor& file, void* buffer, size_t size, const std::string& path) {
  for (;;) {
    const ssize_t got = read(file.get(), buffer, size);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) throw Unreadable(path, errno);
  }
}

std::string ReadFile(const std::string& path, size_t limit) {
  const Descriptor file = OpenRegular(path);
  struct stat status;
  if (fstat(file.get(), &status) != 0) throw Unreadable(path, errno);
  std::string data;
  data.reserve(std::min(static_cast<size_t>(status.st_size), limit));
  char block[1 << 14];
  while (data.size() <= limit) {
    const size_t got = ReadSome(file, block, sizeof block, path);
    if (got == 0) return data;
    data.append(block, got);
  }
  throw BundleError(OneLine(BaseName(path)) + ": larger than " + std::to_string(limit) + " bytes");
}

std::map<std::string, uint64_t> ListFiles(const std::string& folder) {
  std::map<std::string, uint64_t> found;
  std::vector<std::string> pending = {""};
  while (!pending.empty()) {
    const std::string prefix = std::move(pending.back());
    pending.pop_back();
    const std::unique_ptr<DIR, CloseFolder> entries(opendir((folder + "/" + prefix).c_str()));
    if (!entries) throw Unlistable(folder, errno);
    for (;;) {
      errno = 0;
      const dirent* entry = readdir(entries.get());
      if (entry == nullptr) break;
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      struct stat status;
      if (fstatat(dirfd(entries.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        throw Unlistable(folder, errno);
      }
      const std::string path = prefix + entry->d_name;
      if (S_ISDIR(status.st_mode)) {
        pending.push_back(path + "/");
      } else if (S_ISREG(status.st_mode)) {
        found[path] = static_cast<uint64_t>(status.st_size);
      } else {
        throw BundleError(OneLine(BaseName(folder)) + ": " + Repr(path) + " is not a plain file");
      }
    }
    if (errno != 0) throw Unlistable(folder, errno);
  }
  return found;
}

bool IsContainedName(std::string_view name) {
  if (name.empty() || name.size() > 1024) return false;
  constexpr std::string_view kRefused = "\\:*?\"<>|\x7f";
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 32 || kRefused.find(c) != kRefused.npos) return false;
  }
  for (size_t start = 0; start <= name.size();) {
    const size_t end = std::min(name.find('/', start), name.size());
    const std::string_view part = name.substr(start, end - start);
    if (part.empty() || part == "." || part == "..") return false;
    start = end + 1;
  }
  return true;
}

std::string BaseName(const std::string& path) {
  const size_t last = path.find_last_not_of('/');
  if (last == path.npos) return path;
  const size_t slash = path.rfind('/', last);
  return path.substr(slash == path.npos ? 0 : slash + 1, last - (slash == path.npos ? 0 : slash + 1) + 1);
}

std::string AbsolutePath(const std::string& path) {
  if (!path.empty() && path[0] == '/') return path;
  const std::unique_ptr<char, decltype(&free)> here(getcwd(nullptr, 0), &free);
  if (!here) throw Refused("the working directory cannot be read", errno);
  return std::string(here.get()) + "/" + path;
}

bool Exists(const std::string& path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0;
}

bool IsFolder(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace eptx::core
