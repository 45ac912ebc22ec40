/*
 * libeptx: runs eptx bundles (multi-task adapters as ONNX models) inside a C or C++ program.
 *
 * C++ programs include eptx.hpp, which is this interface as move-only objects and exceptions.
 *
 * Conventions:
 *   - A function that can fail returns an eptx_status and takes an `eptx_error** error` last. On failure it stores an
 *     error there, which the caller frees, unless `error` is NULL; on success it stores NULL. Output handles are set to
 *     NULL on failure.
 *   - Nothing is thrown across this interface, nothing is printed, and nothing ends the process.
 *   - Strings are UTF-8 and end with a zero byte.
 *   - Handles are freed by the function named after them, which takes NULL as well. They keep alive what they need: an
 *     environment may be freed before its sessions, a session before its results and calls.
 *   - Handles that are passed as pointers to const may be used from many threads at once; the others by one at a time.
 *     Freeing a handle while another thread uses it is an error of the program.
 *   - What the machine runs out of (memory, open files, threads) ends with EPTX_LIMIT; the call may be tried again. (Where
 *     memory ends while ONNX Runtime starts threads, it may hang: give a process that runs at its limit 1 thread.)
 *   - No call is a cancellation point: a thread that is cancelled during a call ends after it, or in `on_token`.
 *
 * Structures grow at their end in later versions, and begin with `size`, so that a program and a libeptx of different
 * versions understand each other:
 *   - A program begins each with EPTX_INIT, which sets `size` and zeroes the rest, then sets what it wants. Zero is
 *     what was before a field was there. The library takes the fields past a smaller `size` as zero. Of a larger one,
 *     it refuses what it does not know unless that is zero (EPTX_NOT_SUPPORTED). In an array all have one `size`.
 *   - The library sets `size` of those that it gives. A field is there if it lies inside of `size`.
 *
 * An array is a pointer and a count; the pointer may be NULL where the count is 0.
 *
 * libeptx needs ONNX Runtime of the version of the headers that it was built with, or newer: 1.21 with those of
 * Debian 13. It is loaded by the name (soname) of the library that libeptx was built with.
 */
#ifndef EPTX_H_
#define EPTX_H_

#include <stddef.h>
#include <stdint.h>

#if defined(EPTX_BUILDING) && defined(__GNUC__)
#define EPTX_API __attribute__((visibility("default")))
#else
#define EPTX_API
#endif

#ifdef __cplusplus
#define EPTX_NOEXCEPT noexcept
#define EPTX_ENUM(name) enum name : int32_t /* any number may come in from C */
extern "C" {
#else
#define EPTX_NOEXCEPT
#define EPTX_ENUM(name) enum name
#endif

/* Begins a structure: eptx_request request = EPTX_INIT(eptx_request); */
#ifdef __cplusplus
#define EPTX_INIT(type) ([] { type made{}; made.size = sizeof(type); return made; }())
#else
#define EPTX_INIT(type) {.size = sizeof(type)}
#endif

/* How a call ended; the numbers are the exit codes of the `eptx` command. */
typedef EPTX_ENUM(eptx_status){
    EPTX_OK = 0,
    EPTX_INTERNAL = 1,      /* an error of eptx itself */
    EPTX_USAGE = 2,         /* the call itself is wrong: a NULL pointer, an option out of range */
    EPTX_BAD_INPUT = 3,     /* the bundle or the request cannot be used */
    EPTX_VALIDATION = 4,    /* the programs `eptx validate` and `eptx-validate` end so where a bundle fails */
    EPTX_NOT_SUPPORTED = 5, /* understood, but not something that this libeptx or machine can do */
    EPTX_LIMIT = 6          /* not enough memory, files or threads, or a limit on size was hit */
} eptx_status;

/* The type of a tensor's elements, in the byte order of this machine. */
typedef EPTX_ENUM(eptx_dtype){
    EPTX_FLOAT16 = 1, EPTX_FLOAT32 = 2, EPTX_FLOAT64 = 3,
    EPTX_INT32 = 4,   EPTX_INT64 = 5,   EPTX_BOOL = 6 /* one byte, 0 or 1 */
} eptx_dtype;

typedef struct eptx_error eptx_error;
typedef struct eptx_environment eptx_environment;
typedef struct eptx_options eptx_options;
typedef struct eptx_session eptx_session;
typedef struct eptx_result eptx_result;
typedef struct eptx_call eptx_call;
typedef struct eptx_generation eptx_generation;
typedef struct eptx_validation eptx_validation;

/* The version of libeptx, such as "0.1.0". */
EPTX_API const char* eptx_version(void) EPTX_NOEXCEPT;

/* Bytes of one element; 0 for a number that is no eptx_dtype. */
EPTX_API size_t eptx_dtype_size(eptx_dtype dtype) EPTX_NOEXCEPT;

/* ---- errors ---- */

/* One printable line that says what is wrong; valid until the error is freed. "" for NULL. */
EPTX_API const char* eptx_error_message(const eptx_error* error) EPTX_NOEXCEPT;
EPTX_API eptx_status eptx_error_status(const eptx_error* error) EPTX_NOEXCEPT;
EPTX_API void eptx_error_free(eptx_error* error) EPTX_NOEXCEPT;

/* ---- environment ---- */

/*
 * What sessions share. A program needs one.
 *
 * shared_threads: 0: every session has threads of its own. N > 0: all sessions of the environment share one pool of N
 *     threads. -1: they share a pool as large as ONNX Runtime chooses.
 * arena_limit: 0: every session has a memory arena of its own, without a limit. Else the sessions share one arena, and
 *     it is the most bytes that they may take from it together. It bounds what ONNX Runtime allocates while it runs
 *     (intermediate results, and outputs that the library allocates) and the copies of weights that it packs for its
 *     kernels; it must have room for the weights of all sessions. It does not bound weights that stay in their mapped
 *     file, the graph itself, or the caller's buffers. Sessions with their arena switched off are not counted. What
 * does not fit ends with EPTX_LIMIT.
 *
 * ONNX Runtime has one environment for the whole process: while one lives without a pool, another with one fails when a
 * session is opened in it (EPTX_USAGE), and of several limits the last one holds for sessions opened after it.
 */
EPTX_API eptx_status eptx_environment_create(int32_t shared_threads, size_t arena_limit, eptx_environment** environment,
                                             eptx_error** error) EPTX_NOEXCEPT;
EPTX_API void eptx_environment_free(eptx_environment* environment) EPTX_NOEXCEPT;

/* ---- options of a session ---- */

/* Whether a bundle's own operators run as native kernels. The variable EPTX_NATIVE=0 of the process switches them off.
 */
typedef EPTX_ENUM(eptx_kernels){
    EPTX_KERNELS_AUTO = 0, /* where this libeptx has them and they fit the bundle; else as the model's own functions */
    EPTX_KERNELS_ON = 1,   /* EPTX_NOT_SUPPORTED where they cannot run */
    EPTX_KERNELS_OFF = 2} eptx_kernels;

/* The defaults: threads 0, verify 1, kernels AUTO, arena 1. Values are checked when a session is opened with them. */
EPTX_API eptx_status eptx_options_create(eptx_options** options, eptx_error** error) EPTX_NOEXCEPT;
EPTX_API void eptx_options_free(eptx_options* options) EPTX_NOEXCEPT;

/* How many threads one operator may use; 0: ONNX Runtime chooses. Must be 0 where the environment shares a pool. */
EPTX_API void eptx_options_set_threads(eptx_options* options, int32_t threads) EPTX_NOEXCEPT;
/* Whether every file is compared with its SHA-256 (0: no). All else is always checked. */
EPTX_API void eptx_options_set_verify(eptx_options* options, int32_t verify) EPTX_NOEXCEPT;
EPTX_API void eptx_options_set_kernels(eptx_options* options, eptx_kernels kernels) EPTX_NOEXCEPT;
/* Whether ONNX Runtime keeps freed memory for the next run (0: no; slower, and smaller between runs). */
EPTX_API void eptx_options_set_arena(eptx_options* options, int32_t arena) EPTX_NOEXCEPT;

/* ---- sessions ---- */

/*
 * Opens a bundle, checks it as docs/bundle.md says, and loads its model.
 *
 * bundle: the folder. It must not change while the session lives: ONNX Runtime maps its files of weights, and to read
 *     past the end of one that was made shorter ends the process (SIGBUS). Models and all other files are read, not
 *     mapped. A new version of a bundle belongs in a new folder, or takes the old one's place by a rename.
 * options: NULL for the defaults; not needed after the call.
 */
EPTX_API eptx_status eptx_session_open(const eptx_environment* environment, const char* bundle,
                                       const eptx_options* options, eptx_session** session,
                                       eptx_error** error) EPTX_NOEXCEPT;
EPTX_API void eptx_session_close(eptx_session* session) EPTX_NOEXCEPT;

/* What the logits of a task mean, as transformers' `problem_type` says it. */
typedef EPTX_ENUM(eptx_problem_type){
    EPTX_NO_PROBLEM = 0,   /* the task has none */
    EPTX_REGRESSION = 1,   /* values */
    EPTX_SINGLE_LABEL = 2, /* one label of several: their probabilities are a softmax */
    EPTX_MULTI_LABEL = 3   /* each label by itself: its probability is a sigmoid, and above 1/2 it is there */
} eptx_problem_type;

/* One task of a bundle. */
typedef struct eptx_task {
  size_t size;
  const char* name;
  int64_t id;                     /* its value of the input `task_id` */
  int64_t labels;                 /* how many of its row's logits count; -1: the bundle has no task heads */
  const char* const* label_names; /* `labels` names, or NULL */
  eptx_problem_type problem_type;
} eptx_task;

/* An input or output of the model. A dimension that varies has a name; equal names are equal sizes. */
typedef struct eptx_tensor_info {
  size_t size;
  const char* name;
  eptx_dtype dtype;
  size_t rank;
  const int64_t* shape;               /* `rank` sizes; -1 where it varies */
  const char* const* dimension_names; /* `rank` names; NULL where the size is fixed */
} eptx_tensor_info;

/* The task, input or output of an index from 0, in the bundle's order; NULL past the last. Valid while the session
 * lives. */
EPTX_API const eptx_task* eptx_session_task(const eptx_session* session, size_t index) EPTX_NOEXCEPT;
EPTX_API const eptx_tensor_info* eptx_session_input(const eptx_session* session, size_t index) EPTX_NOEXCEPT;
EPTX_API const eptx_tensor_info* eptx_session_output(const eptx_session* session, size_t index) EPTX_NOEXCEPT;

/* What runs where, as a JSON object: bundle, mode, method, model_type, precision, tasks, inputs, outputs, provider,
 * onnxruntime, eptx, and kernels {running, reason}. Valid while the session lives. */
EPTX_API const char* eptx_session_info(const eptx_session* session) EPTX_NOEXCEPT;

/* ---- requests ---- */

/* An input tensor in the caller's memory: row-major without gaps, aligned for its type, read only during the call. */
typedef struct eptx_input {
  size_t size;
  const char* name;
  eptx_dtype dtype; /* the model's own; nothing is converted */
  size_t rank;
  const int64_t* shape;
  const void* data;
  size_t bytes; /* of the data: the product of the shape and the element's size */
} eptx_input;

/*
 * One batch. Every input has the batch as its first dimension.
 *
 * Without `attention_mask` all tokens count; without `token_type_ids` they are 0. Checked before ONNX Runtime sees
 * them: types, shapes that agree, lengths, token ids and types in range (tokens that the mask shows are ones that the
 * row's task has), masks of 0 and 1 that show something of every row, finite numbers.
 *
 * Of a decoder, a request has all tokens of its rows, padded on the right; its cache is empty and cannot be given, and
 * the model chooses its route.
 *
 * tasks: names. None: the only task, or `auto` where the bundle infers tasks. One: of all rows. Else one per row.
 * `auto` infers a row's task where the bundle can. Instead of names, ids can be given as the input `task_id` (int,
 * [batch]).
 */
typedef struct eptx_request {
  size_t size;
  const eptx_input* inputs;
  size_t input_count;
  const char* const* tasks;
  size_t task_count;
} eptx_request;

/* A view of an output, row-major without gaps. */
typedef struct eptx_tensor {
  size_t size;
  const char* name;
  eptx_dtype dtype;
  size_t rank;
  const int64_t* shape;
  const void* data;
  size_t bytes;
} eptx_tensor;

/* Answers a request; the outputs are in the library's memory. */
EPTX_API eptx_status eptx_session_run(const eptx_session* session, const eptx_request* request, eptx_result** result,
                                      eptx_error** error) EPTX_NOEXCEPT;

/* The output of an index from 0, in the bundle's order; NULL past the last. Valid while the result lives. */
EPTX_API const eptx_tensor* eptx_result_output(const eptx_result* result, size_t index) EPTX_NOEXCEPT;
/* The task of a row from 0, the inferred one for `auto`; NULL past the last row and for an id that is no task's. */
EPTX_API const eptx_task* eptx_result_task(const eptx_result* result, size_t row) EPTX_NOEXCEPT;
EPTX_API void eptx_result_free(eptx_result* result) EPTX_NOEXCEPT;

#define EPTX_MAX_RANK 8

/*
 * An output in the caller's memory, written without a copy; it must not overlap an input or another output.
 *
 * `bytes`, `rank` and `shape` are set by the library, also where `capacity` is too small: the call then fails with
 * EPTX_BAD_INPUT, and a call with NULL and 0 asks for the sizes.
 */
typedef struct eptx_output {
  size_t size;
  const char* name;
  eptx_dtype dtype;             /* the model's own */
  void* data;                   /* aligned for its type */
  size_t capacity;              /* bytes at `data` */
  size_t bytes;                 /* out: bytes written, or needed */
  size_t rank;                  /* out */
  int64_t shape[EPTX_MAX_RANK]; /* out */
} eptx_output;

/*
 * Answers a request into the caller's buffers. Outputs that are not listed are not kept.
 *
 * An output whose size does not follow from the inputs' shapes ends with EPTX_NOT_SUPPORTED: use eptx_session_run.
 */
EPTX_API eptx_status eptx_session_run_into(const eptx_session* session, const eptx_request* request,
                                           eptx_output* outputs, size_t output_count, eptx_error** error) EPTX_NOEXCEPT;

/* ---- prepared calls ---- */

/*
 * A request and its outputs, prepared to be run many times with the same shapes and tasks and other values.
 *
 * The buffers of inputs and outputs must stay where they are until the call is freed; their values may change between
 * runs, and are checked by each. (To change the tasks between runs, give `task_id` as an input.) `outputs` as in
 * eptx_session_run_into.
 */
EPTX_API eptx_status eptx_call_create(const eptx_session* session, const eptx_request* request, eptx_output* outputs,
                                      size_t output_count, eptx_call** call, eptx_error** error) EPTX_NOEXCEPT;
EPTX_API eptx_status eptx_call_run(eptx_call* call, eptx_error** error) EPTX_NOEXCEPT;
EPTX_API void eptx_call_free(eptx_call* call) EPTX_NOEXCEPT;

/* ---- generation ---- */

/* Prompts of a decoder, as token ids; rows may differ in length. `tasks` as in eptx_request. */
typedef struct eptx_prompts {
  size_t size;
  const int64_t* ids; /* of all rows, one row after the other */
  size_t id_count;
  const size_t* lengths; /* of each row, at least 1; together `id_count` */
  size_t row_count;
  const char* const* tasks;
  size_t task_count;
} eptx_prompts;

/*
 * Is told of every token as it comes, on the calling thread: step by step, within a step by row. Anything but 0 ends
 * the call after this token. It may use the session, and may end its thread (pthread_exit, cancellation): the call is
 * then undone, and nothing is lost but its answer. It must not throw or jump out (longjmp).
 */
typedef int32_t (*eptx_on_token)(void* context, size_t row, int64_t token);

/*
 * How to generate.
 *
 * Where rows draw tokens, each has random numbers of its own: row r of a call with seed s gets what a row alone gets
 * with seed s + r, whatever its neighbours are.
 */
typedef struct eptx_generate_options {
  size_t size;
  int64_t max_new_tokens; /* how long an answer may get, at least 1, the token that ends it included */
  float temperature;      /* 0 takes the most likely token; else what logits are divided by before one is drawn */
  float top_p;            /* draw among the fewest most likely tokens whose probabilities reach it; 0 or 1: among all */
  int64_t top_k;          /* draw among that many most likely tokens, before top_p; 0: among all */
  uint64_t seed;
  const int64_t* stop; /* tokens that end an answer, beside those that the bundle names; at most 65536 */
  size_t stop_count;
  eptx_on_token on_token; /* or NULL */
  void* context;          /* handed to it */
} eptx_generate_options;

/* Why an answer ended. */
typedef EPTX_ENUM(eptx_finish){
    EPTX_FINISH_STOP = 1,   /* by a token that ends answers, which is its last */
    EPTX_FINISH_LENGTH = 2, /* max_new_tokens were made */
    EPTX_FINISH_CALLER = 3  /* on_token ended the call */
} eptx_finish;

/* The answer to one prompt. */
typedef struct eptx_generated {
  size_t size;
  const int64_t* tokens; /* the new ones */
  size_t token_count;
  eptx_finish finish;
  const eptx_task* task; /* the inferred one for `auto`; NULL for an id that is no task's */
} eptx_generated;

/*
 * Continues prompts, all rows together, each by its own task. What the model chooses by itself (the task of `auto`,
 * TuckA's route with routing "prompt") it chooses by the prompt, for all of the answer.
 *
 * Decoder bundles only. Checked: token ids, lengths (prompt and answer must fit what the model reads), tasks, options.
 * The cache takes memory for the longest prompt and max_new_tokens in every row, beside the environment's arena.
 */
EPTX_API eptx_status eptx_session_generate(const eptx_session* session, const eptx_prompts* prompts,
                                           const eptx_generate_options* options, eptx_generation** generation,
                                           eptx_error** error); /* noexcept but for the end of the thread */

/* The answer to the prompt of an index from 0; NULL past the last. Valid while the generation lives. */
EPTX_API const eptx_generated* eptx_generation_row(const eptx_generation* generation, size_t row) EPTX_NOEXCEPT;
EPTX_API void eptx_generation_free(eptx_generation* generation) EPTX_NOEXCEPT;

/* ---- validation ---- */

/*
 * Compares what a bundle computes on this machine with what was proved of it: see docs/proof.md. It runs by the
 * functions that the bundle holds for its own operators, and by the kernels where this libeptx has them and they fit.
 *
 * bundle: the folder, whose files are always compared with their SHA-256. proof: the file that `eptx validate --record`
 *     has written for it. A damaged proof, or one of another bundle, ends with EPTX_BAD_INPUT.
 * options: as of a session; kernels AUTO runs both, ON ends with EPTX_NOT_SUPPORTED where kernels cannot run, OFF
 *     leaves them out.
 *
 * A bundle that fails is no error of the call: it ends with EPTX_OK.
 */
EPTX_API eptx_status eptx_validate(const eptx_environment* environment, const char* bundle, const char* proof,
                                   const eptx_options* options, eptx_validation** validation,
                                   eptx_error** error) EPTX_NOEXCEPT;

/* 1 where the bundle computes what the trained model computes; 0 where it does not, and for NULL. */
EPTX_API int32_t eptx_validation_passed(const eptx_validation* validation) EPTX_NOEXCEPT;
/* The report as a JSON object, as `eptx validate --json` writes it. Valid while the validation lives. "" for NULL. */
EPTX_API const char* eptx_validation_report(const eptx_validation* validation) EPTX_NOEXCEPT;
EPTX_API void eptx_validation_free(eptx_validation* validation) EPTX_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* EPTX_H_ */
