# The targets of libeptx. The rooms of src/ depend on each other in this order: readers, session, generate, validate,
# c_api.
#   eptx_readers   bundles, requests and proofs without ONNX Runtime; hostile bytes reach them first, so they are fuzzed
#   eptx_core      the other rooms
#   eptx           the library: the readers and the other rooms, with only eptx_* visible
#   eptx_validate  the program eptx-validate, which has the library in it: one file to put beside ONNX Runtime
find_package(nlohmann_json 3.9 REQUIRED)
find_package(OpenSSL 1.1.1 REQUIRED COMPONENTS Crypto)
find_package(Threads REQUIRED)

add_library(eptx_readers OBJECT
  src/readers/text.cc
  src/readers/formats/fields.cc src/readers/formats/files.cc src/readers/formats/hash.cc src/readers/formats/json.cc
  src/readers/formats/onnx_scan.cc src/readers/formats/protobuf.cc
  src/readers/bundle/agreement.cc src/readers/bundle/bundle.cc src/readers/bundle/genai_config.cc
  src/readers/bundle/generation_agreement.cc src/readers/bundle/manifest.cc src/readers/bundle/model_check.cc
  src/readers/proof/places.cc src/readers/proof/proof.cc src/readers/proof/safetensors.cc src/readers/proof/spread.cc
  src/readers/request/feeds.cc src/readers/request/prompts.cc src/readers/request/state.cc
  src/readers/request/tasks.cc src/readers/request/values.cc src/readers/request/versioned.cc)
target_include_directories(eptx_readers PUBLIC . src include)
target_compile_definitions(eptx_readers PUBLIC EPTX_BUILDING EPTX_VERSION="${PROJECT_VERSION}")
target_link_libraries(eptx_readers PUBLIC nlohmann_json::nlohmann_json OpenSSL::Crypto Threads::Threads)

add_library(eptx_core OBJECT
  src/session/answer.cc src/session/description.cc src/session/environment.cc src/session/kernels.cc src/session/load.cc
  src/session/ort.cc src/session/session.cc src/session/signature.cc src/session/threads.cc
  src/generate/decoder.cc src/generate/decoding.cc src/generate/generation.cc src/generate/sampler.cc
  src/validate/answers.cc src/validate/array.cc src/validate/binding.cc src/validate/bundle_model.cc
  src/validate/compare.cc src/validate/decode_loop.cc src/validate/distance.cc src/validate/fit.cc
  src/validate/graph.cc src/validate/quantizing.cc src/validate/report.cc src/validate/routes.cc
  src/validate/validation.cc src/validate/verdict.cc
  src/c_api/basics.cc src/c_api/generate.cc src/c_api/run.cc src/c_api/session.cc src/c_api/validate.cc)
target_link_libraries(eptx_core PUBLIC eptx_readers eptx_onnxruntime_any)

add_library(eptx SHARED)
add_library(eptx::eptx ALIAS eptx)
if(EPTX_SANITIZE MATCHES undefined)
  # Guard catches the forced unwind of a thread by a null reference, which UBSan reports as an error
  set_source_files_properties(src/c_api/generate.cc PROPERTIES COMPILE_OPTIONS -fno-sanitize=null)
endif()
target_include_directories(eptx PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_LIST_DIR}/../include>
                                       $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(eptx INTERFACE cxx_std_17)
set(parts $<BUILD_INTERFACE:eptx_core> $<BUILD_INTERFACE:eptx_readers> $<BUILD_INTERFACE:eptx_onnxruntime_any>)
if(EPTX_KERNELS AND TARGET eptx_kernels)
  list(APPEND parts $<BUILD_INTERFACE:eptx_kernels>)
  target_compile_definitions(eptx_core PRIVATE EPTX_HAS_KERNELS)
  target_include_directories(eptx_core PRIVATE $<TARGET_PROPERTY:eptx_kernels,INTERFACE_INCLUDE_DIRECTORIES>)
endif()
target_link_libraries(eptx PRIVATE ${parts})

set(exports ${CMAKE_CURRENT_LIST_DIR}/../src/c_api/exports.map)
target_link_options(eptx PRIVATE -Wl,--version-script=${exports} -Wl,--as-needed)
if(NOT EPTX_SANITIZE)
  target_link_options(eptx PRIVATE -Wl,--no-undefined)
endif()
set_target_properties(eptx PROPERTIES
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR} LINK_DEPENDS ${exports}
  PUBLIC_HEADER "include/eptx.h;include/eptx.hpp"
  BUILD_WITH_INSTALL_RPATH ON INSTALL_RPATH "$ORIGIN;$ORIGIN/eptx")

# Of OpenSSL it takes the one algorithm, where there is a static library: libcrypto.so is larger than all the rest.
add_executable(eptx_validate programs/validate/main.cc programs/validate/table.cc)
get_filename_component(crypto "${OPENSSL_CRYPTO_LIBRARY}" DIRECTORY)
find_library(EPTX_STATIC_CRYPTO NAMES libcrypto.a HINTS ${crypto} DOC "OpenSSL's static library")
mark_as_advanced(EPTX_STATIC_CRYPTO)
if(EPTX_STATIC_CRYPTO)
  target_link_libraries(eptx_validate PRIVATE ${EPTX_STATIC_CRYPTO})
endif()
target_link_libraries(eptx_validate PRIVATE ${parts})
target_link_options(eptx_validate PRIVATE -Wl,--gc-sections -Wl,--as-needed)
if(NOT EPTX_SANITIZE)
  target_link_options(eptx_validate PRIVATE -static-libstdc++ -static-libgcc)
endif()
set(libraries "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
set_target_properties(eptx_validate PROPERTIES
  OUTPUT_NAME eptx-validate BUILD_WITH_INSTALL_RPATH ON
  INSTALL_RPATH "$ORIGIN;$ORIGIN/eptx;${libraries};${libraries}/eptx")
