# The targets of libeptx.
#   eptx_readers   bundles and requests without ONNX Runtime; what hostile bytes reach first, so what is fuzzed
#   eptx           the library: readers, sessions and the C interface, with only eptx_* visible
find_package(nlohmann_json 3.9 REQUIRED)
find_package(OpenSSL 1.1.1 REQUIRED COMPONENTS Crypto)
find_package(Threads REQUIRED)

add_library(eptx_readers OBJECT src/agreement.cc src/bundle.cc src/feeds.cc src/fields.cc src/files.cc
                                src/genai_config.cc src/generation_agreement.cc src/hash.cc src/json.cc
                                src/manifest.cc src/model_check.cc src/onnx_scan.cc src/prompts.cc src/protobuf.cc
                                src/state.cc src/tasks.cc src/text.cc src/values.cc src/versioned.cc)
target_include_directories(eptx_readers PUBLIC src include)
target_compile_definitions(eptx_readers PUBLIC EPTX_BUILDING EPTX_VERSION="${PROJECT_VERSION}")
target_link_libraries(eptx_readers PUBLIC nlohmann_json::nlohmann_json OpenSSL::Crypto Threads::Threads)

add_library(eptx SHARED src/answer.cc src/c_basics.cc src/c_generate.cc src/c_run.cc src/c_session.cc
                        src/decoder.cc src/decoding.cc src/description.cc src/environment.cc src/generation.cc
                        src/kernels.cc src/ort.cc src/sampler.cc src/session.cc src/signature.cc
                        src/threads.cc)
add_library(eptx::eptx ALIAS eptx)
target_include_directories(eptx PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_LIST_DIR}/../include>
                                       $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(eptx INTERFACE cxx_std_17)
target_link_libraries(eptx PRIVATE $<BUILD_INTERFACE:eptx_readers> $<BUILD_INTERFACE:eptx_onnxruntime_any>)
if(EPTX_KERNELS AND TARGET eptx_kernels)
  target_link_libraries(eptx PRIVATE $<BUILD_INTERFACE:eptx_kernels>)
  target_compile_definitions(eptx PRIVATE EPTX_HAS_KERNELS)
endif()

set(exports ${CMAKE_CURRENT_LIST_DIR}/../src/exports.map)
target_link_options(eptx PRIVATE -Wl,--version-script=${exports} -Wl,--as-needed)
if(NOT EPTX_SANITIZE)
  target_link_options(eptx PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(eptx PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${exports}
  PUBLIC_HEADER "include/eptx.h;include/eptx.hpp"
  BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN;${EPTX_ONNXRUNTIME_RPATH}")
