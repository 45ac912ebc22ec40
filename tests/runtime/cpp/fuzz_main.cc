// eptx_fuzz BUNDLE COUNT [SEED]: COUNT mutations of a bundle's manifest, model and config, of requests to it,
// and of a proof.
//
// Ends with 0 where no reader crashes, takes a second for one case, or leaks memory. Seed and number determine a case;
// a crash prints both. With EPTX_LIBFUZZER this is a target of libFuzzer: the first byte of an input picks the reader,
// and EPTX_FUZZ_BUNDLE names the bundle.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "fuzz.h"
#include "mutate.h"
#include "proof_seed.h"
#include "readers/proof/proof.h"

namespace eptx::fuzz {
namespace {

std::string Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace
}  // namespace eptx::fuzz

using namespace eptx::fuzz;

#ifdef EPTX_LIBFUZZER

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool ready = [] {
    const char* bundle = std::getenv("EPTX_FUZZ_BUNDLE");
    SetManifest(Load(std::string(bundle == nullptr ? "." : bundle) + "/eptx.json"));
    return true;
  }();
  if (ready && size != 0) {
    Read(static_cast<Target>(data[0] % kTargets), {reinterpret_cast<const char*>(data) + 1, size - 1});
  }
  return 0;
}

#else

namespace {

constexpr double kSlow = 1.0;  // seconds for one case
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kGrowth = size_t{1} << 40;  // the sanitizer keeps freed memory, and reports leaks at the end
#else
constexpr size_t kGrowth = size_t{64} << 20;  // growth in bytes after the first tenth of the cases
#endif

volatile unsigned long long current = 0, seed = 1;

void Say(int signal) {
  char text[96];
  const int size =
      std::snprintf(text, sizeof text, "fuzz: signal %d in case %llu of seed %llu\n", signal, current, seed);
  if (write(2, text, static_cast<size_t>(size)) < 0) _exit(4);
  _exit(3);
}

size_t Resident() {
  std::ifstream file("/proc/self/statm");
  size_t all = 0, resident = 0;
  file >> all >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

std::string RandomBytes(Random& random) {
  std::string bytes(random() % 400, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

struct Files {
  std::string manifest, model, config;
};

void RunCase(const Files& files, unsigned long long number) {
  Random random(seed * 0x9E3779B97F4A7C15u + number);
  const bool aware = random() % 2 == 0;
  switch (number % 13) {
    case 0:
    case 1:
    case 2:
      return Read(Target::kManifest, (aware ? MutateJson : MutateBytes)(files.manifest, random));
    case 3:
    case 4:
    case 5:
      return Read(Target::kModel, (aware ? MutateMessage : MutateBytes)(files.model, random));
    case 6:
      return Read(Target::kConfig, (aware ? MutateJson : MutateBytes)(files.config, random));
    case 7:
    case 8:
    case 9:
      return Read(Target::kProof, MutateProof(random));
    default:
      return Read(Target::kRequest, RandomBytes(random));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    std::fprintf(stderr, "usage: eptx_fuzz BUNDLE COUNT [SEED]\n");
    return 2;
  }
  const std::string bundle = argv[1];
  const unsigned long long count = std::strtoull(argv[2], nullptr, 10);
  if (argc == 4) seed = std::strtoull(argv[3], nullptr, 10);
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL, SIGALRM}) std::signal(signal, Say);
  const Files files{Load(bundle + "/eptx.json"), Load(bundle + "/model.onnx"), Load(bundle + "/config.json")};
  SetManifest(files.manifest);
  Read(Target::kModel, files.model);
  eptx::core::ParseProof(SeedProof(), "seed", false);  // throws where the seed is not sound
  size_t before = 0;
  double slowest = 0;
  for (unsigned long long i = 0; i < count; ++i) {
    current = i;
    if (i == count / 10) before = Resident();
    alarm(60);  // ends a case that hangs
    const auto start = std::chrono::steady_clock::now();
    RunCase(files, i);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    slowest = std::max(slowest, took.count());
  }
  const size_t after = Resident();
  const bool sound = slowest < kSlow && after < before + kGrowth;
  std::printf("%llu cases of seed %llu: slowest %.1f ms, memory grew by %.1f MiB\n", count, seed, 1e3 * slowest,
              after > before ? static_cast<double>(after - before) / (1 << 20) : 0.0);
  return sound ? 0 : 1;
}

#endif
