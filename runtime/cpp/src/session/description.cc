#include "session/description.h"

namespace eptx::core {

Description::Description(const Manifest& manifest) {
  for (const Task& task : manifest.tasks) {
    const char* const* names = nullptr;
    if (task.label_names) {
      std::vector<const char*>& copy = label_names_.emplace_back();  // elements keep their place when the vector moves
      for (const std::string& name : *task.label_names) copy.push_back(name.c_str());
      names = copy.data();
    }
    tasks.push_back(
        {sizeof(eptx_task), task.name.c_str(), task.id, task.labels.value_or(-1), names, task.problem_type});
  }
  Describe(manifest.inputs, inputs);
  Describe(manifest.outputs, outputs);
}

void Description::Describe(const std::vector<TensorSpec>& specs, std::vector<eptx_tensor_info>& infos) {
  for (const TensorSpec& spec : specs) {
    std::vector<int64_t>& shape = shapes_.emplace_back();
    std::vector<const char*>& names = dimension_names_.emplace_back();
    for (const Dimension& dimension : spec.shape) {
      shape.push_back(dimension.is_name ? -1 : dimension.size);
      names.push_back(dimension.is_name ? dimension.name.c_str() : nullptr);
    }
    infos.push_back(
        {sizeof(eptx_tensor_info), spec.name.c_str(), spec.dtype, shape.size(), shape.data(), names.data()});
  }
}

}  // namespace eptx::core
