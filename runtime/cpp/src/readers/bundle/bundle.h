// Bundles: folders that hold an adapted model and all that it needs to run.
//
// A bundle may come from anywhere, so the reader trusts nothing in it. Names stay inside the folder. Every file is
// plain and listed with its size and SHA-256. The model uses only operators that ONNX Runtime or the model itself
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

// What a runtime needs to know about the model's operators.
struct Operators {
  std::set<std::string> own;      // names in eptx's domain, of all models
  bool functions_are_own = true;  // whether all functions of the models are in eptx's domain
  bool shares_cache = false;      // whether attention writes its cache in place, as GroupQueryAttention does
};

// A bundle on disk, checked. The content of its weights is checked when FinishVerifying returns.
class Bundle {
 public:
  // Opens a folder. Throws where it is not a bundle, is damaged or incomplete, holds something that a bundle must not
  // hold, or has a version that this eptx does not read.
  //
  // With `verify`, models and other small files are compared with their SHA-256 before they are read. Another thread
  // hashes the weights, in about the time that ONNX Runtime takes to load them.
  Bundle(const std::string& path, bool verify);

  const std::string& path() const { return path_; }  // absolute
  const Manifest& manifest() const { return manifest_; }
  const Operators& operators() const { return operators_; }
  std::string model() const { return path_ + "/" + kModelFile; }

  // The number of token types in the base's config.json, where it says so.
  std::optional<int64_t> token_types() const { return token_types_; }

  // Waits for the hashes. Throws where one does not match. Call it once, before the bundle is used.
  void FinishVerifying();

 private:
  std::string path_;
  Manifest manifest_;
  Operators operators_;
  std::optional<int64_t> token_types_;
  std::future<void> hashing_;
};

// Checks a model (part of Bundle): known domains, the operator version of the manifest, weights in listed files. `name`
// is the model's file.
void CheckModel(const std::string& name, const OnnxScan& scan, const Manifest& manifest);

// The same of a part of a model, which need not import the operators' version: protocol buffers join it to the model.
void CheckModelPart(const std::string& name, const OnnxScan& scan, const Manifest& manifest);

// Checks the text of a genai_config.json: GenAI must load only the bundle's model, and must write nothing.
void CheckGenaiConfig(std::string_view text);

// The number of token types that a config.json's text gives.
std::optional<int64_t> ReadTokenTypes(std::string_view config, const std::string& name);

}  // namespace eptx::core
