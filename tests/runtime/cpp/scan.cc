// eptx_scan FILE: prints what ScanOnnx finds in each of many models, a line of JSON for each.
// tests/runtime/cpp/test_scan.py compares it with what Python finds and with what a protocol-buffer library reads.
//
// FILE holds the models one after the other. The size of each comes first, as 4 bytes, little-endian.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "readers/error.h"
#include "readers/formats/onnx_scan.h"

namespace {

using Json = nlohmann::json;

Json Scan(std::string_view model) {
  try {
    const eptx::core::OnnxScan scan = eptx::core::ScanOnnx(model, "model");
    Json external = Json::array();
    for (const auto& data : scan.external) {
      external.push_back({data.location, data.offset, data.length ? Json(*data.length) : Json(-1)});
    }
    return {scan.opsets, scan.operators, scan.functions, external};
  } catch (const eptx::core::Error& error) {
    return error.what();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: eptx_scan FILE\n");
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string data{std::istreambuf_iterator<char>(file), {}};
  for (size_t at = 0; at + 4 <= data.size();) {
    size_t size = 0;
    for (size_t i = 4; i-- > 0;) size = size << 8 | static_cast<unsigned char>(data[at + i]);
    // memory of its own, so that a sanitizer sees its end
    const std::string model = data.substr(at + 4, size);
    std::puts(Scan(model).dump().c_str());
    at += 4 + size;
  }
  return 0;
}
