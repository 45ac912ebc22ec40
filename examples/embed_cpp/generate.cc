// Continues prompts of any task, all of them in one batch, and prints tokens as they come.
//
//     eptx_generate BUNDLE [MAX_NEW_TOKENS [TEMPERATURE [SEED]]] < prompts
//
// A prompt is a line of a task's name and token ids, "sql 1 4093 28"; every token is a line of the prompt's number and
// the token, and at the end comes a line for each prompt: its number, why its answer ended, and the answer.
#include <eptx.hpp>

#include <cstdlib>
#include <iostream>
#include <sstream>

namespace {

struct Prompts {
  std::vector<std::string> tasks;
  std::vector<std::vector<int64_t>> tokens;
};

Prompts Read(std::istream& in) {
  Prompts prompts;
  for (std::string line, task; std::getline(in, line);) {
    std::istringstream words(line);
    if (!(words >> task)) continue;
    prompts.tasks.push_back(task);
    prompts.tokens.emplace_back();
    for (int64_t token = 0; words >> token;) prompts.tokens.back().push_back(token);
  }
  return prompts;
}

const char* Reason(eptx_finish finish) {
  return finish == EPTX_FINISH_STOP ? "stop" : finish == EPTX_FINISH_LENGTH ? "length" : "caller";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2 || argc > 5) {
    std::cerr << "usage: eptx_generate BUNDLE [MAX_NEW_TOKENS [TEMPERATURE [SEED]]] < prompts\n";
    return EPTX_USAGE;
  }
  eptx::GenerateOptions options;
  if (argc > 2) options.max_new_tokens = std::atoll(argv[2]);
  if (argc > 3) options.temperature = std::strtof(argv[3], nullptr);
  if (argc > 4) options.seed = std::strtoull(argv[4], nullptr, 10);
  const eptx::Environment environment;
  const eptx::Session session(environment, argv[1]);
  const Prompts prompts = Read(std::cin);
  const auto show = [](size_t row, int64_t token) {
    std::cout << row << " " << token << std::endl;
    return std::cout.good();  // nobody reads any more: stop
  };
  const eptx::Generation answers = session.Generate(prompts.tokens, prompts.tasks, options, show);
  for (size_t row = 0; row < prompts.tasks.size(); ++row) {
    std::cout << row << " " << Reason(answers[row].finish) << ":";
    for (int64_t token : answers.Tokens(row)) std::cout << " " << token;
    std::cout << "\n";
  }
  return EPTX_OK;
} catch (const eptx::Error& error) {
  std::cerr << "error: " << error.what() << "\n";
  return error.status();
}
