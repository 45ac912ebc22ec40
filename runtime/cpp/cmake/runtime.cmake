# The targets of libeptx. The rooms of src/ depend on each other in this order: readers, session, generate, c_api.
#   eptx_readers   bundles and requests without ONNX Runtime; hostile bytes reach them first, so they are fuzzed
#   eptx           the library: the readers and the other rooms, with only eptx_* visible
find_package(nlohmann_json 3.9 REQUIRED)
find_package(OpenSSL 1.1.1 REQUIRED COMPONENTS Crypto)
find_package(Threads REQUIRED)

add_library(eptx_readers OBJECT
  src/readers/text.cc
  src/readers/formats/fields.cc src/readers/formats/files.cc src/readers/formats/hash.cc src/readers/formats/json.cc
  src/readers/formats/onnx_scan.cc src/readers/formats/protobuf.cc
  src/readers/bundle/agreement.cc src/readers/bundle/bundle.cc src/readers/bundle/genai_config.cc
  src/readers/bundle/generation_agreement.cc src/readers/bundle/manifest.cc src/readers/bundle/model_check.cc
  src/readers/request/feeds.cc src/readers/request/prompts.cc src/readers/request/state.cc
  src/readers/request/tasks.cc src/readers/request/values.cc src/readers/request/versioned.cc)
target_include_directories(eptx_readers PUBLIC . src include)
target_compile_definitions(eptx_readers PUBLIC EPTX_BUILDING EPTX_VERSION="${PROJECT_VERSION}")
target_link_libraries(eptx_readers PUBLIC nlohmann_json::nlohmann_json OpenSSL::Crypto Threads::Threads)

add_library(eptx SHARED
  src/session/answer.cc src/session/description.cc src/session/environment.cc src/session/kernels.cc
  src/session/ort.cc src/session/session.cc src/session/signature.cc src/session/threads.cc
  src/generate/decoder.cc src/generate/decoding.cc src/generate/generation.cc src/generate/sampler.cc
  src/c_api/basics.cc src/c_api/generate.cc src/c_api/run.cc src/c_api/session.cc)
add_library(eptx::eptx ALIAS eptx)
if(EPTX_SANITIZE MATCHES undefined)
  # Guard catches the forced unwind of a thread by a null reference, which UBSan reports as an error
  set_source_files_properties(src/c_api/generate.cc PROPERTIES COMPILE_OPTIONS -fno-sanitize=null)
endif()
target_include_directories(eptx PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_LIST_DIR}/../include>
                                       $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(eptx INTERFACE cxx_std_17)
target_link_libraries(eptx PRIVATE $<BUILD_INTERFACE:eptx_readers> $<BUILD_INTERFACE:eptx_onnxruntime_any>)
if(EPTX_KERNELS AND TARGET eptx_kernels)
  target_link_libraries(eptx PRIVATE $<BUILD_INTERFACE:eptx_kernels>)
  target_compile_definitions(eptx PRIVATE EPTX_HAS_KERNELS)
endif()

set(exports ${CMAKE_CURRENT_LIST_DIR}/../src/c_api/exports.map)
target_link_options(eptx PRIVATE -Wl,--version-script=${exports} -Wl,--as-needed)
if(NOT EPTX_SANITIZE)
  target_link_options(eptx PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(eptx PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${exports}
  PUBLIC_HEADER "include/eptx.h;include/eptx.hpp"
  BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN;${EPTX_ONNXRUNTIME_RPATH}")
