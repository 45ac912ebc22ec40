// Bundles: folders that hold an adapted model and all that it needs to run.
//
// A bundle may come from anywhere, so reading trusts nothing in it: names stay inside the folder, every file is plain
// and listed with its size and SHA-256, and the model may only use operators that ONNX Runtime or the model itself
// defines.
#pragma once

#include <future>
#include <optional>
#include <set>
#include <string>

#include "readers/bundle/manifest.h"
#include "readers/formats/onnx_scan.h"

namespace eptx::core {

constexpr char kGenaiConfigFile[] = "genai_config.json";  // what ONNX Runtime GenAI reads

// What a runtime has to know of the model's operators.
struct Operators {
  std::set<std::string> own;       // the names of eptx's own
  bool functions_are_own = true;  // whether all functions that the model defines are bodies of such
  bool shares_cache = false;      // whether the attention writes its cache in place: GroupQueryAttention does
};

// A bundle on disk. All of it is checked but, until FinishVerifying returns, the content of its weights.
class Bundle {
 public:
  // Opens a folder; throws when it is not a bundle, is damaged or incomplete, holds something it must not, or is of a
  // version that this eptx does not read.
  //
  // With `verify`, models and other small files are compared with their SHA-256 before they are read; the weights'
  // hashes are computed on another thread, which takes as long as it takes ONNX Runtime to load them.
  Bundle(const std::string& path, bool verify);

  const std::string& path() const { return path_; }  // absolute
  const Manifest& manifest() const { return manifest_; }
  const Operators& operators() const { return operators_; }
  std::string model() const { return path_ + "/" + kModelFile; }

  // The number of token types in the base's config.json, where it says so.
  std::optional<int64_t> token_types() const { return token_types_; }

  // Waits for the hashes; throws when one does not match. To be called once, before the bundle is used.
  void FinishVerifying();

 private:
  std::string path_;
  Manifest manifest_;
  Operators operators_;
  std::optional<int64_t> token_types_;
  std::future<void> hashing_;
};

// Whether a model is one that a bundle may hold (part of Bundle): known domains, the operator version of the manifest,
// weights in listed files. `name` is the model's.
void CheckModel(const std::string& name, const OnnxScan& scan, const Manifest& manifest);

// Checks the text of a genai_config.json: it has GenAI load nothing but the bundle's model, and write nothing.
void CheckGenaiConfig(std::string_view text);

// The number of token types that a config.json's text gives.
std::optional<int64_t> ReadTokenTypes(std::string_view config, const std::string& name);

}  // namespace eptx::core
