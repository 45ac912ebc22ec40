// eptx-validate BUNDLE PROOF: shows that a bundle computes on this machine what the trained model computes.
//
// It is `eptx validate BUNDLE --against-proof PROOF` without Python: it prints the same and ends with the same codes.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "eptx.hpp"
#include "table.h"

namespace {

constexpr char kUsage[] = "usage: eptx-validate BUNDLE PROOF [--json] [--kernels auto|off] [--threads N]\n";
constexpr char kHelp[] =
    "\n"
    "Compares what a bundle computes on this machine with what eptx validate BUNDLE --record PROOF has written.\n"
    "\n"
    "  --json              print the report as JSON\n"
    "  --kernels auto|off  auto runs the bundle's own operators both by its functions and by the native kernels; off "
    "by\n"
    "                      its functions only\n"
    "  --threads N         threads of one operator; 0: as many as ONNX Runtime chooses\n"
    "  --version           print the version\n"
    "\n"
    "Exits with 0 where the bundle passes, 2 for a wrong call, 3 for a bundle or proof that cannot be used, 4 where "
    "the\n"
    "bundle fails, 5 for something that is not supported, 6 where the machine ran out of something.\n";

struct Wanted {
  std::vector<std::string> paths;
  bool json = false;
  eptx::Options options;
};

[[noreturn]] void Refuse(const std::string& problem) { throw eptx::Error(EPTX_USAGE, problem); }

int32_t ThreadsOf(const std::string& text) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != text.npos) {
    Refuse("--threads must be a number, not " + text);
  }
  return std::stoi(text);
}

Wanted Read(int count, char** arguments) {
  Wanted wanted;
  bool only_paths = false;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == count) Refuse(argument + " needs a value");
      return arguments[++i];
    };
    if (only_paths || argument.size() < 2 || argument[0] != '-') {
      wanted.paths.push_back(argument);
    } else if (argument == "--") {
      only_paths = true;
    } else if (argument == "--json") {
      wanted.json = true;
    } else if (argument == "--threads") {
      wanted.options.threads = ThreadsOf(value());
    } else if (argument == "--kernels") {
      const std::string kernels = value();
      if (kernels != "auto" && kernels != "off") Refuse("--kernels must be auto or off, not " + kernels);
      wanted.options.kernels = kernels == "auto" ? EPTX_KERNELS_AUTO : EPTX_KERNELS_OFF;
    } else {
      Refuse("no such option: " + argument);
    }
  }
  if (wanted.paths.size() != 2) Refuse("BUNDLE and PROOF are needed");
  return wanted;
}

int Run(const Wanted& wanted) {
  const eptx::Environment environment;
  const eptx::Validation validation(environment, wanted.paths[0], wanted.paths[1], wanted.options);
  const std::string text = validation.Report();
  const auto report = eptx::program::Report::parse(text);
  for (const auto& warning : report["warnings"]) {
    std::fprintf(stderr, "warning: %s\n", warning.get<std::string>().c_str());
  }
  std::fputs((wanted.json ? text + "\n" : eptx::program::ReportText(report)).c_str(), stdout);
  if (validation.Passed()) return EPTX_OK;
  throw eptx::Error(EPTX_VALIDATION, report["reason"].get<std::string>());
}

}  // namespace

int main(int count, char** arguments) {
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--version") == 0) return std::printf("eptx-validate %s\n", eptx_version()), 0;
    if (std::strcmp(arguments[i], "--help") == 0) return std::fputs(kUsage, stdout), std::fputs(kHelp, stdout), 0;
  }
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // see keep_private in eptx/providers.py
  try {
    return Run(Read(count, arguments));
  } catch (const eptx::Error& error) {
    std::fflush(stdout);
    if (error.status() == EPTX_USAGE) std::fputs(kUsage, stderr);
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.status();
  } catch (const std::bad_alloc&) {
    std::fputs("error: not enough memory\n", stderr);
    return EPTX_LIMIT;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return EPTX_INTERNAL;
  }
}
